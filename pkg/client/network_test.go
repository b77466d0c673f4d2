package client_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/linkerhq/linker/pkg/client"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for something that must happen.
const patience = 20 * time.Second

// network is a small Linker network in this process: it keeps what was sent until
// a receiver has acknowledged it, and takes a message of the same id once. It
// delivers again whatever was not acknowledged.
type network struct {
	server *httptest.Server

	mu     sync.Mutex
	boxes  map[string][]stored // guarded by mu; by receiver, oldest first
	taken  map[string]string   // guarded by mu; ids that were given, by sender, receivers and the client's id
	lastID int                 // guarded by mu
	socks  map[string][]*sock  // guarded by mu
	chaos  *rand.Rand          // guarded by mu; nil: nothing breaks
}

// stored is a frame that somebody has not acknowledged, without seq.
type stored struct {
	id    string
	frame map[string]any
}

// sock is a client's websocket on the server.
type sock struct {
	n    *network
	ws   *websocket.Conn
	user string

	// Guarded by the network's mutex.
	seq  int
	sent []string // ids by seq, from 1
}

func newNetwork() *network {
	n := &network{boxes: map[string][]stored{}, taken: map[string]string{}, socks: map[string][]*sock{}}
	n.server = httptest.NewServer(n)
	return n
}

func (n *network) url() string { return "ws" + strings.TrimPrefix(n.server.URL, "http") }

func (n *network) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ws, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer ws.CloseNow() //nolint:errcheck // it may be closed
	ws.SetReadLimit(1 << 20)
	s := &sock{n: n, ws: ws}
	for {
		_, b, err := ws.Read(r.Context())
		if err != nil {
			break
		}
		var f map[string]any
		if json.Unmarshal(b, &f) != nil || !s.take(f) {
			break
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.socks[s.user] = slices.DeleteFunc(n.socks[s.user], func(o *sock) bool { return o == s })
}

// breaks says whether something breaks now.
func (n *network) breaks() bool { return n.chaos != nil && n.chaos.IntN(60) == 0 }

func (s *sock) take(f map[string]any) bool {
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	if s.n.breaks() { // before anything is done
		return false
	}
	data, _ := f["data"].(map[string]any)
	switch f["type"] {
	case "AUTH_CLIENT":
		s.user, _ = data["userId"].(string)
		s.write(map[string]any{"type": "AUTH_CLIENT_REPLY", "data": map[string]any{"isAuthenticated": true}})
		s.n.socks[s.user] = append(s.n.socks[s.user], s)
		for _, m := range s.n.boxes[s.user] {
			s.deliver(m)
		}
	case "MESSAGE_ACK":
		upTo := int(data["upTo"].(float64))
		for _, id := range s.sent[:upTo] {
			s.n.boxes[s.user] = slices.DeleteFunc(s.n.boxes[s.user], func(m stored) bool { return m.id == id })
		}
	case "MESSAGE", "GROUP_MESSAGE":
		return s.message(f, data)
	}
	return !s.n.breaks() // after everything is done
}

// message takes a message; false: the connection breaks.
func (s *sock) message(f, data map[string]any) bool {
	n := s.n
	reference, _ := f["reference"].(string)
	if n.breaks() {
		s.write(map[string]any{"type": "DELIVER_FAILED", "reference": reference, "data": map[string]any{
			"code": "QUEUE_UNAVAILABLE", "message": "for now", "retryable": true, "retryAfterMs": 2,
		}})
		return true
	}
	to, group := data["to"].([]any)
	if !group {
		to = []any{data["to"]}
	}
	key := fmt.Sprint(s.user, to, f["id"])
	id, again := n.taken[key]
	if !again || f["feature"] == "FAST" {
		n.lastID++
		id = fmt.Sprintf("id-%d", n.lastID)
		n.taken[key] = id
		m := stored{id, map[string]any{
			"type": "MESSAGE", "id": id, "createdAt": 1795231234567, "reference": reference,
			"data": map[string]any{"from": s.user, "content": data["content"]},
		}}
		for _, user := range to {
			n.send(user.(string), m, f["feature"] == "FAST")
		}
		if f["confirmationEnabled"] != false && !group {
			n.lastID++
			n.send(s.user, stored{fmt.Sprintf("id-%d", n.lastID), map[string]any{
				"type": "MESSAGE_CONFIRMATION", "id": fmt.Sprintf("id-%d", n.lastID), "data": map[string]any{"reference": reference},
			}}, false)
		}
	}
	if n.breaks() { // before it is answered
		return false
	}
	if f["feature"] != "FAST" {
		s.write(map[string]any{"type": "MESSAGE_ACCEPTED", "data": map[string]any{"reference": reference, "id": id}})
	}
	return true
}

func (n *network) send(user string, m stored, fast bool) {
	if !fast {
		n.boxes[user] = append(n.boxes[user], m)
	}
	for _, s := range n.socks[user] {
		s.deliver(m)
		if n.breaks() {
			s.deliver(m)
		}
	}
}

func (s *sock) deliver(m stored) {
	s.seq++
	s.sent = append(s.sent, m.id)
	f := map[string]any{"seq": s.seq}
	maps.Copy(f, m.frame)
	s.write(f)
}

func (s *sock) write(f map[string]any) {
	b, err := json.Marshal(f)
	if err != nil {
		panic(err) // maps of strings and numbers
	}
	_ = s.ws.Write(context.Background(), websocket.MessageText, b) // the client may have gone
}

// config is that of a user with short pauses.
func config(url, user string) client.Config {
	return client.Config{URLs: []string{url}, AppID: "app-id-343", UserID: user, MinPause: time.Millisecond, MaxPause: 10 * time.Millisecond}
}

// connect logs in a client that is closed when the test ends.
func connect(t *testing.T, cfg client.Config) *client.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := client.Connect(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// peer is the server's end of a connection that a test plays by hand.
type peer struct {
	t    *testing.T
	ws   *websocket.Conn
	auth frame
	done chan struct{} // closed when the test needs it no more
}

// frame is any frame.
type frame struct {
	Type      string         `json:"type"`
	Reference string         `json:"reference,omitempty"`
	ID        string         `json:"id,omitempty"`
	Feature   string         `json:"feature,omitempty"`
	Seq       uint64         `json:"seq,omitempty"`
	Confirm   *bool          `json:"confirmationEnabled,omitempty"`
	Data      map[string]any `json:"data"`
}

// stage hands the connections that come to the test, one after another.
type stage struct {
	t     *testing.T
	url   string
	peers chan *peer
}

func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{t: t, peers: make(chan *peer, 16)}
	server := httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(server.Close)
	s.url = "ws" + strings.TrimPrefix(server.URL, "http")
	return s
}

func (s *stage) serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/ws" {
		http.NotFound(w, r)
		return
	}
	ws, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer ws.CloseNow() //nolint:errcheck // it may be closed
	ws.SetReadLimit(1 << 20)
	p := &peer{t: s.t, ws: ws, done: make(chan struct{})}
	_, b, err := ws.Read(r.Context())
	if err != nil || json.Unmarshal(b, &p.auth) != nil {
		return
	}
	select {
	case s.peers <- p:
	case <-s.t.Context().Done():
		return
	}
	select {
	case <-p.done:
	case <-s.t.Context().Done():
	}
}

