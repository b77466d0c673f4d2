package system

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	redisTimeout = 5 * time.Second
	maxRedisText = 1 << 20 // bytes of a text, and texts of a list
	scanCount    = "1000"
)

// Flush empties the Redis of a domain: an embedded one as a whole, of a real one what
// belongs to the domain.
func (s *System) Flush(ctx context.Context, domain string) error {
	for n, name := range s.names {
		if name != domain {
			continue
		}
		if s.cfg.Standalone {
			break
		}
		c, err := dialRedis(ctx, s.on(n).Redis)
		if err != nil {
			return fmt.Errorf("empty Redis: %w", err)
		}
		defer c.close()
		if s.cfg.Servers == (Servers{}) {
			_, err = c.do("FLUSHALL")
		} else {
			err = c.remove("linker:{" + domain + "}:*")
		}
		if err != nil {
			return fmt.Errorf("empty Redis: %w", err)
		}
		return nil
	}
	return fmt.Errorf("there is no Redis of %q that can be reached", domain)
}

// redisConn speaks as much of the protocol of Redis as is needed to empty one.
type redisConn struct {
	conn net.Conn
	in   *bufio.Reader
}

func dialRedis(ctx context.Context, address string) (*redisConn, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "redis" {
		return nil, errors.New("expected redis://HOST:PORT")
	}
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), "6379")
	}
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, err
	}
	c := &redisConn{conn: conn, in: bufio.NewReader(conn)}
	_ = conn.SetDeadline(time.Now().Add(redisTimeout))
	if password, is := u.User.Password(); is {
		words := []string{"AUTH", password}
		if name := u.User.Username(); name != "" {
			words = []string{"AUTH", name, password}
		}
		if _, err := c.do(words...); err != nil {
			c.close()
			return nil, err
		}
	}
	if db := strings.Trim(u.Path, "/"); db != "" {
		if _, err := c.do("SELECT", db); err != nil {
			c.close()
			return nil, err
		}
	}
	return c, nil
}

func (c *redisConn) close() { _ = c.conn.Close() }

// remove removes the keys of a pattern.
func (c *redisConn) remove(pattern string) error {
	for cursor := "0"; ; {
		answer, err := c.do("SCAN", cursor, "MATCH", pattern, "COUNT", scanCount)
		if err != nil {
			return err
		}
		if len(answer) == 0 {
			return errors.New("an answer to SCAN without a cursor")
		}
		if keys := answer[1:]; len(keys) > 0 {
			if _, err := c.do(append([]string{"DEL"}, keys...)...); err != nil {
				return err
			}
		}
		if cursor = answer[0]; cursor == "0" {
			return nil
		}
	}
}

// do sends a command and returns the texts of the answer, nested ones in a row.
func (c *redisConn) do(words ...string) ([]string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(words))
	for _, word := range words {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(word), word)
	}
	_ = c.conn.SetDeadline(time.Now().Add(redisTimeout))
	if _, err := io.WriteString(c.conn, b.String()); err != nil {
		return nil, err
	}
	return c.read(0)
}

func (c *redisConn) read(depth int) ([]string, error) {
	line, err := c.in.ReadString('\n')
	if err != nil {
		return nil, err
	}
	line = strings.TrimRight(line, "\r\n")
	if line == "" || depth > 2 {
		return nil, errors.New("an answer that is not understood")
	}
	text := line[1:]
	switch line[0] {
	case '+', ':':
		return []string{text}, nil
	case '-':
		return nil, errors.New(text)
	}
	size, err := strconv.Atoi(text)
	if err != nil || size > maxRedisText {
		return nil, fmt.Errorf("an answer with a size of %q", text)
	}
	if line[0] == '$' {
		if size < 0 {
			return nil, nil
		}
		value := make([]byte, size+2)
		if _, err := io.ReadFull(c.in, value); err != nil {
			return nil, err
		}
		return []string{string(value[:size])}, nil
	}
	var all []string
	for range size {
		some, err := c.read(depth + 1)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}
