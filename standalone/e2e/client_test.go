package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// patience is how long a test waits for something that must happen. It is far
// above what anything takes, so that a busy machine fails no test.
const patience = 20 * time.Second

// frame is what a server has sent.
type frame struct {
	Type      string
	Reference *string
	ID        string
	CreatedAt int64
	Seq       uint64
	Late      bool
	Data      struct {
		From, To, Content, UserID, AppID, ID, Reference string
		Code, Message, Reason, Domain                   string
		URLs                                            []string
		IsAuthenticated, Retryable                      *bool
		RetryAfterMs, Count, UpTo, ReconnectInMs        int
		LeftMissingCount                                *int
	}
	raw string
}

func (f *frame) String() string {
	if f == nil {
		return "nothing"
	}
	return fmt.Sprintf("%.300s", f.raw)
}

func (f *frame) reference() string {
	if f.Reference == nil {
		return ""
	}
	return *f.Reference
}

func parseFrame(b []byte) (*frame, error) {
	f := &frame{raw: string(b)}
	if err := json.Unmarshal(b, f); err != nil {
		return nil, fmt.Errorf("the server sent %.200q: %w", b, err)
	}
	if strings.Contains(f.raw, ":null") {
		return nil, fmt.Errorf("the server sent null for something absent: %.200q", b)
	}
	return f, nil
}

// client is one websocket. Its reader takes frames as they come, and so answers
// pings. Methods that may fail the test belong to the test's goroutine, the
// others to any.
type client struct {
	t       *testing.T
	ws      *websocket.Conn
	user    string
	accepts bool          // has the feature accept
	wake    chan struct{} // capacity 1, never closed
	ended   chan struct{} // closed when nothing more is read

	mu    sync.Mutex
	queue []*frame      // guarded by mu; received and not looked at
	err   error         // guarded by mu; why nothing more comes
	asked chan struct{} // guarded by mu; closed when the server asks for proof of what came; nil: nothing came
}

var errNothing = errors.New("nothing came in time")

// dial opens a websocket that is closed when the test ends.
func dial(t *testing.T, url string) *client {
	t.Helper()
	c, err := tryDial(t, url)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func tryDial(t *testing.T, url string) (*client, error) {
	c, err := open(t.Context(), t, url, patience)
	if err != nil {
		return nil, err
	}
	t.Cleanup(c.cut)
	return c, nil
}

// open opens a websocket that its caller cuts. It may be called by any goroutine.
func open(ctx context.Context, t *testing.T, url string, within time.Duration) (*client, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	c := &client{t: t, wake: make(chan struct{}, 1)}
	ws, res, err := websocket.Dial(ctx, url, &websocket.DialOptions{
		OnPingReceived: func(context.Context, []byte) bool { c.pinged(); return true },
	})
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", url, err)
	}
	if res.Body != nil {
		_ = res.Body.Close()
	}
	ws.SetReadLimit(-1)
	c.ws, c.ended = ws, make(chan struct{})
	go func() {
		defer close(c.ended)
		c.read()
	}()
	return c, nil
}

// cut ends the connection without a goodbye, and returns when nothing more is
// read from it.
func (c *client) cut() {
	_ = c.ws.CloseNow()
	<-c.ended
}

