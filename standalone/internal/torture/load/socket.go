package load

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/linkerhq/linker/standalone/internal/torture/history"
)

const (
	loginTime = 10 * time.Second
	writeTime = 15 * time.Second
	leaveTime = 2 * time.Second
	// silence is how long an impatient client waits for a pong.
	silence = 5 * time.Second
	// maxPause is the longest pause before somebody comes back who was not sent away.
	maxPause = time.Second
)

// Features of a login.
const (
	featureAccept = "accept"
	featureAck    = "ack"
	featurePush   = "push"
)

// frame is what a server has sent.
type frame struct {
	Type      string
	Reference *string
	ID        string
	Seq       int64
	Late      bool
	Data      struct {
		From, Content, UserID, ID, Reference string
		Code, Message, Reason                string
		URLs                                 []string
		IsAuthenticated                      bool
		Retryable                            bool
		RetryAfterMs, ReconnectInMs          int64
		LeftMissingCount                     *int64
	}
}

// socket is one raw websocket of a user who has logged in. Its reader is the goroutine
// that calls each; what is not the reader's may be called by any.
type socket struct {
	load    *Load
	user    *user
	ws      *websocket.Conn
	session int64
	byAck   bool
	bare    bool // it speaks the base protocol: hints are nothing that it may get

	got   atomic.Int64 // frames that it may want proof of
	owed  atomic.Int64 // how many there were with the last one that it does want proof of
	asked atomic.Int64 // how many there were when the server asked last
	seen  atomic.Int64 // Seq of the last one
	acked atomic.Int64 // up to which it was acknowledged
}

// errRefused is a login that the system does not want.
var errRefused = errors.New("the login was refused")

// login opens a socket for a user at the connector that is the user's turn.
func (l *Load) login(ctx context.Context, u *user, client string, features []string) (*socket, error) {
	ctx, cancel := context.WithTimeout(ctx, loginTime)
	defer cancel()
	url := u.url()
	s := &socket{load: l, user: u, byAck: client == history.ClientAck, bare: features == nil}
	ws, response, err := websocket.Dial(ctx, url, &websocket.DialOptions{
		OnPingReceived: func(context.Context, []byte) bool { s.asked.Store(s.got.Load()); return true },
	})
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", url, err)
	}
	if response.Body != nil {
		_ = response.Body.Close()
	}
	ws.SetReadLimit(-1)
	s.ws = ws
	asked := l.cfg.History.Now()
	err = s.authenticate(ctx, features)
	if err != nil {
		_ = ws.CloseNow()
		return nil, err
	}
	s.session = l.sessions.Add(1)
	l.ledger.count(u.id, 1)
	l.write(history.Op{Kind: history.KindOpen, User: u.id, Session: s.session, Client: client, Features: features, URL: url, Asked: asked})
	return s, nil
}

// authenticate logs in. Before the reply nothing but it comes.
func (s *socket) authenticate(ctx context.Context, features []string) error {
	request := struct {
		Type string `json:"type"`
		Data any    `json:"data"`
	}{"AUTH_CLIENT", struct {
		AppID    string   `json:"appId"`
		UserID   string   `json:"userId"`
		Token    string   `json:"token"`
		Features []string `json:"features,omitzero"` // an empty list is one
	}{s.user.app.ID, s.user.id, "", features}}
	if err := s.ws.Write(ctx, websocket.MessageText, encode(request)); err != nil {
		return fmt.Errorf("write the login: %w", err)
	}
	f, err := s.read(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("read the reply to the login: %w", err)
	case f.Type == "GO_AWAY":
		return fmt.Errorf("log in: %w: the server is going", errRefused)
	case f.Type != "AUTH_CLIENT_REPLY":
		s.strange(f)
		return fmt.Errorf("log in: got %s, expected the reply", f.Type)
	case f.Data.IsAuthenticated:
		return nil
	case f.Data.Reason == "WRONG_DOMAIN":
		s.user.move(f.Data.URLs)
	case f.Data.Reason != "AUTH_UNAVAILABLE":
		s.load.write(history.Op{Kind: history.KindStrange, User: s.user.id, Note: "the login was refused: " + f.Data.Reason})
	}
	return fmt.Errorf("log in: %w: %s", errRefused, f.Data.Reason)
}

