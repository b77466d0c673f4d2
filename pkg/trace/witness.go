package trace

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/seldom"
)

const (
	// longest is how long a question is of use at most, over all domains.
	longest = 3 * time.Second
	// firstWord is within what time a process has to say anything: who is silent until then
	// is not waited for.
	firstWord = 300 * time.Millisecond
	// ownTime is how long a process may take for what it knows itself and the mailbox.
	ownTime = time.Second
	// hopTime is what an answer may need for one step of its way back. Of the time for a
	// question so much is kept back for the look into the mailbox when all has been
	// collected, as much for what a process says at last, and as much for the link.
	hopTime = 100 * time.Millisecond

	maxUnderWay = 32 // questions that a process answers at once; further ones are refused, counted
	maxScans    = 2  // mailboxes that a process looks through at once: it reads all that waits for a user
	maxGathers  = 8  // questions of neighbouring domains that a process collects answers for at once
	maxHeard    = 1024
	heardFor    = time.Minute // questions are known so long
)

// Plane is the live plane, as far as it is needed here.
type Plane interface {
	Publish(subject string, data []byte) error
	// Subscribe calls handle from one goroutine; handle owns data.
	Subscribe(subject string, handle func(data []byte)) (stop func() error, err error)
}

// Rows looks into the mailbox of the domain.
type Rows interface {
	// Look says which of the places hold the message.
	Look(ctx context.Context, message ident.MessageID, looks []Look) ([]Found, error)
	// Scan looks for the message among what waits for users, as far as there is time. It
	// is false if it could not look at everything.
	Scan(ctx context.Context, message ident.MessageID, users []ident.UserID) (found []Found, whole bool, err error)
}

// Neighbours are the domains that this process has links with.
type Neighbours interface {
	// Neighbours returns their names.
	Neighbours() []string
	// Ask puts a question to one of them.
	Ask(ctx context.Context, neighbour string, question []byte) (answer []byte, err error)
}

// Config says who the witness is. Log, Rows, Neighbours and Expected may be missing.
type Config struct {
	Place      Place
	Log        *Log
	Plane      Plane
	Rows       Rows            // nil: this process has no mailbox
	Neighbours Neighbours      // nil: this process dials no links
	Expected   func() []string // the names of connectors that should answer; nil: nobody knows
	Logger     *slog.Logger
	Metrics    prometheus.Registerer // takes the metrics of one Witness at most
}

// Witness answers questions for one process, and asks them.
type Witness struct {
	cfg     Config
	metrics *metrics
	puzzled seldom.Line

	slots    chan struct{} // one for each question under way; never closed
	scanning chan struct{} // one for each mailbox that is looked through; never closed

	mu      sync.Mutex
	heard   map[QuestionID]time.Time // guarded by mu; questions that the domain is answering
	relayed map[QuestionID]time.Time // guarded by mu; questions that were put to neighbours by this process
	gathers int                      // guarded by mu; for neighbouring domains
	paces   map[string]*pace         // guarded by mu; by neighbouring domain
}

// NewWitness registers the figures. It starts nothing.
func NewWitness(cfg Config) (*Witness, error) {
	m, err := newMetrics(cfg.Metrics, cfg.Log)
	if err != nil {
		return nil, err
	}
	return &Witness{
		cfg: cfg, metrics: m, slots: make(chan struct{}, maxUnderWay), scanning: make(chan struct{}, maxScans),
		heard: map[QuestionID]time.Time{}, relayed: map[QuestionID]time.Time{}, paces: map[string]*pace{},
	}, nil
}

// questionsSubject is where a domain's processes hear questions.
func questionsSubject(domain string) string { return "trace." + domain }

// answersSubject is where the answers to one of them go.
func answersSubject(domain string, inbox uint64) string {
	return "trace." + domain + "." + strconv.FormatUint(inbox, 16)
}

// Run answers until ctx ends. It returns an error if the live plane cannot be subscribed to.
func (w *Witness) Run(ctx context.Context) error {
	var under sync.WaitGroup
	stop, err := w.cfg.Plane.Subscribe(questionsSubject(w.cfg.Place.Domain), func(data []byte) {
		q, err := decodeQuestion(data)
		if err != nil {
			w.refuse(refusedMalformed, "a service of this domain", err)
			return
		}
		select {
		case w.slots <- struct{}{}:
		default:
			w.refuse(refusedBusy, "a service of this domain", nil)
			return
		}
		w.metrics.questions[fromDomain].Inc()
		under.Go(func() {
			w.answer(ctx, &q)
			<-w.slots
		})
	})
	if err != nil {
		return fmt.Errorf("listen for questions about messages: %w", err)
	}
	<-ctx.Done()
	_ = stop() // the connection is about to be closed anyway
	under.Wait()
	return nil
}