func (c *client) read() {
	for {
		_, b, err := c.ws.Read(context.Background())
		var f *frame
		if err == nil {
			f, err = parseFrame(b)
		}
		c.mu.Lock()
		if err == nil {
			c.queue = append(c.queue, f)
			if f.ID != "" && c.asked == nil {
				c.asked = make(chan struct{})
			}
		}
		c.err = err
		c.mu.Unlock()
		select {
		case c.wake <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// pinged notes that the server asks for proof of all that came before.
func (c *client) pinged() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asked != nil {
		close(c.asked)
		c.asked = nil
	}
}

// receive returns the next frame, or why there is none.
func (c *client) receive(within time.Duration) (*frame, error) {
	timer := time.NewTimer(within)
	defer timer.Stop()
	for {
		c.mu.Lock()
		if len(c.queue) > 0 {
			f := c.queue[0]
			c.queue = c.queue[1:]
			c.mu.Unlock()
			return f, nil
		}
		err := c.err
		c.mu.Unlock()
		if err != nil {
			return nil, err
		}
		select {
		case <-c.wake:
		case <-timer.C:
			return nil, errNothing
		}
	}
}

// next returns the next frame.
func (c *client) next() *frame {
	c.t.Helper()
	f, err := c.receive(patience)
	if err != nil {
		c.t.Fatalf("%s: %v", c.user, err)
	}
	return f
}

// expect returns the next frame, which must be of this type.
func (c *client) expect(kind string) *frame {
	c.t.Helper()
	f := c.next()
	if f.Type != kind {
		c.t.Fatalf("%s: got %v, want %s", c.user, f, kind)
	}
	return f
}

// expectMessage expects a MESSAGE with this sender and content.
func (c *client) expectMessage(from, content string) *frame {
	c.t.Helper()
	f := c.expect("MESSAGE")
	if f.Data.From != from || f.Data.Content != content {
		c.t.Fatalf("%s: got %v, want %.80q from %s", c.user, f, content, from)
	}
	return f
}

// expectConfirmation expects a MESSAGE_CONFIRMATION of this reference.
func (c *client) expectConfirmation(reference string) *frame {
	c.t.Helper()
	f := c.expect("MESSAGE_CONFIRMATION")
	if f.Data.Reference != reference {
		c.t.Fatalf("%s: got %v, want the confirmation of %q", c.user, f, reference)
	}
	return f
}

// expectFailure expects an error of this type and code, whose message names all
// that is given, and the reference of the frame at fault.
func (c *client) expectFailure(kind, code, reference string, names ...string) *frame {
	c.t.Helper()
	f := c.expect(kind)
	if f.Data.Code != code || f.reference() != reference {
		c.t.Fatalf("%s: got %v, want %s with the reference %q", c.user, f, code, reference)
	}
	for _, name := range names {
		if !strings.Contains(f.Data.Message, name) {
			c.t.Errorf("the message %q does not name %q", f.Data.Message, name)
		}
	}
	if (kind == "DELIVER_FAILED") != (f.Data.Retryable != nil) {
		c.t.Errorf("retryable belongs to DELIVER_FAILED, and to nothing else: %v", f)
	}
	return f
}

// closed waits for the end of the connection, whatever comes before it, and
// returns the close code, -1 if there was none.
func (c *client) closed() websocket.StatusCode {
	c.t.Helper()
	for {
		_, err := c.receive(patience)
		if errors.Is(err, errNothing) {
			c.t.Fatalf("%s: the connection is still open", c.user)
		}
		if err != nil {
			return websocket.CloseStatus(err)
		}
	}
}

// expectClosed expects that nothing comes any more but this close code.
func (c *client) expectClosed(code websocket.StatusCode) {
	c.t.Helper()
	f, err := c.receive(patience)
	if err == nil || websocket.CloseStatus(err) != code {
		c.t.Fatalf("%s: got %v, %v, want close code %d", c.user, f, err, code)
	}
}

// write sends a text frame. It may be called by any goroutine.
func (c *client) write(text string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return c.ws.Write(ctx, websocket.MessageText, []byte(text))
}

// send sends a text frame, made like fmt.Sprintf.
func (c *client) send(format string, args ...any) {
	c.t.Helper()
	text := format
	if len(args) > 0 {
		text = fmt.Sprintf(format, args...)
	}
	if err := c.write(text); err != nil {
		c.t.Fatalf("%s: send %.80q: %v", c.user, text, err)
	}
}

// say sends a RELIABLE MESSAGE; an empty reference is left out.
func (c *client) say(to, content, reference string) {
	c.t.Helper()
	c.send("%s", message(to, content, reference, "RELIABLE"))
}

// sayFast sends a FAST MESSAGE; an empty reference is left out.
func (c *client) sayFast(to, content, reference string) {
	c.t.Helper()
	c.send("%s", message(to, content, reference, "FAST"))
}

func message(to, content, reference, feature string) string {
	b := fmt.Sprintf(`{"type":"MESSAGE","data":{"to":%s,"content":%s},"feature":"%s"`, quoted(to), quoted(content), feature)
	if reference != "" {
		b += `,"reference":` + quoted(reference)
	}
	return b + "}"
}

func quoted(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings and lists of strings only
	}
	return string(b)
}

// works shows that the socket can still be used, and that nothing came before.
func (c *client) works() {
	c.t.Helper()
	c.say(c.user, "does it still work?", "")
	f := c.next()
	if f.Type == "MESSAGE_ACCEPTED" { // of this very message, with the feature accept
		f = c.next()
	} else if c.accepts {
		c.expect("MESSAGE_ACCEPTED")
	}
	if f.Type != "MESSAGE" || f.Data.Content != "does it still work?" {
		c.t.Fatalf("%s: got %v, want the message to myself", c.user, f)
	}
}

// fetch fetches and returns what came before the end, and how many are left.
func (c *client) fetch(count int) ([]*frame, int) {
	c.t.Helper()
	c.send(`{"type":"FETCH_MISSING_MESSAGES_REQUEST","data":{"count":%d}}`, count)
	return c.fetched()
}

// fetched collects frames up to the end of a fetch.
func (c *client) fetched() ([]*frame, int) {
	c.t.Helper()
	var got []*frame
	for {
		f := c.next()
		if f.Type == "FETCH_MISSING_MESSAGES_COMPLETE" {
			if f.Data.LeftMissingCount == nil {
				c.t.Fatalf("%v without leftMissingCount", f)
			}
			return got, *f.Data.LeftMissingCount
		}
		got = append(got, f)
	}
}

// fetchUntil fetches again and again, until enough is there.
func (c *client) fetchUntil(enough func(got []*frame) bool) []*frame {
	c.t.Helper()
	var got []*frame
	pause := time.NewTicker(20 * time.Millisecond)
	defer pause.Stop()
	for end := time.Now().Add(patience); !enough(got); {
		if time.Now().After(end) {
			c.t.Fatalf("%s: after many fetches there is only %v", c.user, got)
		}
		more, _ := c.fetch(2000)
		got = append(got, more...)
		if len(more) == 0 {
			<-pause.C
		}
	}
	return got
}

// leave closes the connection in an orderly way, when the server has the proof
// that everything was read: without that it would send the last frames again.
func (c *client) leave() {
	c.t.Helper()
	c.mu.Lock()
	asked := c.asked
	c.mu.Unlock()
	if asked != nil {
		select {
		case <-asked:
		case <-time.After(patience):
			c.t.Fatalf("%s: the server never asked for proof", c.user)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	// The reader that takes the answer has written all of its own before.
	if err := c.ws.Ping(ctx); err != nil {
		c.t.Fatalf("%s: ping: %v", c.user, err)
	}
	if err := c.ws.Close(websocket.StatusNormalClosure, ""); err != nil {
		c.t.Fatalf("%s: close: %v", c.user, err)
	}
}