// next returns the next connection, which has asked to log in.
func (s *stage) next() *peer {
	s.t.Helper()
	select {
	case p := <-s.peers:
		return p
	case <-time.After(patience):
		s.t.Fatal("nobody connects")
		return nil
	}
}

// meet connects a client, and returns both ends. The client is closed when the
// test ends.
func (s *stage) meet(cfg client.Config) (*client.Client, *peer) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	var c *client.Client
	var err error
	connected := make(chan struct{})
	go func() {
		defer close(connected)
		c, err = client.Connect(ctx, cfg)
	}()
	p := s.admit()
	<-connected
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close() })
	return c, p
}

// admit is next, logged in.
func (s *stage) admit() *peer {
	s.t.Helper()
	p := s.next()
	p.admit()
	return p
}

func (p *peer) admit() {
	p.t.Helper()
	p.write(frame{Type: "AUTH_CLIENT_REPLY", Data: map[string]any{"isAuthenticated": true}})
}

func (p *peer) write(f frame) {
	p.t.Helper()
	b, err := json.Marshal(f)
	if err == nil {
		err = p.ws.Write(p.t.Context(), websocket.MessageText, b)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// read returns the next frame of the client.
func (p *peer) read() frame {
	p.t.Helper()
	f, err := p.tryRead()
	if err != nil {
		p.t.Fatal(err)
	}
	return f
}

func (p *peer) tryRead() (frame, error) {
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	var f frame
	_, b, err := p.ws.Read(ctx)
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	return f, err
}

// expect returns the next frame, which must be of this type.
func (p *peer) expect(kind string) frame {
	p.t.Helper()
	f := p.read()
	if f.Type != kind {
		p.t.Fatalf("got %+v, want %s", f, kind)
	}
	return f
}

// message returns the next frame, which must be a message of this content.
func (p *peer) message(content string) frame {
	p.t.Helper()
	f := p.expect("MESSAGE")
	if f.Data["content"] != content {
		p.t.Fatalf("got %+v, want %q", f, content)
	}
	return f
}

func (p *peer) accept(f frame) {
	p.t.Helper()
	p.write(frame{Type: "MESSAGE_ACCEPTED", Data: map[string]any{"reference": f.Reference, "id": "of-" + f.ID}})
}

func (p *peer) fail(f frame, code string, retryable bool) {
	p.t.Helper()
	p.write(frame{Type: "DELIVER_FAILED", Reference: f.Reference, Data: map[string]any{"code": code, "message": "no", "retryable": retryable, "retryAfterMs": 1}})
}

func (p *peer) deliver(seq uint64, id, content string) {
	p.t.Helper()
	p.write(frame{Type: "MESSAGE", ID: id, Seq: seq, Data: map[string]any{"from": "ANZ-2", "content": content}})
}

// acked expects that everything up to seq is acknowledged.
func (p *peer) acked(seq int) {
	p.t.Helper()
	f := p.expect("MESSAGE_ACK")
	for int(f.Data["upTo"].(float64)) < seq {
		f = p.expect("MESSAGE_ACK")
	}
	if int(f.Data["upTo"].(float64)) != seq {
		p.t.Fatalf("got %+v, want an acknowledgement up to %d", f, seq)
	}
}

// cut ends the connection without a word.
func (p *peer) cut() {
	_ = p.ws.CloseNow()
	close(p.done)
}

// close ends it with a code.
func (p *peer) close(code websocket.StatusCode) {
	_ = p.ws.Close(code, "") // the client answers or has gone
	close(p.done)
}
