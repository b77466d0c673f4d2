package load

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/linkerhq/linker/standalone/internal/torture/history"
)

const (
	// maxUnderWay and maxBytes bound what a sender has without an answer; then it
	// sends nothing new. The server stops reading at twice of it.
	maxUnderWay = 32
	maxBytes    = 512 << 10
	maxEchoes   = 64 // that wait; what is more is left out
	echoLeast   = 100 * time.Millisecond
	echoMost    = 30 * time.Second
	retryLeast  = 100 * time.Millisecond // after a refusal without a hint
	answerTime  = 6 * time.Second        // without any answer; then a sender tries another connector
	nameless    = 0.33                   // share of messages without an id of the client: they cannot be sent again
	smallSize   = 400
	middleSize  = 4 << 10
)

// manner is how a sender sends.
type manner struct {
	pace    time.Duration // between two messages
	careful bool          // never two messages under way to one receiver: nothing can overtake
	ack     bool          // acknowledges what it gets
}

// draft is a message on its way to be accepted.
type draft struct {
	message
	to       []string
	frame    []byte // as it is sent
	op       history.Op
	named    bool // it can be sent again
	echo     bool // it was accepted before
	attempts int
	underWay bool
	sentAt   time.Time // at last
	due      time.Time // not to be sent before
	born     time.Time
}

// sender sends over one raw socket after another.
type sender struct {
	load   *Load
	user   *user
	manner manner
	choose *chooser      // guarded by mu
	random *rand.Rand    // owned by run and its pump
	wake   chan struct{} // capacity 1, never closed; what does not fit was said before

	mu      sync.Mutex
	last    int64    // guarded by mu; the number given last
	waiting []*draft // guarded by mu; without an answer, in order; at most maxUnderWay
	bytes   int      // guarded by mu; of their frames
	echoes  []*draft // guarded by mu; sent again when they are due; at most maxEchoes
}

func newSender(l *Load, u *user, c *chooser, m manner) *sender {
	return &sender{
		load: l, user: u, manner: m, choose: c, random: l.random("pace of " + u.id),
		wake: make(chan struct{}, 1),
	}
}

func (s *sender) run(ctx context.Context) {
	client, features := history.ClientRaw, []string{featureAccept, featurePush}
	if s.manner.ack {
		client, features = history.ClientAck, append(features, featureAck)
	}
	for ctx.Err() == nil && !s.load.leaving.over() {
		socket, err := s.load.login(ctx, s.user, client, features)
		if err == nil {
			s.serve(ctx, socket)
		}
		s.user.next()
		pause(ctx, between(s.random, 0, maxPause), nil)
	}
	s.giveUpAll()
}

// serve uses one socket until it ends.
func (s *sender) serve(ctx context.Context, socket *socket) {
	reading, cancel := context.WithCancel(ctx)
	goAway := make(chan time.Duration, 1)
	var pumping sync.WaitGroup
	var how parting
	pumping.Go(func() { how = s.pump(reading, socket, goAway) })
	err := socket.each(reading, func(f *frame) error { return s.take(socket, f, goAway) })
	cancel()
	pumping.Wait()
	s.lost()
	socket.closed(how, err)
}

// take is called by the reader with every frame.
func (s *sender) take(socket *socket, f *frame, goAway chan<- time.Duration) error {
	switch f.Type {
	case "MESSAGE_ACCEPTED":
		s.accepted(socket, f)
	case "DELIVER_FAILED":
		s.refused(socket, f)
	case "MESSAGE_CONFIRMATION":
		if socket.byAck {
			return socket.acknowledge()
		}
	case "MISSING_MESSAGES_AVAILABLE":
	case "GO_AWAY":
		select {
		case goAway <- time.Duration(f.Data.ReconnectInMs) * time.Millisecond:
		default:
		}
	default:
		socket.strange(f)
	}
	return nil
}

// pump writes to a socket until that ends, or the sender leaves it.
func (s *sender) pump(ctx context.Context, socket *socket, goAway <-chan time.Duration) parting {
	next := time.Now().Add(between(s.random, 0, s.manner.pace))
	timer := time.NewTimer(0)
	defer timer.Stop()
	var going <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return parting{}
		case <-s.load.leaving.done:
			return socket.leave()
		case after := <-goAway:
			going = time.After(after)
		case <-going:
			return socket.leave()
		case <-timer.C:
		case <-s.wake:
		}
		now := time.Now()
		if s.silent(now) {
			_ = socket.ws.CloseNow()
			return parting{}
		}
		if !s.sendDue(socket, now) {
			return parting{}
		}
		if now.After(next) {
			// One that was held up does not catch up.
			next = later(next, now.Add(-time.Second)).Add(between(s.random, s.manner.pace/2, s.manner.pace*3/2))
			if !s.sendNew(socket, now) {
				return parting{}
			}
		}
		timer.Reset(min(max(time.Until(next), 0), lookEvery))
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// silent says whether the server has not answered for too long, and gives up what is
// too old to be sent again.
func (s *sender) silent(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range slices.Clone(s.waiting) {
		if d.underWay && now.Sub(d.sentAt) > answerTime {
			return true
		}
		if life := s.load.cfg.MaxLife; !d.underWay && life > 0 && now.Sub(d.born) > life {
			s.giveUpLocked(d)
		}
	}
	return false
}

