package client

import (
	"container/list"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/linkerhq/linker/pkg/ident"
)

const (
	// ownReference begins the references that this package makes. Receivers that
	// use this package do not see them.
	ownReference = "~"

	maxReference = 128 // characters
	maxID        = 64  // characters
	maxMembers   = 4096

	// maxFasts bounds the FAST messages that wait for the writer; Send waits
	// beyond it.
	maxFasts = 64
	// maxUnproved bounds the messages whose confirmation is waited for; beyond it
	// the oldest get ErrForgotten.
	maxUnproved = 65536
	// maxRetryAfter is the longest pause that a server can ask for.
	maxRetryAfter = 5 * time.Minute
	// closeGrace is how long CloseUser waits for a refusal: one comes at once or
	// never.
	closeGrace = time.Second

	featureFast     = "FAST"
	codeRateLimited = "RATE_LIMITED"
)

// SendOption changes how a message is sent.
type SendOption func(*sending)

// sending is what the options say.
type sending struct {
	fast, confirm bool
	named         bool // reference is the caller's
	reference     string
	hasID         bool
	id            string
}

// Fast sends through memory only: the message is dropped if the receiver is not
// there. Send returns when it is written.
func Fast() SendOption { return func(s *sending) { s.fast = true } }

// Reference gives the message a reference, which its receiver sees: at most 128
// characters, not beginning with ~. Of the messages with the same reference one is
// sent at a time. A reference should be used once: of two messages that have the
// same, the server does not say which one it means.
func Reference(reference string) SendOption {
	return func(s *sending) { s.reference, s.named = reference, true }
}

// Confirm asks for a confirmation when the receiver has the message, for
// Sent.Confirmed and Config.Confirmed. Groups have none.
func Confirm() SendOption { return func(s *sending) { s.confirm = true } }

// ID names the message: sent again to the same receiver under the same id, even
// by another process, it is delivered once if that happens within ten minutes. 1
// to 64 characters; by default it is random. FAST messages have none.
func ID(id string) SendOption {
	return func(s *sending) { s.id, s.hasID = id, true }
}

// Sent is a message that is on its way.
type Sent struct {
	// ID is the one that the receiver sees; empty for a FAST message.
	ID string
	// Reference is the caller's, or one that was made for the message.
	// Confirmations and failures name it.
	Reference string

	// Static after construction, but for forgotten.
	client    *Client
	wants     bool
	proved    chan struct{} // closed when it is confirmed, or forgotten
	forgotten atomic.Bool
}

// Confirmed waits until the receiver has the message. It is for messages that
// were sent with Confirm. What ends it, too, is the end of ctx or of the client;
// the confirmation then comes after the next login, to Config.Confirmed.
func (s *Sent) Confirmed(ctx context.Context) error {
	if !s.wants {
		return fmt.Errorf("confirmation: %w: the message was sent without Confirm", ErrInvalid)
	}
	select {
	case <-s.proved:
	case <-ctx.Done():
		return fmt.Errorf("confirmation: %w", context.Cause(ctx))
	case <-s.client.final:
		return fmt.Errorf("confirmation: %w", s.client.Err())
	}
	if s.forgotten.Load() {
		return fmt.Errorf("confirmation: %w", ErrForgotten)
	}
	return nil
}

// confirmations are the messages that wait for one, oldest first. The client's
// mutex guards it.
type confirmations struct {
	order *list.List // of *Sent
	byRef map[string][]*list.Element
}

func newConfirmations() confirmations {
	return confirmations{order: list.New(), byRef: map[string][]*list.Element{}}
}

func (w *confirmations) add(s *Sent) {
	if w.order.Len() >= maxUnproved {
		oldest := w.order.Front().Value.(*Sent)
		oldest.forgotten.Store(true)
		w.remove(oldest)
		close(oldest.proved)
	}
	w.byRef[s.Reference] = append(w.byRef[s.Reference], w.order.PushBack(s))
}

func (w *confirmations) remove(s *Sent) {
	same := w.byRef[s.Reference]
	i := slices.IndexFunc(same, func(e *list.Element) bool { return e.Value == s })
	if i < 0 {
		return
	}
	w.order.Remove(same[i])
	if same = slices.Delete(same, i, i+1); len(same) == 0 {
		delete(w.byRef, s.Reference)
		return
	}
	w.byRef[s.Reference] = same
}

func (w *confirmations) confirmed(reference string) {
	same := w.byRef[reference]
	if len(same) == 0 {
		return
	}
	s := same[0].Value.(*Sent)
	w.remove(s)
	close(s.proved)
}

