package kafka

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/apiversions"
	"github.com/segmentio/kafka-go/protocol/saslauthenticate"
	"github.com/segmentio/kafka-go/protocol/saslhandshake"
	"github.com/segmentio/kafka-go/sasl"
)

const (
	// greetTimeout bounds all that is needed before the first request.
	greetTimeout = 5 * time.Second
	// maxIdle is after how long a connection that nobody has used is not trusted
	// any more: brokers, and what stands before them, forget idle ones.
	maxIdle = 30 * time.Second

	readerBytes = 4 << 10
	// maxAnswer is the largest answer that is read, in bytes: one record of the
	// largest size comes alone.
	maxAnswer = 128 << 20
	// keptBuffer is the largest buffer that is kept for a later request, in bytes.
	keptBuffer = 256 << 10
	// smallBuffer is kept in any case.
	smallBuffer = 64 << 10
)

// Versions of requests, which Kafka knows from 2.4 on; version 4 does.
const (
	produceVersion = 8 // the first that says why
	fetchVersion   = 10
)

// leader is a connection to the broker that leads one partition. Requests are made
// on it one after the other by the goroutine that owns it, without another one in
// between, and without anything that is made anew for each: that is why they do not
// take the client's way. It connects when it is needed, and again after each error.
type leader struct {
	client    *client // static
	topic     string  // static
	partition int     // static

	// Owned by whoever makes the requests.
	conn   net.Conn // nil: none
	reader *bufio.Reader
	free   func() bool // forgets that the connection ends with its context
	used   time.Time   // when the last answer came
	number int32       // of the last request
	sent   buffer      // the request
	got    buffer      // its answer
}

func (c *client) leader(topic string, partition int) *leader {
	return &leader{client: c, topic: topic, partition: partition}
}

// close gives the connection back. The next request makes another one.
func (l *leader) close() {
	if l.conn == nil {
		return
	}
	l.free()
	_ = l.conn.Close() // what was on its way is asked for again
	l.conn, l.reader = nil, nil
}

// ask sends a request, of which the bytes from bodyAt on are given, and returns the
// body of its answer, which lies in the buffer. The connection ends with ctx.
func (l *leader) ask(ctx context.Context, key protocol.ApiKey, version int16, request []byte, into *buffer) ([]byte, error) {
	if err := l.connect(ctx); err != nil {
		return nil, err
	}
	body, err := l.exchange(key, version, request, into)
	if err != nil {
		l.close()
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return body, nil
}

func (l *leader) exchange(key protocol.ApiKey, version int16, request []byte, into *buffer) ([]byte, error) {
	if err := l.conn.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
		return nil, err
	}
	l.number++
	putHeader(request, key, version, l.number)
	if _, err := l.conn.Write(request); err != nil {
		return nil, err
	}
	header, err := l.reader.Peek(8)
	if err != nil {
		return nil, unexpected(err)
	}
	size, number := int(int32(binary.BigEndian.Uint32(header)))-4, int32(binary.BigEndian.Uint32(header[4:]))
	if size < 0 || size > maxAnswer {
		return nil, fmt.Errorf("an answer of %d bytes", size)
	}
	if number != l.number {
		return nil, fmt.Errorf("an answer to request %d, expected %d", number, l.number)
	}
	if _, err := l.reader.Discard(8); err != nil {
		return nil, err
	}
	body := into.sized(size)
	if _, err := io.ReadFull(l.reader, body); err != nil {
		return nil, unexpected(err)
	}
	l.used = time.Now()
	return body, nil
}

// unexpected says of an end that it came too soon.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// connect sees to it that there is a connection to the leader.
func (l *leader) connect(ctx context.Context) error {
	if l.conn != nil && time.Since(l.used) > maxIdle {
		l.close()
	}
	if l.conn != nil {
		return nil
	}
	greeting, cancel := context.WithTimeout(ctx, greetTimeout)
	defer cancel()
	address, err := l.find(greeting)
	if err != nil {
		return err
	}
	raw, err := l.client.transport.Dial(greeting, "tcp", address)
	if err != nil {
		return err
	}
	free := context.AfterFunc(ctx, func() { _ = raw.Close() }) // which ends a request under way
	conn, err := l.client.greet(greeting, raw, address)
	if err != nil {
		free()
		return errors.Join(err, raw.Close())
	}
	l.conn, l.reader, l.free, l.used = conn, bufio.NewReaderSize(conn, readerBytes), free, time.Now()
	return nil
}

