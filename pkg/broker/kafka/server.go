package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"syscall"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"github.com/linkerhq/linker/pkg/certs"
)

// Server says where the brokers are and how to talk to them. The files are
// checked when a Producer or a Group is made; the client's certificate is read
// again for each connection.
type Server struct {
	Brokers []string // HOST:PORT, at least one

	TLS      bool
	CAFile   string // certificates to trust instead of the system's; implies TLS
	CertFile string // the client's certificate; implies TLS
	KeyFile  string // and its key

	SASL     string // plain, scram-sha-256 or scram-sha-512; empty: no login
	User     string
	Password string

	// Dial connects to a broker, TLS and login not included; nil: over the network.
	// It gives up when ctx ends.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Names of ways to log in.
const (
	saslPlain  = "plain"
	saslSHA256 = "scram-sha-256"
	saslSHA512 = "scram-sha-512"
)

// Validate reports all mistakes together, those in the files as well. It
// connects to nobody.
func (s Server) Validate() error { return errors.Join(s.mistakes()...) }

func (s Server) mistakes() []error {
	var errs []error
	if len(s.Brokers) == 0 || slices.Contains(s.Brokers, "") {
		errs = append(errs, errors.New("no broker address"))
	}
	if _, err := s.tls(); err != nil {
		errs = append(errs, fmt.Errorf("TLS towards Kafka: %w", err))
	}
	if _, err := s.mechanism(); err != nil {
		errs = append(errs, fmt.Errorf("login to Kafka: %w", err))
	}
	return errs
}

func (s Server) encrypts() bool {
	return s.TLS || s.CAFile != "" || s.CertFile != "" || s.KeyFile != ""
}

func (s Server) dial() func(ctx context.Context, network, address string) (net.Conn, error) {
	if s.Dial != nil {
		return s.Dial
	}
	return (&net.Dialer{Timeout: dialTimeout}).DialContext
}

// tls returns nil if there is to be none.
func (s Server) tls() (*tls.Config, error) {
	if !s.encrypts() {
		return nil, nil
	}
	return certs.Client(s.CAFile, s.CertFile, s.KeyFile)
}

// mechanism returns nil if nobody logs in.
func (s Server) mechanism() (sasl.Mechanism, error) {
	switch s.SASL {
	case "":
		if s.User != "" || s.Password != "" {
			return nil, errors.New("there is a user or a password, but no SASL mechanism: expected plain, scram-sha-256 or scram-sha-512")
		}
		return nil, nil
	case saslPlain, saslSHA256, saslSHA512:
	default:
		return nil, fmt.Errorf("SASL mechanism %q: expected plain, scram-sha-256 or scram-sha-512", s.SASL)
	}
	if s.User == "" {
		return nil, fmt.Errorf("SASL mechanism %s without a user", s.SASL)
	}
	if s.Password == "" {
		return nil, fmt.Errorf("SASL mechanism %s without a password", s.SASL)
	}
	switch s.SASL {
	case saslPlain:
		return plain.Mechanism{Username: s.User, Password: s.Password}, nil
	case saslSHA256:
		return login(scram.SHA256, s)
	default:
		return login(scram.SHA512, s)
	}
}

func login(algorithm scram.Algorithm, s Server) (sasl.Mechanism, error) {
	mechanism, err := scram.Mechanism(algorithm, s.User, s.Password)
	if err != nil { // what it says may quote the password
		return nil, errors.New("the user or the password holds characters that SCRAM does not allow")
	}
	return mechanism, nil
}

// explain puts before an error what it means for an operator, where that is
// known.
func (s Server) explain(err error) error {
	if text := s.meaning(err); text != "" {
		return fmt.Errorf("%s: %w", text, err)
	}
	return err
}

func (s Server) meaning(err error) string {
	if text := certs.Explain(err); text != "" {
		return "the broker does not fit our TLS, " + text
	}
	var network net.Error
	switch {
	case errors.Is(err, kafka.SASLAuthenticationFailed):
		return "the broker refuses the user or the password"
	case errors.Is(err, kafka.UnsupportedSASLMechanism):
		return "the broker does not offer the SASL mechanism " + s.SASL + " on this port"
	case errors.Is(err, kafka.IllegalSASLState):
		return "the broker wants no login on this port, or another one"
	case errors.Is(err, kafka.TopicAuthorizationFailed):
		return "the user lacks rights on the topic: Create, Describe, DescribeConfigs, Read and Write"
	case errors.Is(err, kafka.GroupAuthorizationFailed):
		return "the user lacks rights on the group: Describe and Read"
	case errors.Is(err, kafka.ClusterAuthorizationFailed):
		return "the user lacks rights on the cluster: Create and DescribeConfigs"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return "the broker ends the connection: it is stopping, " + s.suspicion()
	case errors.As(err, &network) && network.Timeout():
		return "the broker does not answer in time: it hangs, " + s.suspicion()
	default:
		return ""
	}
}

// suspicion is what a broker that says nothing may not like about us.
func (s Server) suspicion() string {
	port, login := "its port wants TLS", "wants a login"
	if s.encrypts() {
		port = "its port speaks no TLS"
	}
	if s.SASL != "" {
		login = "refuses the user or the password"
	}
	return port + ", or it " + login
}
