package stack

import "time"

// Unlimited is a limit that is none.
const Unlimited = -1

// Waiting is what may wait in the mailbox of a domain. In each field 0 is the default,
// and Unlimited no limit.
type Waiting struct {
	QuotaRows   int           // messages for one user
	QuotaBytes  int64         // of these
	ExpireAfter time.Duration // how long a message waits
	DeadRetain  time.Duration // how long a dead letter is kept
}

// DefaultWaiting is what counts where nothing is set: the defaults of a processor of its
// own.
func DefaultWaiting() Waiting {
	const month = 30 * 24 * time.Hour
	return Waiting{QuotaRows: 100_000, QuotaBytes: 256 << 20, ExpireAfter: month, DeadRetain: month}
}

// limits are w as a processor wants them: 0 is no limit.
func (w Waiting) limits() Waiting {
	standard := DefaultWaiting()
	return Waiting{
		QuotaRows: limit(w.QuotaRows, standard.QuotaRows), QuotaBytes: limit(w.QuotaBytes, standard.QuotaBytes),
		ExpireAfter: limit(w.ExpireAfter, standard.ExpireAfter), DeadRetain: limit(w.DeadRetain, standard.DeadRetain),
	}
}

func limit[T int | int64 | time.Duration](set, standard T) T {
	switch {
	case set < 0:
		return 0
	case set == 0:
		return standard
	default:
		return set
	}
}