// answer says what this process knows, and what the neighbours say whom it asks.
func (w *Witness) answer(ctx context.Context, q *Question) {
	ctx, cancel := context.WithTimeout(ctx, q.Within)
	defer cancel()
	say := func(a answer) {
		a.from = w.cfg.Place
		// What is lost is missing in the report.
		_ = w.cfg.Plane.Publish(answersSubject(w.cfg.Place.Domain, q.Inbox), encodeAnswer(a))
	}
	if len(q.Looks) > 0 {
		if w.cfg.Rows != nil {
			say(w.look(ctx, q.Message, q.Looks))
		}
		return
	}
	w.hear(q.ID)
	ask := w.toAsk(q)
	own := answer{more: len(ask) > 0 || w.scans(q), content: w.own(q.Message)}
	say(own)
	if w.scans(q) {
		say(answer{more: len(ask) > 0, content: w.scan(ctx, q)})
	}
	w.relay(ctx, q, ask, func(r Report, last bool) { say(answer{more: !last, content: r}) })
}

// own is what the log of this process holds.
func (w *Witness) own(message ident.MessageID) Report {
	return Report{Asked: []Place{w.cfg.Place}, Events: w.cfg.Log.Find(message)}
}

func (w *Witness) look(ctx context.Context, message ident.MessageID, looks []Look) answer {
	ctx, cancel := context.WithTimeout(ctx, ownTime)
	defer cancel()
	found, err := w.cfg.Rows.Look(ctx, message, looks)
	a := answer{looked: err == nil, content: Report{Found: found}}
	if err != nil {
		a.content.Missing = []string{w.cfg.Place.Domain + "/mailbox"}
	}
	return a
}

func (w *Witness) scans(q *Question) bool { return w.cfg.Rows != nil && len(q.Users) > 0 }

func (w *Witness) scan(ctx context.Context, q *Question) Report {
	ctx, cancel := context.WithTimeout(ctx, ownTime)
	defer cancel()
	select {
	case w.scanning <- struct{}{}:
		defer func() { <-w.scanning }()
	case <-ctx.Done():
		return Report{Cut: true}
	}
	found, whole, err := w.cfg.Rows.Scan(ctx, q.Message, q.Users)
	r := Report{Found: found, Cut: !whole}
	if err != nil {
		r.Missing = []string{w.cfg.Place.Domain + "/mailbox"}
	}
	return r
}

// toAsk are the neighbours that this process puts a question to: those whom it has not come
// through, once.
func (w *Witness) toAsk(q *Question) []string {
	if w.cfg.Neighbours == nil || len(q.Path) >= maxPath || q.Within < 4*hopTime || !w.mark(w.relayed, q.ID) {
		return nil
	}
	return slices.DeleteFunc(w.cfg.Neighbours.Neighbours(), func(name string) bool { return slices.Contains(q.Path, name) })
}

// relay puts a question to neighbours, side by side, and reports what each of them says.
func (w *Witness) relay(ctx context.Context, q *Question, neighbours []string, report func(r Report, last bool)) {
	if len(neighbours) == 0 {
		return
	}
	further := *q
	further.Inbox = 0
	further.Within = q.Within - 3*hopTime
	question := appendQuestion(nil, &further)
	ctx, cancel := context.WithTimeout(ctx, q.Within-2*hopTime)
	defer cancel()
	reports := make(chan Report)
	for _, neighbour := range neighbours {
		go func() { reports <- w.hearFrom(ctx, neighbour, question, q.Message) }()
	}
	for left := len(neighbours); left > 0; left-- {
		report(<-reports, left == 1)
	}
}

// hearFrom asks one neighbour. Of our own domain it knows nothing that we do not know
// better.
func (w *Witness) hearFrom(ctx context.Context, neighbour string, question []byte, message ident.MessageID) Report {
	text, err := w.cfg.Neighbours.Ask(ctx, neighbour, question)
	if err != nil {
		return Report{Missing: []string{neighbour}}
	}
	a, err := decodeAnswer(text, message)
	if err != nil {
		w.refuse(refusedMalformed, neighbour, err)
		return Report{Missing: []string{neighbour}}
	}
	here := w.cfg.Place.Domain
	r := a.content
	r.Asked = slices.DeleteFunc(r.Asked, func(p Place) bool { return p.Domain == here })
	r.Events = slices.DeleteFunc(r.Events, func(e Event) bool { return e.Place.Domain == here })
	r.Found = slices.DeleteFunc(r.Found, func(f Found) bool { return f.Domain == here })
	return r
}

