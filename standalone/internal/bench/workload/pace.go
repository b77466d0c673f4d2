package workload

import "github.com/linkerhq/linker/standalone/internal/bench/swarm"

// nanos are those of a second.
const nanos = 1e9

// sendsAtOnce is how many messages are sent before what has come is read.
const sendsAtOnce = 32

// pace says when whom sends. It belongs to the thread of the swarm.
type pace interface {
	// begin is called once, when the first message may be sent; nothing is due from end on.
	begin(now, end int64)
	// due sends what is due and says when something is again.
	due(now int64) int64
	// answered is called when the last message of a sender has come everywhere, or nothing
	// more is expected of it.
	answered(s *sender, now int64)
	// writable is called when a sender can send that could not.
	writable(s *sender, now int64)
	// unsent is how many messages were due and could not be sent.
	unsent() int64
}

// closedPace is that of senders who wait for the end of a message, pause, and send
// the next one.
type closedPace struct {
	traffic  *traffic
	pause    int64
	patience int64
	end      int64
	queue    fifo // senders, by the time of their next message
	sent     fifo // messages, by the time until which they are waited for
}

// begin spreads the first messages over a pause.
func (p *closedPace) begin(now, end int64) {
	p.end = end
	n := int64(len(p.traffic.senders))
	for i, s := range p.traffic.senders {
		p.queue.push(entry{at: now + p.pause*int64(i)/n, sender: s})
	}
}

func (p *closedPace) due(now int64) int64 {
	for p.sent.len() > 0 && p.sent.first().at <= now {
		e := p.sent.pop()
		if e.sender.number == e.number && e.sender.waits {
			p.traffic.late++
			e.sender.waits = false
			p.answered(e.sender, now)
		}
	}
	for n := 0; p.queue.len() > 0; n++ {
		first := p.queue.first()
		if first.at > now || n == sendsAtOnce {
			return min(first.at, p.nextLate())
		}
		p.queue.pop()
		if at := p.traffic.swarm.Now(); at < p.end {
			p.send(first.sender, at)
		}
	}
	return p.nextLate()
}

// send sends the next message of a sender. One whose socket takes nothing gets another
// chance after a pause.
func (p *closedPace) send(s *sender, now int64) {
	if !p.traffic.send(s, now, now) {
		if s.client.In() {
			p.queue.push(entry{at: now + max(p.pause, 1), sender: s})
		}
		return
	}
	p.sent.push(entry{at: now + p.patience, sender: s, number: s.number})
}

func (p *closedPace) nextLate() int64 {
	if p.sent.len() == 0 {
		return swarm.Never
	}
	return p.sent.first().at
}

func (p *closedPace) answered(s *sender, now int64) {
	if p.pause == 0 && now < p.end {
		p.send(s, now)
		return
	}
	p.queue.push(entry{at: now + p.pause, sender: s})
}

func (p *closedPace) writable(*sender, int64) {}

func (p *closedPace) unsent() int64 { return 0 }

// openPace sends at fixed times, whatever the server does. What cannot be sent then
// is sent as soon as it can be, and keeps its time.
type openPace struct {
	traffic  *traffic
	schedule schedule
	next     int64 // number of the message that is due next, from 0
	late     int64 // that were due, and have not been sent
}

func (p *openPace) begin(now, end int64) { p.schedule.begin, p.schedule.end = now, end }

func (p *openPace) due(now int64) int64 {
	for n := 0; ; n++ {
		at, is := p.schedule.at(p.next)
		if !is {
			return swarm.Never
		}
		if at > now || n == sendsAtOnce {
			return at
		}
		s := p.traffic.senders[p.next%int64(len(p.traffic.senders))]
		p.next++
		p.late++
		p.catchUp(s)
	}
}

// catchUp sends what has become due for a sender.
func (p *openPace) catchUp(s *sender) {
	for {
		k := s.number*int64(len(p.traffic.senders)) + int64(s.index)
		if k >= p.next {
			return
		}
		at, _ := p.schedule.at(k)
		if !p.traffic.send(s, at, p.traffic.swarm.Now()) {
			return
		}
		p.late--
	}
}

func (p *openPace) answered(*sender, int64) {}

func (p *openPace) writable(s *sender, _ int64) { p.catchUp(s) }

func (p *openPace) unsent() int64 { return p.late }

// schedule says when each message of an open loop is due. It is fixed in advance.
type schedule struct {
	begin, end int64   // in ns
	rate       float64 // a second
}

// at is when the k-th message is due, from 0; false if it is not before the end.
func (s schedule) at(k int64) (int64, bool) {
	at := s.begin + int64(float64(k)*nanos/s.rate)
	return at, at < s.end
}

// entry stands in a fifo.
type entry struct {
	at     int64
	number int64 // of the message, if it is about one
	sender *sender
}

// fifo is a queue in a ring that grows. Entries are put in by their time.
type fifo struct {
	ring       []entry // its length is 0 or a power of 2
	head, tail int     // counted on and on
}

func (f *fifo) len() int { return f.tail - f.head }

func (f *fifo) first() entry { return f.ring[f.head&(len(f.ring)-1)] }

func (f *fifo) pop() entry {
	e := f.first()
	f.head++
	return e
}

func (f *fifo) push(e entry) {
	if f.len() == len(f.ring) {
		grown := make([]entry, max(2*len(f.ring), 64))
		for i := range f.len() {
			grown[i] = f.ring[(f.head+i)&(len(f.ring)-1)]
		}
		f.ring, f.head, f.tail = grown, 0, f.len()
	}
	f.ring[f.tail&(len(f.ring)-1)] = e
	f.tail++
}
