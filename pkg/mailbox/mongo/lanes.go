package mongo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/linkerhq/linker/pkg/mailbox"
)

// The journal of a lane is numbered from 1 without gaps. What a lane remembers
// is the sum of its entries in the order of their numbers:
//
//   - a claim changes nothing. An owner writes it when it has read all that is
//     before it: whoever owned the lane until then wants to write the same
//     number, and is refused, for the number is the document's key;
//   - a change is one save;
//   - a state replaces all entries before it, which are then deleted.
//
// An entry counts from the moment it is stored, in one document. Data that is
// too large for that is stored in parts first, under an id that nothing knows
// before the entry is there.
//
// A request may be carried out after its time limit, when its sender has given
// up. It finds its number taken by then, or it counts, and the sender finds it
// there when it wants to write the same number again.

// entry is one document of the journal.
type entry struct {
	Key   int64         `bson:"_id"` // see entryKey
	Lane  int           `bson:"lane"`
	Seq   int64         `bson:"seq"`
	Kind  entryKind     `bson:"kind"`
	Owner bson.ObjectID `bson:"owner"` // of whoever has loaded the lane: another one after each load
	At    int64         `bson:"at"`    // Unix seconds, by the clock of the owner
	Pos   string        `bson:"pos,omitempty"`
	Data  []byte        `bson:"data,omitempty"` // a memory, encoded
	Blob  bson.ObjectID `bson:"blob,omitempty"` // where the data is, if it is in parts
	Parts int           `bson:"parts,omitempty"`
}

type entryKind string

const (
	kindClaim  entryKind = "claim"
	kindChange entryKind = "change"
	kindState  entryKind = "state"
)

// part is a piece of the data of an entry.
type part struct {
	Lane int           `bson:"lane"`
	Seq  int64         `bson:"seq"` // no later than that of the entry
	Blob bson.ObjectID `bson:"blob"`
	Part int           `bson:"part"`
	Data []byte        `bson:"data"`
}

// seqBits leaves numbers for a save each second in thirty thousand years, and
// for eight million lanes.
const seqBits = 40

func entryKey(lane int, seq int64) int64 { return int64(lane)<<seqBits | seq }

// limits decide how large documents and the journal of a lane become.
type limits struct {
	partBytes      int // of one document
	journalBytes   int // beside as many as the last state has, before the next state is written
	journalEntries int // the same
}

const (
	// maxTakes bounds how often a lane is read anew that somebody else is changing.
	maxTakes = 10
	// keepClaims is how long a claim outlives the state that replaces it, so that
	// the owner before finds its number taken, however late it comes.
	keepClaims = 24 * time.Hour
	// restSaves is how many saves go by after a state could not be written.
	restSaves = 60
)

// errMoved says that entries were replaced by a state while they were being read.
var errMoved = errors.New("the journal changed while it was read")

// owned is what a Store knows of a lane it has loaded.
type owned struct {
	turn chan struct{} // holds a token while a method works on the lane; never closed

	// Owned by the holder of the turn.
	known   bool          // whether the lane was read, and what follows is true
	taken   bool          // whether somebody else was found to have taken it over
	owner   bson.ObjectID // what this Store writes into its entries
	last    int64         // the number of the last entry; behind it may be more of this owner
	entries int           // since the last state
	bytes   int           // of data in them
	state   int           // bytes of data in the last state
	rest    int           // saves before the next attempt to write a state
}