// find returns where the leader is, HOST:PORT, as far as the client knows.
func (l *leader) find(ctx context.Context) (string, error) {
	res, err := l.client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{l.topic}})
	if err != nil {
		return "", err
	}
	for _, t := range res.Topics {
		if t.Error != nil {
			return "", fmt.Errorf("find the leader of %s: %w", l.topic, t.Error)
		}
		for _, p := range t.Partitions {
			if p.ID == l.partition && p.Leader.Host != "" {
				return net.JoinHostPort(p.Leader.Host, strconv.Itoa(p.Leader.Port)), nil
			}
		}
	}
	return "", fmt.Errorf("find the leader of %s/%d: %w", l.topic, l.partition, kafka.LeaderNotAvailable)
}

// greet says what has to be said on a new connection.
func (c *client) greet(ctx context.Context, conn net.Conn, address string) (net.Conn, error) {
	deadline, _ := ctx.Deadline()
	if security := c.transport.TLS; security != nil {
		if security.ServerName == "" {
			host, _, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			security = security.Clone()
			security.ServerName = host
		}
		secured := tls.Client(conn, security)
		if err := secured.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		conn = secured
	}
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	speaker := protocol.NewConn(conn, clientID)
	if err := agree(speaker); err != nil {
		return nil, err
	}
	if c.transport.SASL == nil {
		return conn, nil
	}
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return nil, err
	}
	return conn, logIn(sasl.WithMetadata(ctx, &sasl.Metadata{Host: host, Port: port}), speaker, c.transport.SASL)
}

// agree asks the broker for the versions that it knows.
func agree(conn *protocol.Conn) error {
	res, err := conn.RoundTrip(new(apiversions.Request))
	if err != nil {
		return fmt.Errorf("versions of the broker: %w", err)
	}
	told := res.(*apiversions.Response)
	if told.ErrorCode != 0 {
		return fmt.Errorf("versions of the broker: %w", kafka.Error(told.ErrorCode))
	}
	versions := make(map[protocol.ApiKey]int16, len(told.ApiKeys))
	for _, v := range told.ApiKeys {
		key := protocol.ApiKey(v.ApiKey)
		versions[key] = key.SelectVersion(v.MinVersion, v.MaxVersion)
		needed := int16(-1)
		switch key {
		case protocol.Produce:
			needed = produceVersion
		case protocol.Fetch:
			needed = fetchVersion
		}
		if needed >= 0 && (needed < v.MinVersion || needed > v.MaxVersion) {
			return fmt.Errorf("%s: %w: the broker knows versions %d to %d, expected %d", key, kafka.UnsupportedVersion, v.MinVersion, v.MaxVersion, needed)
		}
	}
	conn.SetVersions(versions)
	return nil
}

// logIn is what the library's transport does, too.
func logIn(ctx context.Context, conn *protocol.Conn, mechanism sasl.Mechanism) error {
	res, err := conn.RoundTrip(&saslhandshake.Request{Mechanism: mechanism.Name()})
	if err != nil {
		return err
	}
	if code := res.(*saslhandshake.Response).ErrorCode; code != 0 {
		return kafka.Error(code)
	}
	machine, say, err := mechanism.Start(ctx)
	if err != nil {
		return err
	}
	for done := false; !done; {
		res, err := conn.RoundTrip(&saslauthenticate.Request{AuthBytes: say})
		if errors.Is(err, io.EOF) { // how brokers refuse that speak the oldest way
			return kafka.SASLAuthenticationFailed
		}
		if err != nil {
			return err
		}
		told := res.(*saslauthenticate.Response)
		if told.ErrorCode != 0 {
			return fmt.Errorf("%w: %s", kafka.Error(told.ErrorCode), told.ErrorMessage)
		}
		if done, say, err = machine.Next(ctx, told.AuthBytes); err != nil {
			return err
		}
	}
	return nil
}

// buffer is memory for one request or answer.
type buffer struct{ bytes []byte }

// sized returns the memory, so many bytes of it, with anything in them.
func (b *buffer) sized(n int) []byte {
	if cap(b.bytes) < n {
		b.bytes = make([]byte, n)
	}
	b.bytes = b.bytes[:n]
	return b.bytes
}

// tidy lets go of a buffer that is much too large for what it was needed for last.
func (b *buffer) tidy() {
	if size := cap(b.bytes); size > keptBuffer || size > smallBuffer && size > 8*len(b.bytes) {
		b.bytes = nil
	}
}

func (l *leader) tidy() {
	l.sent.tidy()
	l.got.tidy()
}