// sendDue sends what has to be sent again, in order: what is not due yet holds up all
// that is younger and has a receiver in common. false: the socket is broken.
func (s *sender) sendDue(socket *socket, now time.Time) bool {
	s.mu.Lock()
	var ready []*draft
	held := map[string]bool{}
	for _, d := range s.waiting {
		if d.underWay {
			continue
		}
		if now.Before(d.due) || slices.ContainsFunc(d.to, func(user string) bool { return held[user] }) {
			for _, user := range d.to {
				held[user] = true
			}
			continue
		}
		ready = append(ready, d)
	}
	s.echoes = slices.DeleteFunc(s.echoes, func(d *draft) bool {
		if now.Before(d.due) {
			return false
		}
		ready = append(ready, d)
		return true
	})
	s.mu.Unlock()
	for _, d := range ready {
		if !s.transmit(socket, d) {
			return false
		}
	}
	return true
}

// transmit writes a message. false: the socket is broken.
func (s *sender) transmit(socket *socket, d *draft) bool {
	s.mu.Lock()
	d.attempts++
	d.underWay, d.sentAt = true, time.Now()
	op := d.op
	op.Session, op.Attempt, op.Again = socket.session, d.attempts, d.echo
	s.load.write(op)
	s.mu.Unlock()
	return socket.write(d.frame) == nil
}

// sendNew sends a message, if there is room and somebody to send to. false: the socket
// is broken.
func (s *sender) sendNew(socket *socket, now time.Time) bool {
	if s.load.stopping.over() {
		return true
	}
	s.mu.Lock()
	d := s.draftLocked(now)
	s.mu.Unlock()
	return d == nil || s.transmit(socket, d)
}

func (s *sender) draftLocked(now time.Time) *draft {
	if len(s.waiting) >= maxUnderWay || s.bytes >= maxBytes {
		return nil
	}
	held := map[string]bool{}
	for _, d := range s.waiting {
		if s.manner.careful || !d.underWay {
			for _, user := range d.to {
				held[user] = true
			}
		}
	}
	to := s.load.receiversOf(s.choose, func(user string) bool { return !held[user] })
	if len(to) == 0 {
		return nil
	}
	s.last++
	d := s.load.draft(message{s.user.id, s.last}, to, s.choose.random)
	d.born = now
	s.waiting = append(s.waiting, d)
	s.bytes += len(d.frame)
	s.load.ledger.send()
	return d
}

// receiversOf draws one receiver, or a group.
func (l *Load) receiversOf(c *chooser, free func(string) bool) []string {
	if c.random.Float64() < l.cfg.Groups {
		if members := c.group(free); len(members) > 1 {
			return members
		}
	}
	if user := c.one(free); user != "" {
		return []string{user}
	}
	return nil
}

// size draws the size of a content: most are small.
func (l *Load) size(random *rand.Rand) int {
	most := smallSize
	switch x := random.Float64(); {
	case x < 0.02:
		most = l.cfg.MaxSize
	case x < 0.12:
		most = middleSize
	}
	return minSize + random.IntN(max(min(most, l.cfg.MaxSize)-minSize, 1))
}

// draft writes a message.
func (l *Load) draft(m message, to []string, random *rand.Rand) *draft {
	bound := to[0]
	if len(to) > 1 {
		bound = toMany
	}
	text, sum := l.content(m, bound, l.size(random))
	d := &draft{message: m, to: to, named: random.Float64() >= nameless}
	confirm := len(to) == 1 && random.Float64() < l.cfg.Confirm
	d.op = history.Op{Kind: history.KindSend, User: m.from, N: m.n, To: to, Sum: sum, Size: len(text), Confirm: confirm}
	d.frame = d.encode(text, confirm, "")
	return d
}