// Send sends a message to a user, and returns when the network has accepted it:
// then it will be delivered, whatever happens. It waits for a connection, and
// sends again what was not answered or could not be taken for the moment, so that
// only ctx bounds it. Messages to one receiver are sent in the order of the calls.
//
// A *SendError says that the server does not send it. If ctx ends before, the
// message is withdrawn; where that is not possible the error is ErrUnknown, and
// the message, which may be on its way, is still sent again until it is answered,
// so that later ones do not overtake it. With an outbox it is ErrPending: the
// message stays and will be sent.
func (c *Client) Send(ctx context.Context, to, content string, opts ...SendOption) (*Sent, error) {
	s, err := c.send(ctx, &Pending{To: []string{to}, Content: content}, opts)
	if err != nil {
		return nil, fmt.Errorf("send to %.80s: %w", to, err)
	}
	return s, nil
}

// SendGroup sends a message to up to 4096 users like Send; each gets it as a
// message of its own. Users who are named twice get it once.
func (c *Client) SendGroup(ctx context.Context, to []string, content string, opts ...SendOption) (*Sent, error) {
	members := slices.Clone(to)
	slices.Sort(members)
	s, err := c.send(ctx, &Pending{To: slices.Compact(members), Group: true, Content: content}, opts)
	if err != nil {
		return nil, fmt.Errorf("send to a group of %d: %w", len(members), err)
	}
	return s, nil
}

func (c *Client) send(ctx context.Context, m *Pending, opts []SendOption) (*Sent, error) {
	var o sending
	for _, opt := range opts {
		opt(&o)
	}
	if err := o.check(m); err != nil {
		return nil, err
	}
	m.From = c.cfg.UserID
	m.Confirm = o.confirm
	m.Reference = o.reference
	if !o.fast {
		m.ID = o.id
		if !o.hasID {
			m.ID = rand.Text()
		}
	}
	it := newItem(m, c, o.fast)
	if n := len(it.frame); n > c.cfg.MaxFrame {
		return nil, fmt.Errorf("%w: %d bytes, expected at most %d", ErrTooLarge, n, c.cfg.MaxFrame)
	}
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	if o.fast {
		return c.sendFast(ctx, it)
	}
	return c.sendReliable(ctx, m, it)
}

// newItem makes the frame of a message.
func newItem(m *Pending, c *Client, fast bool) *item {
	it := &item{reference: m.Reference, named: m.Reference != "", id: m.ID, done: make(chan struct{}), lines: m.To}
	if it.named {
		it.lines = append(slices.Clone(m.To), "reference:"+m.Reference)
	} else {
		it.reference = ownReference + rand.Text()
	}
	feature := ""
	if fast {
		feature = featureFast
	}
	it.frame = encodeMessage(m, it.reference, feature)
	it.wanted = &Sent{Reference: it.reference, client: c, wants: m.Confirm, proved: make(chan struct{})}
	return it
}

// check finds what the server would refuse: too many such frames would end the
// connection.
func (o *sending) check(m *Pending) error {
	invalid := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...)
	}
	if n := len(m.To); n == 0 || n > maxMembers {
		return invalid("to: %d users, expected 1 to %d", n, maxMembers)
	}
	for _, to := range m.To {
		if _, err := ident.ParseUserID(to); err != nil {
			return invalid("to: %w", err)
		}
	}
	switch {
	case !utf8.ValidString(m.Content):
		return invalid("content: not UTF-8")
	case o.named && !isText(o.reference, maxReference):
		return invalid("reference: %.140q, expected 1 to %d characters of UTF-8 without U+0000", o.reference, maxReference)
	case strings.HasPrefix(o.reference, ownReference):
		return invalid("reference: %.140q, expected one that does not begin with %s", o.reference, ownReference)
	case o.named && o.confirm && strings.TrimSpace(o.reference) == "":
		return invalid("reference: blank, expected one that is not, since a confirmation is wanted")
	case o.hasID && !isText(o.id, maxID):
		return invalid("id: %.80q, expected 1 to %d characters of UTF-8 without U+0000", o.id, maxID)
	case o.hasID && o.fast:
		return invalid("id: FAST messages have none")
	case o.confirm && m.Group:
		return invalid("confirm: groups have no confirmation")
	}
	return nil
}

func isText(s string, most int) bool {
	return s != "" && utf8.ValidString(s) && utf8.RuneCountInString(s) <= most && !strings.ContainsRune(s, 0)
}

// fastItem is a FAST message that waits for the writer.
type fastItem struct {
	frame []byte
	taken bool          // by the writer; guarded by the client's mutex
	done  chan struct{} // closed when it is over; then err can be read
	err   error
}