// Ask asks the whole domain about a message, and over its links others. users are those in
// whose mailboxes to look, whatever the events say. It takes 3 s at most.
func (w *Witness) Ask(ctx context.Context, message ident.MessageID, users []ident.UserID) Report {
	var id QuestionID
	_, _ = rand.Read(id[:]) // never fails
	q := Question{ID: id, Message: message, Within: longest, Users: users[:min(len(users), maxUsers)], Path: []string{w.cfg.Place.Domain}}
	w.hear(id)
	r := w.gather(ctx, &q)
	r.Missing = append(r.Missing, w.silentConnectors(&r)...)
	return r
}

// silentConnectors are the expected ones that have said nothing.
func (w *Witness) silentConnectors(r *Report) []string {
	var list []string
	if w.cfg.Expected == nil {
		return nil
	}
	for _, name := range w.cfg.Expected() {
		p := Place{Domain: w.cfg.Place.Domain, Service: Connector, Name: name}
		if !slices.Contains(r.Asked, p) {
			list = append(list, p.String())
		}
	}
	return list
}

// Asked answers the question of a neighbouring domain. The answer is empty if there is
// none: the neighbour then takes us for silent.
func (w *Witness) Asked(ctx context.Context, neighbour string, question []byte) []byte {
	q, err := decodeQuestion(question)
	here := w.cfg.Place.Domain
	switch {
	case err != nil:
	case len(q.Path) == 0 || q.Path[len(q.Path)-1] != neighbour:
		err = fmt.Errorf("it has come through %v, expected %s as the last", q.Path, neighbour)
	case slices.Contains(q.Path, here) || len(q.Path) >= maxPath:
		err = fmt.Errorf("it has come through %v", q.Path)
	case len(q.Looks) > 0 || q.Inbox != 0:
		err = errors.New("it says where to look")
	}
	if err != nil {
		w.refuse(refusedMalformed, neighbour, err)
		return nil
	}
	if w.knows(q.ID) {
		return encodeAnswer(answer{from: w.cfg.Place, known: true})
	}
	if why := w.admit(neighbour, time.Now()); why != "" {
		w.refuse(why, neighbour, nil)
		return nil
	}
	defer w.dismiss()
	w.hear(q.ID)
	w.metrics.questions[fromNeighbour].Inc()
	q.Path = append(q.Path, here)
	return encodeAnswer(answer{from: w.cfg.Place, content: w.gather(ctx, &q)})
}

// admit says whether a neighbour may ask now, or why not.
func (w *Witness) admit(neighbour string, now time.Time) (why refusal) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.paces[neighbour]
	if p == nil {
		p = &pace{left: burst, at: now} // neighbours are those that the network has links with
		w.paces[neighbour] = p
	}
	switch {
	case !p.take(now):
		return refusedRate
	case w.gathers >= maxGathers:
		return refusedBusy
	}
	w.gathers++
	return ""
}

func (w *Witness) dismiss() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gathers--
}

// hear notes that the domain is being asked.
func (w *Witness) hear(id QuestionID) { w.mark(w.heard, id) }

// knows says whether the domain is being asked, or was.
func (w *Witness) knows(id QuestionID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, known := w.heard[id]
	return known
}

// mark adds a question to a table of the witness, if it is not there. When the table is full
// it begins anew: a question may then be answered twice.
func (w *Witness) mark(table map[QuestionID]time.Time, id QuestionID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if at, known := table[id]; known && now.Sub(at) < heardFor {
		return false
	}
	if len(table) >= maxHeard {
		clear(table)
	}
	table[id] = now
	return true
}

func (w *Witness) refuse(why refusal, from string, err error) {
	w.metrics.refused[why].Inc()
	if w.puzzled.Due() {
		w.cfg.Logger.Warn("question about a message, or an answer, refused", "from", from, "reason", string(why), "error", err)
	}
}

const (
	burst     = 10                     // questions of a neighbour at once
	tokenTime = 200 * time.Millisecond // then one in that time
)

// pace is how often a neighbour may ask.
type pace struct {
	left int
	at   time.Time // up to when left was counted
}

func (p *pace) take(now time.Time) bool {
	more := int(now.Sub(p.at) / tokenTime)
	p.at = p.at.Add(time.Duration(more) * tokenTime)
	p.left = min(p.left+more, burst)
	if p.left == 0 {
		return false
	}
	p.left--
	return true
}