// outgoing is a message as it is sent.
type outgoing struct {
	Type string `json:"type"`
	Data struct {
		To      any    `json:"to"`
		Content string `json:"content"`
	} `json:"data"`
	Feature   string `json:"feature,omitempty"`
	Reference string `json:"reference"`
	ID        string `json:"id,omitempty"`
	Confirm   bool   `json:"confirmationEnabled"`
}

func (d *draft) encode(text string, confirm bool, feature string) []byte {
	f := outgoing{Type: "MESSAGE", Feature: feature, Reference: reference(d.n, d.echo), Confirm: confirm}
	f.Data.To, f.Data.Content = any(d.to[0]), text
	if len(d.to) > 1 {
		f.Type, f.Data.To = "GROUP_MESSAGE", d.to
	}
	if d.named {
		f.ID = "m" + reference(d.n, false) // an id belongs to its sender
	}
	return encode(f)
}

// answeredLocked finds the message that an answer is about; nil: it waits for none. It is
// under way no more.
func (s *sender) answeredLocked(n int64) *draft {
	i := slices.IndexFunc(s.waiting, func(d *draft) bool { return d.n == n })
	if i < 0 {
		return nil
	}
	s.waiting[i].underWay = false
	return s.waiting[i]
}

func (s *sender) removeLocked(d *draft) {
	s.waiting = slices.DeleteFunc(s.waiting, func(other *draft) bool { return other == d })
	s.bytes -= len(d.frame)
}

func (s *sender) accepted(socket *socket, f *frame) {
	n, isAgain, ok := parseReference(f.Data.Reference)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !ok || n > s.last {
		socket.strange(f)
		return
	}
	s.load.write(history.Op{Kind: history.KindAccepted, User: s.user.id, Session: socket.session, N: n, ID: f.Data.ID, Again: isAgain})
	if isAgain {
		return
	}
	d := s.answeredLocked(n)
	if d == nil {
		return // accepted twice; the history tells
	}
	s.removeLocked(d)
	s.load.ledger.accept(d.message, d.to, d.op.Confirm)
	if d.named && s.choose.random.Float64() < s.load.cfg.Again && len(s.echoes) < maxEchoes && !s.load.stopping.over() {
		s.echoLocked(d)
	}
	s.wakeUp()
}

// echoLocked plans to send a message again that was accepted.
func (s *sender) echoLocked(d *draft) {
	f := *d
	f.echo, f.underWay, f.due = true, false, time.Now().Add(between(s.choose.random, echoLeast, echoMost))
	f.frame = bytes.Replace(d.frame, referenceField(d.n, false), referenceField(d.n, true), 1)
	s.echoes = append(s.echoes, &f)
}

// referenceField is how a reference stands in a frame. No content reads so: quotes are
// escaped there.
func referenceField(n int64, isAgain bool) []byte {
	return fmt.Appendf(nil, `,"reference":"%s",`, reference(n, isAgain))
}

func (s *sender) refused(socket *socket, f *frame) {
	text := ""
	if f.Reference != nil {
		text = *f.Reference
	}
	n, isAgain, ok := parseReference(text)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !ok || n > s.last {
		socket.strange(f)
		return
	}
	op := history.Op{Kind: history.KindRefused, User: s.user.id, Session: socket.session, N: n, Code: f.Data.Code, Again: isAgain}
	if isAgain {
		s.load.write(op)
		return
	}
	d := s.answeredLocked(n)
	switch {
	case d == nil:
		op.Kind = history.KindFailed
		s.load.write(op)
		s.load.ledger.fail(message{s.user.id, n})
	case f.Data.Retryable && d.named:
		wait := max(time.Duration(f.Data.RetryAfterMs)*time.Millisecond, retryLeast)
		d.due = time.Now().Add(between(s.choose.random, wait, wait*3/2))
		s.load.write(op)
	default:
		op.Final = true
		s.load.write(op)
		s.removeLocked(d)
		s.load.ledger.giveUp()
	}
	s.wakeUp()
}

// lost notes that no answer will come over the socket that has ended. What has no id
// cannot be sent again.
func (s *sender) lost() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range slices.Clone(s.waiting) {
		switch {
		case !d.underWay:
		case d.named:
			d.underWay = false
			s.load.write(history.Op{Kind: history.KindUnknown, User: s.user.id, N: d.n})
		default:
			s.giveUpLocked(d)
		}
	}
}

// giveUpLocked stops asking for an answer.
func (s *sender) giveUpLocked(d *draft) {
	s.load.write(history.Op{Kind: history.KindUnknown, User: s.user.id, N: d.n, Final: true})
	s.removeLocked(d)
	s.load.ledger.giveUp()
}

func (s *sender) giveUpAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range slices.Clone(s.waiting) {
		s.giveUpLocked(d)
	}
}

func (s *sender) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
