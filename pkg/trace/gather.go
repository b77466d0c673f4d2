package trace

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"time"

	"github.com/linkerhq/linker/pkg/ident"
)

// inbox collects the answers to one question.
type inbox struct {
	number  uint64
	answers chan answer // never closed; what finds no room is missing in the report
}

// gather asks the processes of this domain, and says what they, and the neighbours whom they
// have asked, know.
func (w *Witness) gather(ctx context.Context, q *Question) Report {
	ctx, cancel := context.WithTimeout(ctx, q.Within)
	defer cancel()
	sum := newSum()
	sum.add(w.own(q.Message)) // whatever becomes of the live plane
	in, stop, err := w.open(q.Message)
	if err != nil {
		sum.missing(w.cfg.Place.Domain + "/live plane")
		w.lookHere(ctx, q.Message, sum)
		return sum.report()
	}
	defer stop()
	if !w.put(q, in) {
		sum.missing(w.cfg.Place.Domain + "/live plane")
		w.lookHere(ctx, q.Message, sum)
		return sum.report()
	}
	w.collect(ctx, q.Within-hopTime, in, sum)
	switch looks := sum.looks(w.cfg.Place.Domain); {
	case len(looks) == 0:
	case w.cfg.Rows != nil:
		w.lookHere(ctx, q.Message, sum)
	case sum.processors(w.cfg.Place.Domain):
		w.askToLook(ctx, q, looks, in, sum)
	}
	return sum.report()
}

// open listens for answers.
func (w *Witness) open(message ident.MessageID) (in *inbox, stop func(), err error) {
	var number [8]byte
	_, _ = rand.Read(number[:]) // never fails
	in = &inbox{number: max(binary.BigEndian.Uint64(number[:]), 1), answers: make(chan answer, 256)}
	unsubscribe, err := w.cfg.Plane.Subscribe(answersSubject(w.cfg.Place.Domain, in.number), func(data []byte) {
		a, err := decodeAnswer(data, message)
		if err != nil {
			w.refuse(refusedMalformed, "a service of this domain", err)
			return
		}
		select {
		case in.answers <- a:
		default:
			w.refuse(refusedBusy, "a service of this domain", nil)
		}
	})
	if err != nil {
		return nil, nil, err
	}
	return in, func() { _ = unsubscribe() }, nil // nobody answers any more
}

// put asks the processes of the domain. It is false if nobody can hear it.
func (w *Witness) put(q *Question, in *inbox) bool {
	inside := *q
	inside.Inbox = in.number
	return w.cfg.Plane.Publish(questionsSubject(w.cfg.Place.Domain), appendQuestion(nil, &inside)) == nil
}

// collect takes answers until everybody who has said that more follows has said it, and
// nobody else is expected to say anything.
func (w *Witness) collect(ctx context.Context, within time.Duration, in *inbox, sum *sum) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	waited := map[Place]bool{}
	silent := time.NewTimer(firstWord)
	defer silent.Stop()
	for first := true; first || len(waited) > 0; {
		select {
		case a := <-in.answers:
			sum.add(a.content)
			if a.more {
				waited[a.from] = true
			} else {
				delete(waited, a.from)
			}
		case <-silent.C:
			first = false
		case <-ctx.Done():
			for p := range waited {
				sum.missing(p.String())
			}
			return
		}
	}
}

// lookHere looks into the mailbox from here.
func (w *Witness) lookHere(ctx context.Context, message ident.MessageID, sum *sum) {
	looks := sum.looks(w.cfg.Place.Domain)
	if w.cfg.Rows != nil && len(looks) > 0 {
		sum.add(w.look(context.WithoutCancel(ctx), message, looks).content)
	}
}

// askToLook has a processor look into the mailbox: the first that has done it is enough.
func (w *Witness) askToLook(ctx context.Context, q *Question, looks []Look, in *inbox, sum *sum) {
	missing := w.cfg.Place.Domain + "/mailbox"
	if !w.put(&Question{ID: q.ID, Message: q.Message, Within: ownTime, Path: q.Path, Looks: looks}, in) {
		sum.missing(missing)
		return
	}
	silent := time.NewTimer(ownTime)
	defer silent.Stop()
	for {
		select {
		case a := <-in.answers:
			if a.looked {
				sum.add(a.content)
				return
			}
		case <-silent.C:
			sum.missing(missing)
			return
		case <-ctx.Done():
			sum.missing(missing)
			return
		}
	}
}
