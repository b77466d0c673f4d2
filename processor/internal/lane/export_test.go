package lane

import "github.com/linkerhq/linker/pkg/envelope"

// StartAt opens startAt to its test.
func StartAt(first, next, committed int64, saved envelope.Position, found bool, generation uint32) (from, handle int64, err error) {
	return startAt(startFacts{first: first, next: next, committed: committed, saved: saved, found: found, generation: generation})
}