// encode writes a frame as a client does that escapes nothing without need.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(fmt.Sprintf("a frame of our own cannot be encoded: %v", err)) // strings and numbers only
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

func (s *socket) read(ctx context.Context) (*frame, error) {
	_, b, err := s.ws.Read(ctx)
	if err != nil {
		return nil, err
	}
	f := &frame{}
	if err := json.Unmarshal(b, f); err != nil {
		s.load.write(history.Op{Kind: history.KindStrange, User: s.user.id, Session: s.session, Note: "not a frame: " + shortened(err.Error())})
		return nil, fmt.Errorf("read a frame: %w", err)
	}
	return f, nil
}

// each reads until the socket ends, and returns why. What take is given has been
// written down before the server can know that it was read: the answer to the ping
// behind it is written by the next read.
func (s *socket) each(ctx context.Context, take func(*frame) error) error {
	for {
		f, err := s.read(ctx)
		if err == nil {
			s.record(f)
			err = take(f)
		}
		if err != nil {
			return err
		}
	}
}

// record writes down what every client may get.
func (s *socket) record(f *frame) {
	switch f.Type {
	case "MESSAGE":
		s.load.delivered(s.user, s.session, f.Data.From, f.Data.Content, history.Op{ID: f.ID, Late: f.Late, Seq: f.Seq})
	case "MESSAGE_CONFIRMATION":
		s.load.confirmed(s.user, s.session, f.Data.Reference, f.ID)
	case "USER_CONNECTED", "USER_DISCONNECTED":
		s.load.presence(s.user, s.session, f.ID, f.Data.UserID, f.Type == "USER_CONNECTED")
	default:
		return
	}
	if got := s.got.Add(1); !s.load.fast[f.Data.From] { // of FAST messages no proof is wanted
		s.owed.Store(got)
	}
	if f.Seq > 0 {
		s.seen.Store(f.Seq)
	}
}

// delivered writes down a message.
func (l *Load) delivered(u *user, session int64, from, content string, op history.Op) {
	p, err := parseContent(content)
	if err != nil {
		l.write(history.Op{Kind: history.KindStrange, User: u.id, Session: session, ID: op.ID, Note: err.Error()})
		return
	}
	op.Kind, op.User, op.Session, op.From, op.N = history.KindDelivered, u.id, session, from, p.n
	op.Sum, op.Damaged, op.Size = p.sum, p.damaged, len(content)
	if p.bound != u.id {
		op.Bound = p.bound
	}
	if p.from != from {
		op.Note = "the content names " + shortened(p.from)
	}
	l.write(op)
	l.ledger.deliver(p.message, u.id, l.fast[p.from])
}

// confirmed writes down a confirmation for a sender.
func (l *Load) confirmed(u *user, session int64, reference, id string) {
	n, _, ok := parseReference(reference)
	if !ok {
		l.write(history.Op{Kind: history.KindStrange, User: u.id, Session: session, ID: id, Note: "a confirmation of " + shortened(reference)})
		return
	}
	l.write(history.Op{Kind: history.KindConfirmed, User: u.id, Session: session, N: n, ID: id})
	l.ledger.confirm(message{u.id, n})
}

// presence writes down what a master has heard.
func (l *Load) presence(master *user, session int64, id, about string, online bool) {
	l.write(history.Op{Kind: history.KindPresence, User: master.id, Session: session, ID: id, About: about, Online: online})
	l.ledger.presence(about, online)
}

// strange writes down a frame that this client should not get.
func (s *socket) strange(f *frame) {
	note := f.Type
	if f.Data.Code != "" {
		note += " " + f.Data.Code + ": " + f.Data.Message
	}
	s.load.write(history.Op{Kind: history.KindStrange, User: s.user.id, Session: s.session, Note: shortened(note)})
}

