package link

// Message is what travels over an open link: Records, Ack, Refusal, Fast, States, and
// Question and Answer where both sides know them.
type Message interface{ message() }

// Records are records of one channel, numbered First, First+1, …. A channel is one
// lane's way to one destination over one connection; its numbers begin with 1.
type Records struct {
	Channel uint64
	First   uint64
	Records [][]byte // encoded envelopes, none empty; they alias what was read
}

// Ack says that every record of a channel up to UpTo is in the log of the side that
// says it, or was refused.
type Ack struct{ Channel, UpTo uint64 }

// Refusal says that a record cannot be taken and never will be. It is sent before
// the Ack that covers it.
type Refusal struct {
	Channel, N uint64
	Code       string // at most 64 bytes
}

// Fast is an encoded envelope that only memory holds: at most once.
type Fast struct{ Record []byte }

// States carry what domains say of their links, encoded by package linkstate.
type States struct{ Entries []byte }

// Question asks the other domain something; package trace says what. Whoever asks numbers
// it, from 1.
type Question struct {
	N    uint64
	Text []byte // at most MaxQuestion bytes; it aliases what was read
}

// Answer answers the Question of the same number. An empty one says that there is no
// answer.
type Answer struct {
	N    uint64
	Text []byte // at most MaxAnswer bytes; it aliases what was read
}

func (Records) message()  {}
func (Ack) message()      {}
func (Refusal) message()  {}
func (Fast) message()     {}
func (States) message()   {}
func (Question) message() {}
func (Answer) message()   {}
