package nats

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/linkerhq/linker/pkg/certs"
)

// Server says where the live plane is and how to talk to it. The files are read
// again for each connection.
type Server struct {
	URL             string // nats://HOST:PORT or tls://…, or several separated by commas; it may carry credentials and is never logged
	CAFile          string // certificates to trust instead of the system's; implies TLS
	CredentialsFile string // a .creds file with a user's token and key

	// Dial connects to a server, TLS and login not included; nil: over the network.
	// It gives up when ctx ends.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Validate reports all mistakes together, those in the files as well. It
// connects to nobody.
func (s Server) Validate() error {
	var errs []error
	for each := range strings.SplitSeq(s.URL, ",") {
		if err := checkURL(strings.TrimSpace(each)); err != nil {
			errs = append(errs, err)
			break
		}
	}
	if s.CAFile != "" {
		if _, err := certs.Pool(s.CAFile); err != nil {
			errs = append(errs, fmt.Errorf("TLS towards NATS: %w", err))
		}
	}
	if s.CredentialsFile != "" {
		errs = append(errs, checkCredentials(s.CredentialsFile))
	}
	return errors.Join(errs...)
}

// checkURL does not quote what it refuses: that may hold a password.
func checkURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case text == "":
		return errors.New("the URL of NATS is missing: expected nats://HOST:PORT or tls://HOST:PORT")
	case err != nil, u.Host == "":
		return errors.New("the URL of NATS is not valid: expected nats://HOST:PORT or tls://HOST:PORT, with special characters of a password as %XX")
	case !slices.Contains([]string{"nats", "tls"}, u.Scheme):
		return fmt.Errorf("the URL of NATS begins with %q: expected nats:// or tls://", u.Scheme)
	}
	return nil
}

func checkCredentials(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("credentials file for NATS: %w", err)
	}
	if !bytes.Contains(text, []byte("BEGIN NATS USER JWT")) || !bytes.Contains(text, []byte("BEGIN USER NKEY SEED")) {
		return fmt.Errorf("credentials file for NATS %s: it does not hold the token and the key of a user, as nsc writes them", file)
	}
	return nil
}

// options are those that follow from the server.
func (s Server) options() []nats.Option {
	// Without it two refusals in a row would end the connection for good, and
	// nobody could mend the server's list of users without a restart.
	options := []nats.Option{nats.IgnoreAuthErrorAbort()}
	if s.CAFile != "" {
		options = append(options, nats.RootCAs(s.CAFile))
	}
	if s.CredentialsFile != "" {
		options = append(options, nats.UserCredentials(s.CredentialsFile))
	}
	if s.Dial != nil {
		options = append(options, nats.SetCustomDialer(dialer(s.Dial)))
	}
	return options
}

// dialer is how the library wants to be told how to connect.
type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// Dial implements nats.CustomDialer.
func (d dialer) Dial(network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	return d(ctx, network, address)
}

// explain puts before an error what it means for an operator, where that is
// known.
func explain(err error) error {
	if text := meaning(err); text != "" {
		return fmt.Errorf("%s: %w", text, err)
	}
	return err
}

func meaning(err error) string {
	if text := certs.Explain(err); text != "" {
		return "the server does not fit our TLS, " + text
	}
	switch {
	case refuses(err):
		return "the server refuses the user, the password, the token or the credentials"
	case errors.Is(err, nats.ErrPermissionViolation):
		return "the user lacks rights on a subject"
	case errors.Is(err, nats.ErrSecureConnWanted):
		return "the server speaks no TLS"
	case errors.Is(err, nats.ErrTLS):
		return "the server does not fit our TLS, it may want a client certificate, which cannot be given"
	default:
		return ""
	}
}

// refuses says whether the server does not let us in. While connecting, the
// library passes on the server's words only.
func refuses(err error) bool {
	for _, refusal := range []error{nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired} {
		if errors.Is(err, refusal) || strings.Contains(strings.ToLower(err.Error()), strings.TrimPrefix(refusal.Error(), "nats: ")) {
			return true
		}
	}
	return false
}
