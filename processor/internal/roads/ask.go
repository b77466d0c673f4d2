package roads

import (
	"context"
	"errors"
	"sync"

	"github.com/linkerhq/linker/pkg/link"
)

// maxQuestions is how many questions wait for answers at once; then no more are asked.
const maxQuestions = 128

// Why a neighbour cannot be asked, for errors.Is.
var (
	ErrNoLink     = errors.New("no link with the neighbour is open that questions can be asked over")
	ErrNoAnswer   = errors.New("the neighbour gives no answer")
	errTooMany    = errors.New("too many questions wait for answers")
	errNotWritten = errors.New("too much waits to be sent to the neighbour")
)

// questions are those that wait for answers.
type questions struct {
	mu      sync.Mutex
	last    uint64             // guarded by mu
	waiting map[uint64]waiting // guarded by mu
}

// waiting is one of them.
type waiting struct {
	over   uint64        // the connection
	answer chan<- []byte // gets one answer, or is closed; capacity 1
}

// Neighbours returns the domains that the network has a link with.
func (r *Roads) Neighbours() []string { return r.neighbourNames() }

// Ask puts a question to a neighbour and returns its answer. It ends when ctx does, or the
// connection.
func (r *Roads) Ask(ctx context.Context, neighbour string, question []byte) ([]byte, error) {
	c := r.askable(neighbour)
	if c == nil {
		return nil, ErrNoLink
	}
	answer := make(chan []byte, 1)
	n, ok := r.questions.begin(c, answer)
	if !ok {
		return nil, errTooMany
	}
	defer r.questions.end(n)
	if !c.raw.Send(link.Question{N: n, Text: question}) {
		return nil, errNotWritten
	}
	if r.conn(c.id) == nil {
		return nil, ErrNoAnswer // it has ended before the question was noted
	}
	select {
	case text := <-answer:
		if len(text) == 0 {
			return nil, ErrNoAnswer
		}
		return text, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// askable returns the oldest connection to a neighbour that questions can be asked over, nil
// if there is none: over the others its version is older.
func (r *Roads) askable(neighbour string) *conn {
	for _, c := range r.connections() {
		if c.neighbour.name == neighbour && c.raw.Asks() {
			return c
		}
	}
	return nil
}

func (q *questions) begin(c *conn, answer chan<- []byte) (n uint64, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) >= maxQuestions {
		return 0, false
	}
	if q.waiting == nil {
		q.waiting = map[uint64]waiting{}
	}
	q.last++
	q.waiting[q.last] = waiting{over: c.id, answer: answer}
	return q.last, true
}

func (q *questions) end(n uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.waiting, n)
}

// answered takes an answer. One that nobody waits for any more is dropped.
func (q *questions) answered(c *conn, m link.Answer) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if w, is := q.waiting[m.N]; is && w.over == c.id {
		delete(q.waiting, m.N)
		w.answer <- m.Text // there is room for the only one
	}
}

// endAll gives up what was asked over a connection that has ended.
func (q *questions) endAll(c *conn) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for n, w := range q.waiting {
		if w.over == c.id {
			delete(q.waiting, n)
			close(w.answer)
		}
	}
}
