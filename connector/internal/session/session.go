// Package session is one websocket of a client: its life from the upgrade to
// the last byte, what it may send, what it is sent, and the proof of receipt.
//
// A session has one goroutine while it lives: the reader, in Run. Whoever has
// something for the client puts it into the outbox under the mutex and writes it
// with Flush, one at a time; only for a client that takes nothing another goroutine
// waits.
package session

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/linkerhq/linker/connector/internal/frames"
	"github.com/linkerhq/linker/pkg/delivery"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/wire"
)

// Door decides who comes in.
type Door interface {
	// Login answers the first AUTH_CLIENT of a socket, in a goroutine of its own;
	// problem is what is wrong with the frame, if anything. ctx ends with the
	// socket.
	Login(ctx context.Context, s *Session, f wire.Frame, problem *wire.Problem)
}

// Sender takes what one logged-in client sends.
type Sender interface {
	// Submit is called by the session's reader and does not block. The frame is valid
	// for the call only, and may be changed.
	Submit(f *wire.Frame)
	// FetchDone says that the end of a fetch was written. It does not block.
	FetchDone(request uint64)
	// OwnerChanged says that another processor has taken the user's lane and
	// delivers. It does not block.
	OwnerChanged()
	// Leave says that the session has ended, once, after everything else.
	Leave()
}

// Proofs hears of proofs of receipt, without any lock held. It does not block.
type Proofs interface {
	// Proved says that Progress has moved on, and which FAST deliveries are
	// proved by their tokens. urgent: something waits for it.
	Proved(s *Session, tokens []uint64, urgent bool)
}

// Env is what all sessions of a connector share. Every field is needed.
type Env struct {
	Log        *slog.Logger
	Metrics    *Metrics
	Buffers    *Buffers
	Door       Door
	Proofs     Proofs
	FrameLimit int // bytes of one message of a client
}

// Identity is who a session is, from its login on.
type Identity struct {
	ID       uint64 // random, never 0
	User     ident.UserID
	Lane     int
	Features envelope.Features
	Sender   Sender
}

// Answer is the place of a session in the next answers to its lane. It belongs
// to package downlink, which guards it.
type Answer struct {
	Queued bool // among the sessions to be answered for
	Gap    bool // a delivery was refused since the last answer
}

type state uint8

const (
	pending state = iota
	authenticating
	registered // its lane may know it; what is delivered waits for the reply
	live
	ended
)

// Session is one websocket. Its methods may be called by any goroutine.
type Session struct {
	// Static after construction.
	env     *Env
	socket  *socket
	gone    chan struct{} // closed by the end
	written chan struct{} // closed when nothing more is written

	// Static after Register.
	identity Identity

	// Answer belongs to package downlink, and so does Unwritten, whether the session has
	// something in its outbox for which Flush was not called yet: that is for the goroutine
	// of the lane's subscription only.
	Answer    Answer
	Unwritten bool

	tasks sync.WaitGroup // the login under way, and a write that waits for the peer

	// Owned by the reader.
	ctx       context.Context // of Run
	frames    frames.Reader
	reading   reading
	badFrames rate
	pingsIn   rate
	restUntil time.Time // until then nothing more is read

	// Owned by whoever calls Tick.
	watch watch

	mu        sync.Mutex // guards what follows
	state     state
	writing   bool          // somebody writes
	again     bool          // there is something new since that one has looked
	dismissed bool          // the master has closed the session
	reminded  bool          // alarm is set
	alarm     *time.Timer   // flushes when a ping is due; nil: none ever was
	resume    chan struct{} // capacity 1, never closed: the reader may go on; nil: it never had to wait
	known     chan struct{} // closed when the lane knows the session; nil before Register
	wasLive   bool
	parting   []byte    // the close frame that ends the session; nil: none
	endedAt   int64     // bytes received by then
	settleBy  time.Time // until then the close frame waits for what is under way; zero: it waits for nothing
	parted    bool      // the close frame was written, behind everything else
	cause     Cause
	patience  time.Duration     // added to the login timeout: the time in our own queue
	heldSince time.Time         // the login waits in our own queue; zero: it does not
	login     envelope.Position // of the login record; zero until the log has acknowledged it
	last      envelope.Position // the highest of the records taken that no fetch has brought
	before    uint64            // deliveries from before the login, which only fetches bring
	pong      []byte            // the answer to the latest ping
	replies   [][]byte
	waiting   int // bytes of replies
	numbered  []outgoing
	fast      []outgoing
	fastBytes int // bytes of fast
	ledger    ledger
	proof     proof
	flow      flow
	cancel    context.CancelFunc // of the login under way; nil before
}

func newSession(env *Env, socket *socket) *Session {
	return &Session{
		env: env, socket: socket, frames: frames.NewReader(env.FrameLimit),
		gone: make(chan struct{}), written: make(chan struct{}),
	}
}

// ID returns the session's id, 0 before it is registered.
func (s *Session) ID() uint64 { return s.Identity().ID }

// Identity returns who the session is; the zero Identity before it is registered.
func (s *Session) Identity() Identity {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.identity
}

