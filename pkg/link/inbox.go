package link

import "sync"

const (
	// What was read and waits for the handler. When it is full nothing more is
	// read. One message may go beyond the bytes.
	inboxMessages = 64
	inboxBytes    = 4 << 20
)

// inbox is between the reader, which puts, and the handler's goroutine, which
// takes.
type inbox struct {
	ready chan struct{} // capacity 1, never closed: there is something to take, or it was closed
	room  chan struct{} // capacity 1, never closed: something was taken

	mu     sync.Mutex
	ring   [inboxMessages]letter // guarded by mu: from first on, count of them
	first  int                   // guarded by mu
	count  int                   // guarded by mu
	bytes  int                   // guarded by mu: of all of them
	closed bool                  // guarded by mu
}

type letter struct {
	message Message
	bytes   int
}

func newInbox() *inbox {
	return &inbox{ready: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

// put says whether there was room; if not, there may be after a word from room.
func (i *inbox) put(m Message, bytes int) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.count == inboxMessages || i.bytes >= inboxBytes {
		return false
	}
	i.ring[(i.first+i.count)%inboxMessages] = letter{message: m, bytes: bytes}
	i.count++
	i.bytes += bytes
	signal(i.ready)
	return true
}

// take waits for a message; false: it was closed, and nothing is left.
func (i *inbox) take() (Message, bool) {
	for {
		m, closed := i.next()
		if m != nil || closed {
			return m, m != nil
		}
		<-i.ready
	}
}

// next returns the first message, or nil, and then whether there will be another.
func (i *inbox) next() (Message, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.count == 0 {
		return nil, i.closed
	}
	l := i.ring[i.first]
	i.ring[i.first] = letter{}
	i.first = (i.first + 1) % inboxMessages
	i.count--
	i.bytes -= l.bytes
	signal(i.room)
	return l.message, false
}

// close is called by the reader when it ends.
func (i *inbox) close() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.closed = true
	signal(i.ready)
}

// signal says a word to whoever waits; one is enough.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