// sendFast hands a message to the writer and waits until it is written.
func (c *Client) sendFast(ctx context.Context, it *item) (*Sent, error) {
	select {
	case c.fasts <- struct{}{}:
		defer func() { <-c.fasts }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	f := &fastItem{frame: it.frame, done: make(chan struct{})}
	c.mu.Lock()
	switch {
	case c.err != nil:
		defer c.mu.Unlock()
		return nil, c.err
	case c.conn == nil:
		c.mu.Unlock()
		return nil, ErrNotConnected
	}
	if it.wanted.wants {
		c.unproved.add(it.wanted)
	}
	c.fast = append(c.fast, f)
	signal(c.conn.wake)
	c.mu.Unlock()

	select {
	case <-f.done:
	case <-ctx.Done():
		c.mu.Lock()
		if !f.taken {
			c.fast = slices.DeleteFunc(c.fast, func(other *fastItem) bool { return other == f })
			f.err = context.Cause(ctx)
			close(f.done)
		}
		c.mu.Unlock()
		<-f.done // the writer has its own time limit
	}
	if f.err != nil {
		c.mu.Lock()
		c.unproved.remove(it.wanted)
		c.mu.Unlock()
		return nil, f.err
	}
	return it.wanted, nil
}

// sendReliable waits until a message is accepted, or ctx or the client end.
func (c *Client) sendReliable(ctx context.Context, m *Pending, it *item) (*Sent, error) {
	c.mu.Lock()
	switch {
	case c.err != nil:
		defer c.mu.Unlock()
		return nil, c.err
	case c.line.count >= c.cfg.MaxWaiting:
		c.mu.Unlock()
		return nil, fmt.Errorf("%w: %d", ErrFull, c.cfg.MaxWaiting)
	}
	c.lastKey++
	it.key, m.Key = c.lastKey, c.lastKey
	if c.cfg.Outbox == nil {
		c.enterLocked(it)
	}
	c.mu.Unlock()
	if c.cfg.Outbox != nil {
		if err := c.storeAndEnter(m, it); err != nil {
			return nil, err
		}
	}
	select {
	case <-it.done:
	case <-ctx.Done():
		c.abandon(it, context.Cause(ctx))
	}
	if it.err != nil {
		return nil, it.err
	}
	return it.wanted, nil
}

// storeAndEnter makes a message durable before it can be sent.
func (c *Client) storeAndEnter(m *Pending, it *item) error {
	if err := c.cfg.Outbox.Add(*m); err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	it.stored = true
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return fmt.Errorf("%w: %w", ErrPending, c.err)
	}
	c.enterLocked(it)
	return nil
}

func (c *Client) enterLocked(it *item) {
	if it.wanted.wants {
		c.unproved.add(it.wanted)
	}
	c.line.add(it)
	if c.conn != nil {
		signal(c.conn.wake)
	}
}

// abandon ends the wait for an item; afterwards its done is closed.
func (c *Client) abandon(it *item, cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-it.done: // it was answered in the same moment
		return
	default:
	}
	it.abandoned = true
	it.err = outcome(it, cause)
	if !it.written && !it.stored {
		c.line.remove(it)
		c.unproved.remove(it.wanted)
	}
	close(it.done)
	if c.conn != nil {
		signal(c.conn.wake) // others may have moved up
	}
}

// outcome says what is known of an item that nobody waits for any more.
func outcome(it *item, cause error) error {
	switch {
	case it.stored:
		return fmt.Errorf("%w: %w", ErrPending, cause)
	case it.written:
		return fmt.Errorf("%w: %w", ErrUnknown, cause)
	default:
		return cause
	}
}

// accepted takes a MESSAGE_ACCEPTED. Only the reader calls it.
func (c *Client) accepted(f *incoming) {
	c.mu.Lock()
	it := c.line.answered(f.Data.Reference)
	c.mu.Unlock()
	if it == nil {
		return
	}
	c.forget(it)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.Accepted++
	c.line.accepted()
	c.settleLocked(it, f.Data.ID, nil)
}

