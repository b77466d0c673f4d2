package link

// Message is what travels over an open link: Records, Ack, Refusal, Fast, States.
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

func (Records) message() {}
func (Ack) message()     {}
func (Refusal) message() {}
func (Fast) message()    {}
func (States) message()  {}