const maxNote = 300 // bytes

func shortened(text string) string {
	if len(text) > maxNote {
		return text[:maxNote] + "…"
	}
	return text
}

// again marks the reference of a message that is sent although it was accepted.
const again = "+"

// reference is what answers to a message carry.
func reference(n int64, isAgain bool) string {
	if isAgain {
		return strconv.FormatInt(n, 10) + again
	}
	return strconv.FormatInt(n, 10)
}

func parseReference(text string) (n int64, isAgain, ok bool) {
	if len(text) > 0 && text[len(text)-1:] == again {
		text, isAgain = text[:len(text)-1], true
	}
	n, err := strconv.ParseInt(text, 10, 64)
	return n, isAgain, err == nil && n > 0
}

// write sends a frame.
func (s *socket) write(b []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), writeTime)
	defer cancel()
	return s.ws.Write(ctx, websocket.MessageText, b)
}

// acknowledge says that everything was received that has come.
func (s *socket) acknowledge() error {
	got, seq := s.got.Load(), s.seen.Load()
	if seq == 0 || s.acked.Load() >= got {
		return nil
	}
	err := s.write(fmt.Appendf(nil, `{"type":"MESSAGE_ACK","data":{"upTo":%d}}`, seq))
	if err == nil {
		s.acked.Store(got)
	}
	return err
}

func (s *socket) fetch(count int) error {
	return s.write(fmt.Appendf(nil, `{"type":"FETCH_MISSING_MESSAGES_REQUEST","data":{"count":%d}}`, count))
}

// ping asks for a sign of life.
func (s *socket) ping(within time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	return s.ws.Ping(ctx)
}

// leave ends the socket when the system knows what was received, or 2 s have passed.
// Frames may come as long as it goes on; the reader has to run.
func (s *socket) leave() parting {
	defer func() { _ = s.ws.CloseNow() }()
	return parting{orderly: true, proved: s.prove()}
}

// prove makes the system know what was received, if that goes in 2 s, and returns how
// many frames it knows of.
func (s *socket) prove() int64 {
	var proved int64
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for end := time.Now().Add(leaveTime); time.Now().Before(end); <-tick.C {
		known := &s.asked
		if s.byAck {
			known = &s.acked
			if s.acknowledge() != nil {
				return proved
			}
		}
		claim := known.Load()
		if claim <= proved && claim < s.owed.Load() {
			continue // the server has not asked yet
		}
		// The reader that takes the first answer has written all of its own before;
		// the server that answers the second has read that.
		for range 2 {
			if s.ping(leaveTime) != nil {
				return proved
			}
		}
		if proved = claim; proved >= s.owed.Load() {
			return proved
		}
	}
	return proved
}

// parting is how somebody has left a socket.
type parting struct {
	orderly bool  // otherwise the socket has broken
	proved  int64 // how many of the frames the system knows to be received
}

// closed writes down that a socket has ended.
func (s *socket) closed(p parting, err error) {
	if p.proved < s.owed.Load() {
		s.load.unproved.Store(s.load.cfg.History.Now())
	}
	if !p.orderly {
		s.load.broken.Add(1)
	}
	op := history.Op{Kind: history.KindClose, User: s.user.id, Session: s.session, Proved: p.proved, Broken: !p.orderly}
	if code := websocket.CloseStatus(err); code >= 0 {
		op.Code = strconv.Itoa(int(code))
	} else if err != nil {
		op.Note = shortened(err.Error())
	}
	s.load.write(op)
	s.load.ledger.count(s.user.id, -1)
	_ = s.ws.CloseNow()
}

// pause waits before somebody comes back, at most until ctx ends or early is closed.
func pause(ctx context.Context, d time.Duration, early <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-early:
	case <-ctx.Done():
	}
}

// between draws a duration.
func between(random *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(random.Int64N(int64(most-least)+1))
}
