// Package failpoint lets a process fail at the places where custody changes hands:
// to die there, to stop there as if it were frozen, or to get an error there.
//
// It is for fault tests. Only programs built with the tag failpoints know it, and
// only what the environment variable LINKER_FAILPOINTS names fails; in every
// other build Hit is empty and costs nothing.
//
//	LINKER_FAILPOINTS="lane-before-delete:exit@500,producer-after-append:err@20"
//
// fails at the 500th and the 20th time that the places are passed. Without @N it
// is the first. After err the place goes on failing no more.
package failpoint

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Variable is the environment variable that says what fails.
const Variable = "LINKER_FAILPOINTS"

// Point is a place in the code.
type Point string

// The places, in the order of a message's way.
const (
	ConnectorBeforeAppend Point = "connector-before-append" // a message is read, the log has not got it
	ProducerAfterAppend   Point = "producer-after-append"   // the log has records, the process does not know it yet; err: it never learns it
	ConnectorAfterAck     Point = "connector-after-ack"     // the log has acknowledged, the client has no MESSAGE_ACCEPTED
	ConnectorAfterLogin   Point = "connector-after-login"   // the log has a login, the client has no reply
	ConnectorBeforeProof  Point = "connector-before-proof"  // a socket has proved receipt, the lane has not heard of it

	LaneBeforeEpoch    Point = "lane-before-epoch"    // a lane is taken over, its first record is not written
	LaneBeforeHandling Point = "lane-before-handling" // records are fetched and not handled
	LaneAfterDelivery  Point = "lane-after-delivery"  // one connector has got its deliveries, others may have not
	LaneAfterConfirm   Point = "lane-after-confirm"   // a confirmation is in the log, its message is not settled
	LaneBeforeCommit   Point = "lane-before-commit"   // proofs are in, nothing is committed
	LaneAfterStore     Point = "lane-after-store"     // rows are stored, the lane does not know it; err: it stores them again
	LaneAfterRead      Point = "lane-after-read"      // rows are read, sessions have not got them
	LaneBeforeDelete   Point = "lane-before-delete"   // proofs are in, the rows are still there
	LaneAfterDelete    Point = "lane-after-delete"    // rows are deleted, the lane does not know it; err: it deletes them again

	LinkBeforeAck    Point = "link-before-ack"    // the log has records of a link, the neighbour does not know it
	LinkBeforeSettle Point = "link-before-settle" // the neighbour has acknowledged, nothing is settled
)

// Points returns all places.
func Points() []Point {
	return []Point{
		ConnectorBeforeAppend, ProducerAfterAppend, ConnectorAfterAck, ConnectorAfterLogin, ConnectorBeforeProof,
		LaneBeforeEpoch, LaneBeforeHandling, LaneAfterDelivery, LaneAfterConfirm, LaneBeforeCommit,
		LaneAfterStore, LaneAfterRead, LaneBeforeDelete, LaneAfterDelete,
		LinkBeforeAck, LinkBeforeSettle,
	}
}

// Action is what happens at a place.
type Action string

// The actions.
const (
	Exit Action = "exit" // the process is killed, as by SIGKILL
	Stop Action = "stop" // the process is stopped, as by SIGSTOP, until somebody continues it
	Err  Action = "err"  // the place reports ErrInjected
)

// ErrInjected is what a place reports whose action is Err.
var ErrInjected = errors.New("failure injected for a test")

// Failure is one entry of LINKER_FAILPOINTS.
type Failure struct {
	Point  Point
	Action Action
	At     uint64 // the how manieth time that the place is passed, from 1
}

// String writes f as Parse reads it.
func (f Failure) String() string { return fmt.Sprintf("%s:%s@%d", f.Point, f.Action, f.At) }

// Parse reads what LINKER_FAILPOINTS says.
func Parse(text string) ([]Failure, error) {
	var list []Failure
	for entry := range strings.SplitSeq(text, ",") {
		entry = strings.TrimSpace(entry)
		if entry == "" {
			continue
		}
		head, count, counted := strings.Cut(entry, "@")
		name, action, _ := strings.Cut(head, ":")
		f := Failure{Point: Point(name), Action: Action(action), At: 1}
		if !slices.Contains(Points(), f.Point) {
			return nil, fmt.Errorf("%s: unknown place %q in %q", Variable, name, entry)
		}
		if f.Action != Exit && f.Action != Stop && f.Action != Err {
			return nil, fmt.Errorf("%s: unknown action %q in %q, expected exit, stop or err", Variable, action, entry)
		}
		if counted {
			n, err := strconv.ParseUint(count, 10, 63)
			if err != nil || n == 0 {
				return nil, fmt.Errorf("%s: %q in %q, expected a whole number from 1", Variable, count, entry)
			}
			f.At = n
		}
		list = append(list, f)
	}
	return list, nil
}