// Gone is closed when the session has ended.
func (s *Session) Gone() <-chan struct{} { return s.gone }

// Known is closed when the lane has said that it knows the session, which is
// registered.
func (s *Session) Known() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known
}

// Live says whether the session is logged in and has not ended.
func (s *Session) Live() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state == live
}

// Registered says whether the session got as far as Register, ended or not.
func (s *Session) Registered() bool { return s.Identity().ID != 0 }

// HoldLogin stops the clock of the login timeout while the login waits in a
// queue of ours, and lets it go on.
func (s *Session) HoldLogin(hold bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case hold:
		s.heldSince = time.Now()
	case !s.heldSince.IsZero():
		s.patience += time.Since(s.heldSince)
		s.heldSince = time.Time{}
	}
}

// Register says who the session is: from now on it takes deliveries, which wait
// for Admit. It reports false for a session that has ended.
func (s *Session) Register(identity Identity) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == ended {
		return false
	}
	s.state = registered
	s.identity = identity
	s.known = make(chan struct{})
	s.proof.byAck = identity.Features.Has(envelope.FeatureAck)
	return true
}

// LoginAt notes the position of the session's login record in its lane.
func (s *Session) LoginAt(login envelope.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.login = login
}

// LoggedIn notes that the lane knows the session, and the position of its login,
// which the log may tell later than the lane does.
func (s *Session) LoggedIn(login envelope.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.login = login
	if s.known == nil {
		return
	}
	select {
	case <-s.known:
	default:
		close(s.known)
	}
}

// Admit writes the reply to the login and lets everything else go after it.
func (s *Session) Admit(reply []byte) {
	s.mu.Lock()
	if s.state == registered {
		s.state = live
		s.wasLive = true
		s.replyLocked(reply)
	}
	s.mu.Unlock()
	s.Flush()
}

// Reply queues a frame that is not numbered. The session owns it from now on.
// After the end it is dropped, unless the close frame waits for it.
func (s *Session) Reply(frame []byte) {
	s.mu.Lock()
	s.answerLocked(frame)
	s.mu.Unlock()
	s.Flush()
}

func (s *Session) answerLocked(frame []byte) {
	if s.state != ended || s.orderlyLocked() && !s.parted {
		s.replyLocked(frame)
	}
}

func (s *Session) replyLocked(frame []byte) {
	s.replies = append(s.replies, frame)
	s.waiting += len(frame)
}

// Deliver takes one item for this session into the outbox; Flush writes it. advanced
// says that Progress moved. It calls nobody, so the caller may hold locks.
func (s *Session) Deliver(it *delivery.Item, to delivery.Target) (verdict Verdict, advanced bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.identity.ID != to.Session || s.identity.User != to.User:
		return Gone, false
	case s.state == ended && s.orderlyLocked() && len(s.ledger.open) > 0:
		return Parting, false
	case s.state == ended:
		return Gone, false // what it had is proved: another session may get the next
	case it.Kind != delivery.KindClose && len(it.Frame) == 0 && (it.Kind == delivery.KindFast || to.D > s.ledger.taken):
		return Gap, false // it asks about what was sent before, and that has not come
	case it.Kind == delivery.KindFast:
		s.pushFastLocked(it)
		return Taken, false
	}
	proved := s.ledger.proved
	verdict = s.ledger.take(to.D, it.ID, it.Pos)
	if verdict == Taken || verdict == Duplicate {
		s.acceptLocked(it, to.D, verdict)
	}
	return verdict, s.ledger.proved != proved
}

// Progress is how far the session's deliveries are.
func (s *Session) Progress() delivery.Progress {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.progressLocked()
}

func (s *Session) progressLocked() delivery.Progress {
	return delivery.Progress{Session: s.identity.ID, Taken: s.ledger.taken, Proved: s.ledger.proved}
}

// State is the session as a new owner of its lane has to know it.
func (s *Session) State() delivery.SessionState {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := delivery.SessionState{
		Progress: s.progressLocked(),
		User:     s.identity.User,
		Features: s.identity.Features,
		Last:     s.last,
		Unproved: s.ledger.unproved(),
	}
	if !state.Features.Has(envelope.FeaturePush) {
		state.L = s.login
	}
	return state
}

// FetchedFrames counts the deliveries so far that only a fetch brings: those of
// records from before the login.
func (s *Session) FetchedFrames() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.before
}

// signal wakes whoever waits; a signal that waits already is enough.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// rate counts events in windows of a fixed length.
type rate struct {
	began time.Time
	count int
}

// add counts one event and returns how many the window has.
func (r *rate) add(now time.Time, window time.Duration) int {
	if now.Sub(r.began) >= window {
		r.began, r.count = now, 0
	}
	r.count++
	return r.count
}

// leaveLocked drops what could not be written, and counts it.
func (s *Session) leaveLocked() {
	s.env.Metrics.unsent.Add(float64(len(s.numbered) + len(s.fast)))
	s.numbered, s.fast, s.replies, s.waiting = nil, nil, nil, 0
}
