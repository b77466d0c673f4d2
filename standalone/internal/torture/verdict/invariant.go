package verdict

// Invariant is something that has to hold of every run.
type Invariant string

// The invariants.
const (
	I1  Invariant = "I1"
	I2  Invariant = "I2"
	I3  Invariant = "I3"
	I4  Invariant = "I4"
	I5  Invariant = "I5"
	I6  Invariant = "I6"
	I7  Invariant = "I7"
	I8  Invariant = "I8"
	I9  Invariant = "I9"
	I10 Invariant = "I10"
	I11 Invariant = "I11"
	I12 Invariant = "I12"
	I13 Invariant = "I13"
	I14 Invariant = "I14"
	// Protocol is what a client may rely on beside: it gets no frame and no close that
	// the protocol does not name.
	Protocol Invariant = "protocol"
)

// Promise says what the invariant is.
func (i Invariant) Promise() string {
	switch i {
	case I1:
		return "what was accepted is delivered, or reported as failed, or a dead letter"
	case I2:
		return "after dropping known ids every message comes once"
	case I3:
		return "no socket gets a copy without a fault that explains it"
	case I4:
		return "messages of one sender to one receiver come in the order sent, or are marked late"
	case I5:
		return "a message comes unchanged, from its sender, to its receiver"
	case I6:
		return "nothing is delivered that was not sent, and what was sent twice under one id is taken once"
	case I7:
		return "at the end nothing is left: no rows, no claims, no dead letters"
	case I8:
		return "a confirmation comes once, after the delivery, to everybody who asked for it"
	case I9:
		return "the master hears of everybody who comes and goes, in turn, and in 11 s if a connector was killed"
	case I10:
		return "at the end nothing waits for a road"
	case I11:
		return "what is committed never goes back, and at the end it is everything"
	case I12:
		return "FAST messages come once at most, in order, and all of them as long as nothing fails"
	case I13:
		return "after the run a process is no larger than it was when warm"
	case I14:
		return "no log has a race, a panic or a secret"
	case Protocol:
		return "a client gets nothing that the protocol does not name"
	default:
		return ""
	}
}