// refused takes a DELIVER_FAILED or an INVALID_MESSAGE. Only the reader calls it.
func (c *Client) refused(f *incoming) {
	problem := f.refusal()
	now := time.Now()
	c.mu.Lock()
	if waiting := c.closing[f.Reference]; waiting != nil {
		delete(c.closing, f.Reference)
		waiting <- problem // capacity 1, and sent once
		c.mu.Unlock()
		return
	}
	it := c.line.answered(f.Reference)
	if it != nil && it.named && isLate(problem.Code) {
		it = nil // an earlier message of the same reference; this one will be answered
	}
	switch {
	case it == nil:
		c.failedLocked(Failure{Reference: f.Reference, Code: problem.Code, Message: problem.Message, Retryable: problem.Retryable})
		c.mu.Unlock()
		return
	case problem.Retryable:
		it.refusals++
		pause := problem.RetryAfter
		if problem.Code == codeRateLimited && pause > 0 {
			c.line.limited(now.Add(pause)) // it is meant for us alone, and exact
		} else {
			pause += jitter(c.cfg.MinPause, max(pause, c.cfg.MaxPause), it.refusals-1)
		}
		c.line.postpone(it, now.Add(pause))
		if c.conn != nil {
			signal(c.conn.wake)
		}
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	c.forget(it)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.Refused++
	c.unproved.remove(it.wanted)
	if it.abandoned {
		c.failedLocked(Failure{Reference: f.Reference, Code: problem.Code, Message: problem.Message})
	}
	c.settleLocked(it, "", problem)
}

// isLate says whether a failure of this code comes only after the message was
// accepted.
func isLate(code string) bool {
	switch code {
	case "MAILBOX_FULL", "EXPIRED", "HOPS_EXHAUSTED":
		return true
	default:
		return false
	}
}

// forget removes an item from the outbox. If that fails, or the machine stops
// before it is on disk, the message is sent again after a restart, under the same
// id.
func (c *Client) forget(it *item) {
	if !it.stored {
		return
	}
	if err := c.cfg.Outbox.Remove(it.key); err != nil {
		c.log.Warn("a message could not be removed from the outbox", "error", err)
	}
}

// settleLocked ends an item that is answered.
func (c *Client) settleLocked(it *item, id string, problem *SendError) {
	c.line.remove(it)
	if c.conn != nil {
		signal(c.conn.wake)
	}
	if it.abandoned {
		return
	}
	it.wanted.ID = id
	if problem != nil {
		it.err = problem
	}
	close(it.done)
}

// endLineLocked ends everything that waits to be sent.
func (c *Client) endLineLocked(cause error) {
	for _, it := range c.line.items() {
		c.line.remove(it)
		if it.abandoned {
			continue
		}
		it.err = outcome(it, cause)
		close(it.done)
	}
	c.endFastLocked(cause)
}

// endFastLocked ends the FAST messages that the writer has not taken.
func (c *Client) endFastLocked(cause error) {
	for _, f := range c.fast {
		f.err = cause
		close(f.done)
	}
	c.fast = nil
}

// loadOutbox takes over what an earlier run has left.
func (c *Client) loadOutbox() error {
	if c.cfg.Outbox == nil {
		return nil
	}
	left, err := c.cfg.Outbox.Pending()
	if err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range left {
		m := &left[i]
		switch {
		case len(m.To) == 0:
			return fmt.Errorf("outbox: message %d has no receiver", m.Key)
		case m.From != c.cfg.UserID:
			return fmt.Errorf("outbox: message %d is of %.80q, expected %q: each user has an outbox of its own", m.Key, m.From, c.cfg.UserID)
		}
		it := newItem(m, c, false)
		if n := len(it.frame); n > c.cfg.MaxFrame {
			return fmt.Errorf("outbox: message %d: %w: %d bytes, expected at most %d", m.Key, ErrTooLarge, n, c.cfg.MaxFrame)
		}
		it.key, it.stored, it.abandoned = m.Key, true, true
		c.lastKey = max(c.lastKey, m.Key)
		close(it.done)
		c.line.add(it)
	}
	return nil
}

// CloseUser closes all connections of a user. Only the master user of the user's
// app may. It returns when the request is written and no refusal has come within
// a second; one that comes later goes to Config.Failed. A *SendError says that the
// user is not connected (NOT_CONNECTED) or that the caller may not (FORBIDDEN).
func (c *Client) CloseUser(ctx context.Context, userID string) error {
	if err := c.closeUser(ctx, userID); err != nil {
		return fmt.Errorf("close the connections of %.80s: %w", userID, err)
	}
	return nil
}

func (c *Client) closeUser(ctx context.Context, userID string) error {
	if _, err := ident.ParseUserID(userID); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	reference := ownReference + rand.Text()
	refusal := make(chan *SendError, 1)
	c.mu.Lock()
	c.closing[reference] = refusal
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.closing, reference)
		c.mu.Unlock()
	}()
	frame := encode(outgoing{Type: typeClose, Data: userData{UserID: userID}, Reference: reference})
	if _, err := c.sendFast(ctx, &item{frame: frame, wanted: new(Sent)}); err != nil {
		return err
	}
	grace := time.NewTimer(closeGrace)
	defer grace.Stop()
	select {
	case problem := <-refusal:
		return problem
	case <-grace.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", errors.New("the request is written, and not known to have succeeded"), context.Cause(ctx))
	}
}
