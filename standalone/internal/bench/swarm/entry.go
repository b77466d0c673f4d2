package swarm

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"

	"github.com/linkerhq/linker/standalone/internal/bench/frame"
)

// entrant is a client that gets in or is to do so.
type entrant struct {
	client *Client
	at     int64 // when its attempt has begun, or is to begin
}

// Failures counts why clients did not get in, and how often.
type Failures map[string]int64

// dial begins as many connections as may be on their way.
func (s *Swarm) dial(now int64) {
	for s.onTheWay < s.cfg.Concurrency {
		var c *Client
		switch {
		case len(s.waiting) > 0 && s.waiting[0].at <= now:
			c, s.waiting = s.waiting[0].client, s.waiting[1:]
		case s.undialled < len(s.clients):
			c = s.clients[s.undialled]
			c.begun = now
			s.undialled++
		default:
			return
		}
		s.connect(c, now)
	}
}

func (s *Swarm) connect(c *Client, now int64) {
	to := s.cfg.Target(c.Index)
	var from netip.Addr
	if to.Addr.Addr().Is4() && to.Addr.Addr().IsLoopback() && len(s.clients) > perAddress {
		from = netip.AddrFrom4([4]byte{127, 0, 0, byte(1 + c.Index/perAddress)})
	}
	c.attempt, c.state, c.out = now, connecting, nil
	s.onTheWay++
	s.entrants = append(s.entrants, entrant{c, now})
	fd, err := s.kernel.connect(c.Index, from, to.Addr)
	if err != nil {
		s.lose(c, err)
		return
	}
	c.fd, c.watching = fd, true
}

// expire gives up on clients that take too long to get in.
func (s *Swarm) expire(now int64) {
	for len(s.entrants) > 0 {
		first := s.entrants[0]
		c := first.client
		underway := c.attempt == first.at && (c.state == connecting || c.state == shaking || c.state == entering)
		if underway && first.at+int64(s.cfg.LoginWithin) > now {
			return
		}
		s.entrants = s.entrants[1:]
		if underway {
			s.lose(c, errTimeout)
		}
	}
}

var errTimeout = errors.New("no answer in time")

// closeError is the end that a server has announced.
type closeError struct{ code int }

// Error names the code.
func (e closeError) Error() string { return "closed with " + strconv.Itoa(e.code) }

// refusedError is a login that the server does not want.
type refusedError struct{ reason string }

// Error names the reason.
func (e refusedError) Error() string { return "the login was refused: " + e.reason }

// lose ends the connection of a client. Who was not in tries again, unless the server
// has said for good that it may not.
func (s *Swarm) lose(c *Client, err error) {
	if c.fd >= 0 {
		s.kernel.drop(c.fd)
	}
	was := c.state
	c.fd, c.out, c.partial = -1, nil, nil
	now := s.Now()
	if was == in {
		c.state = gone
		s.entered.Add(-1)
		s.handler.Ended(c, reason(err), now)
		if s.cfg.ComeBack > 0 {
			s.again(c, now)
		}
		return
	}
	c.state = idle
	s.onTheWay--
	s.failures[reason(err)]++
	var refused refusedError
	if errors.As(err, &refused) && refused.reason != "AUTH_UNAVAILABLE" {
		s.failed = fmt.Errorf("log in as %s: %w", c.User, err)
		return
	}
	if tryAgain(reason(err)) {
		s.retries++
	}
	s.again(c, now)
}

// again lets a client connect once more, after a pause.
func (s *Swarm) again(c *Client, now int64) {
	c.state = idle
	s.waiting = append(s.waiting, entrant{c, now + int64(cmp.Or(s.cfg.ComeBack, retryPause))})
}

// tryAgain says whether that is how a server asks for another attempt.
func tryAgain(reason string) bool {
	return reason == "closed-4503" || reason == "http-503" || reason == "refused-AUTH_UNAVAILABLE"
}

// reason is a short word for an error, of which there are few different ones.
func reason(err error) string {
	var closed closeError
	var status frame.StatusError
	var refused refusedError
	switch {
	case errors.As(err, &closed):
		return "closed-" + strconv.Itoa(closed.code)
	case errors.As(err, &status):
		return "http-" + strconv.Itoa(status.Status)
	case errors.As(err, &refused):
		return "refused-" + refused.reason
	case errors.Is(err, errTimeout):
		return "timeout"
	case errors.Is(err, io.EOF):
		return "closed-without-code"
	default:
		return err.Error()
	}
}