// lock gives the turn on a lane; unlock gives it back.
func (s *Store) lock(ctx context.Context, lane int) (*owned, error) {
	s.mu.Lock()
	l := s.owned[lane]
	if l == nil {
		l = &owned{turn: make(chan struct{}, 1)}
		s.owned[lane] = l
	}
	s.mu.Unlock()
	err := limited(ctx, func(ctx context.Context) error {
		select {
		case l.turn <- struct{}{}:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	if err != nil {
		return nil, fmt.Errorf("wait for another request: %w", err)
	}
	return l, nil
}

func (l *owned) unlock() { <-l.turn }

// LoadLane implements mailbox.Lanes.
func (s *Store) LoadLane(ctx context.Context, lane int) (mailbox.LaneState, bool, error) {
	m, err := s.load(ctx, lane)
	if err != nil {
		return mailbox.LaneState{}, false, fmt.Errorf("load lane %d: %w", lane, err)
	}
	if !m.found {
		return mailbox.LaneState{}, false, nil
	}
	return m.laneState(), true, nil
}

func (s *Store) load(ctx context.Context, lane int) (*memory, error) {
	err := s.prepare(ctx)
	if err != nil {
		return nil, err
	}
	l, err := s.lock(ctx, lane)
	if err != nil {
		return nil, err
	}
	defer l.unlock()
	return s.take(ctx, lane, l)
}

// take reads the lane and claims it.
func (s *Store) take(ctx context.Context, lane int, l *owned) (*memory, error) {
	owner := bson.NewObjectID()
	for range maxTakes {
		j, err := s.readJournal(ctx, lane)
		if errors.Is(err, errMoved) {
			continue
		}
		if err != nil {
			return nil, err
		}
		err = s.insertEntry(ctx, &entry{Lane: lane, Seq: j.last + 1, Kind: kindClaim, Owner: owner})
		if mongo.IsDuplicateKeyError(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("claim: %w", err)
		}
		l.known, l.taken, l.owner, l.last = true, false, owner, j.last+1
		l.entries, l.bytes, l.state, l.rest = j.entries+1, j.bytes, j.state, 0
		return j.memory, nil
	}
	return nil, errMoved
}

// SaveLane implements mailbox.Lanes.
func (s *Store) SaveLane(ctx context.Context, lane int, change mailbox.LaneChange) error {
	err := s.save(ctx, lane, change)
	if err != nil {
		return fmt.Errorf("save lane %d: %w", lane, err)
	}
	return nil
}

func (s *Store) save(ctx context.Context, lane int, change mailbox.LaneChange) error {
	err := s.prepare(ctx)
	if err != nil {
		return err
	}
	l, err := s.lock(ctx, lane)
	if err != nil {
		return err
	}
	defer l.unlock()
	if !l.known {
		_, err := s.take(ctx, lane, l)
		if err != nil {
			return err
		}
	}
	if l.taken {
		return mailbox.ErrLaneTaken
	}
	data := appendMemory(nil, changed(change))
	e := &entry{Lane: lane, Seq: l.last + 1, Kind: kindChange, Owner: l.owner, Pos: encodePosition(change.Position)}
	err = s.setData(ctx, e, data)
	if err != nil {
		return err
	}
	err = s.append(ctx, l, e)
	if err != nil {
		return err
	}
	l.entries++
	l.bytes += len(data)
	s.shorten(ctx, lane, l)
	return nil
}

// append stores e under the next number. Numbers that an earlier request of this
// owner has used, whose outcome was unknown, are passed over.
func (s *Store) append(ctx context.Context, l *owned, e *entry) error {
	for {
		e.Seq = l.last + 1
		err := s.insertEntry(ctx, e)
		if err == nil {
			l.last = e.Seq
			return nil
		}
		if !mongo.IsDuplicateKeyError(err) {
			return err
		}
		owner, err := s.ownerOf(ctx, e.Lane, e.Seq)
		if err != nil {
			return err
		}
		if owner != l.owner {
			l.taken = true
			return mailbox.ErrLaneTaken
		}
		l.last = e.Seq
	}
}

func (s *Store) insertEntry(ctx context.Context, e *entry) error {
	e.Key, e.At = entryKey(e.Lane, e.Seq), time.Now().Unix()
	return limited(ctx, func(ctx context.Context) error {
		_, err := s.lanes.InsertOne(ctx, e)
		return err
	})
}

func (s *Store) ownerOf(ctx context.Context, lane int, seq int64) (bson.ObjectID, error) {
	var e entry
	err := limited(ctx, func(ctx context.Context) error {
		return s.lanes.FindOne(ctx, bson.D{{Key: "_id", Value: entryKey(lane, seq)}}).Decode(&e)
	})
	if err != nil {
		return bson.ObjectID{}, fmt.Errorf("read entry %d: %w", seq, err)
	}
	return e.Owner, nil
}

// setData gives e its data, in parts if it is too large for one document.
func (s *Store) setData(ctx context.Context, e *entry, data []byte) error {
	if len(data) <= s.limits.partBytes {
		e.Data = data
		return nil
	}
	e.Blob = bson.NewObjectID()
	for ; len(data) > 0; e.Parts++ {
		n := min(len(data), s.limits.partBytes)
		p := part{Lane: e.Lane, Seq: e.Seq, Blob: e.Blob, Part: e.Parts, Data: data[:n]}
		err := limited(ctx, func(ctx context.Context) error {
			_, err := s.parts.InsertOne(ctx, p)
			return err
		})
		if err != nil {
			return fmt.Errorf("store part %d: %w", e.Parts, err)
		}
		data = data[n:]
	}
	return nil
}

// data returns what setData has stored.
func (s *Store) data(ctx context.Context, e *entry) ([]byte, error) {
	if e.Parts == 0 {
		return e.Data, nil
	}
	var data []byte
	found := 0
	filter := bson.D{{Key: "lane", Value: e.Lane}, {Key: "seq", Value: bson.D{{Key: "$lte", Value: e.Seq}}}, {Key: "blob", Value: e.Blob}}
	err := scan(ctx, s.parts, filter, options.Find().SetSort(ascending("part")), func(c *mongo.Cursor) (bool, error) {
		var p part
		err := c.Decode(&p)
		data = append(data, p.Data...)
		found++
		return true, err
	})
	if err != nil {
		return nil, fmt.Errorf("read parts of entry %d: %w", e.Seq, err)
	}
	if found != e.Parts {
		return nil, errMoved
	}
	return data, nil
}

// journal is what was read of a lane.
type journal struct {
	memory  *memory
	last    int64 // the number of the last entry; 0: there is none
	entries int   // since the last state
	bytes   int   // of data in them
	state   int   // bytes of data in the last state
}

// readJournal returns errMoved if what it read is not of one piece.
func (s *Store) readJournal(ctx context.Context, lane int) (*journal, error) {
	entries, err := s.readEntries(ctx, lane)
	if err != nil {
		return nil, err
	}
	j := &journal{memory: newMemory()}
	for i := range entries {
		e := &entries[i]
		if e.Kind != kindState && e.Seq != j.last+1 {
			return nil, errMoved
		}
		j.last = e.Seq
		j.entries++
		if e.Kind == kindClaim {
			continue
		}
		data, err := s.data(ctx, e)
		if err != nil {
			return nil, err
		}
		if e.Kind == kindState {
			j.entries, j.bytes, j.state = 0, 0, len(data)
		} else {
			j.bytes += len(data)
		}
		err = j.memory.apply(e, data)
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", e.Seq, err)
		}
	}
	return j, nil
}

// readEntries returns the entries of a lane from its last state on.
func (s *Store) readEntries(ctx context.Context, lane int) ([]entry, error) {
	filter := bson.D{{Key: "_id", Value: bson.D{
		{Key: "$gte", Value: entryKey(lane, 0)}, {Key: "$lt", Value: entryKey(lane+1, 0)},
	}}}
	var entries []entry
	err := scan(ctx, s.lanes, filter, options.Find().SetSort(ascending("_id")), func(c *mongo.Cursor) (bool, error) {
		var e entry
		err := c.Decode(&e)
		if e.Kind == kindState {
			entries = entries[:0]
		}
		entries = append(entries, e)
		return true, err
	})
	return entries, err
}

// shorten replaces the journal by a state when it has become long. An error is
// no error of the save, which has succeeded: it is logged, and tried again later.
func (s *Store) shorten(ctx context.Context, lane int, l *owned) {
	if l.entries <= s.limits.journalEntries && l.bytes <= s.limits.journalBytes+l.state {
		return
	}
	if l.rest > 0 {
		l.rest--
		return
	}
	err := s.writeState(ctx, lane, l)
	if err != nil && ctx.Err() == nil {
		l.rest = restSaves
		s.log.Warn("the journal of a lane was not shortened; trying again later", "lane", lane, "error", err)
	}
}

// writeState reads the journal, writes what it sums up to as the next entry, and
// deletes what is before that.
func (s *Store) writeState(ctx context.Context, lane int, l *owned) error {
	j, err := s.readJournal(ctx, lane)
	if err != nil {
		return err
	}
	if j.last != l.last {
		return errMoved
	}
	data := appendMemory(nil, j.memory)
	e := &entry{Lane: lane, Seq: j.last + 1, Kind: kindState, Owner: l.owner, Pos: encodePosition(j.memory.position)}
	err = s.setData(ctx, e, data)
	if err != nil {
		return err
	}
	err = s.insertEntry(ctx, e)
	if err != nil {
		return err
	}
	l.last, l.entries, l.bytes, l.state = e.Seq, 0, 0, len(data)
	return s.deleteBefore(ctx, lane, e.Seq)
}

func (s *Store) deleteBefore(ctx context.Context, lane int, seq int64) error {
	old := bson.D{
		{Key: "_id", Value: bson.D{{Key: "$gte", Value: entryKey(lane, 0)}, {Key: "$lt", Value: entryKey(lane, seq)}}},
		{Key: "$or", Value: bson.A{
			bson.D{{Key: "kind", Value: bson.D{{Key: "$ne", Value: kindClaim}}}},
			bson.D{{Key: "at", Value: bson.D{{Key: "$lt", Value: time.Now().Add(-keepClaims).Unix()}}}},
		}},
	}
	err := limited(ctx, func(ctx context.Context) error {
		_, err := s.lanes.DeleteMany(ctx, old)
		return err
	})
	if err != nil {
		return fmt.Errorf("delete entries: %w", err)
	}
	err = limited(ctx, func(ctx context.Context) error {
		_, err := s.parts.DeleteMany(ctx, bson.D{{Key: "lane", Value: lane}, {Key: "seq", Value: bson.D{{Key: "$lt", Value: seq}}}})
		return err
	})
	if err != nil {
		return fmt.Errorf("delete parts: %w", err)
	}
	return nil
}

// changed is a change as a memory that is to be added to another.
func changed(c mailbox.LaneChange) *memory {
	m := &memory{position: c.Position, windows: c.Windows, expired: c.Expired, forget: c.Now - c.IDsFor}
	if len(c.IDs) > 0 {
		m.ids = []savedIDs{{saved: c.Now, ids: c.IDs}}
	}
	return m
}
