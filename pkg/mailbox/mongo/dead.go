package mongo

import (
	"context"
	"errors"
	"fmt"
	"math"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/mailbox"
)

// deadDocument is a dead letter in the collection dead.
type deadDocument struct {
	Key    string         `bson:"_id"` // see encodePosition
	Reason string         `bson:"reason"`
	At     int64          `bson:"at"`
	Users  []ident.UserID `bson:"users,omitempty"`
	Lane   int            `bson:"lane"`
	Offset int64          `bson:"offset"`
	Record []byte         `bson:"record"`
}

func newDeadDocument(l *mailbox.DeadLetter) deadDocument {
	return deadDocument{
		Key: encodePosition(l.Pos), Reason: l.Reason, At: l.At, Users: l.Users, Lane: l.Lane, Offset: l.Offset, Record: l.Record,
	}
}

func (d *deadDocument) letter() (mailbox.DeadLetter, error) {
	pos, err := decodePosition(d.Key)
	return mailbox.DeadLetter{
		Pos: pos, Reason: d.Reason, At: d.At, Users: d.Users, Lane: d.Lane, Offset: d.Offset, Record: d.Record,
	}, err
}

// PutDead implements mailbox.DeadLetters.
func (s *Store) PutDead(ctx context.Context, letters []mailbox.DeadLetter) error {
	err := s.putDead(ctx, letters)
	if err != nil {
		return fmt.Errorf("store %d dead letters: %w", len(letters), err)
	}
	return nil
}

func (s *Store) putDead(ctx context.Context, letters []mailbox.DeadLetter) error {
	err := s.prepare(ctx)
	if err != nil {
		return err
	}
	var documents []deadDocument
	seen := make(map[envelope.Position]bool, len(letters))
	size := 0
	for i := range letters {
		l := &letters[i]
		if seen[l.Pos] {
			continue
		}
		seen[l.Pos] = true
		if size > 0 && size+len(l.Record) > maxPutBytes {
			err := s.insertDead(ctx, documents)
			if err != nil {
				return err
			}
			documents, size = documents[:0], 0
		}
		documents = append(documents, newDeadDocument(l))
		size += len(l.Record)
	}
	return s.insertDead(ctx, documents)
}

func (s *Store) insertDead(ctx context.Context, documents []deadDocument) error {
	if len(documents) == 0 {
		return nil
	}
	err := limited(ctx, func(ctx context.Context) error {
		_, err := s.dead.InsertMany(ctx, documents, options.InsertMany().SetOrdered(false))
		return err
	})
	if onlyDuplicates(err) {
		return nil
	}
	return err
}

// ListDead implements mailbox.DeadLetters.
func (s *Store) ListDead(ctx context.Context, q mailbox.DeadQuery) ([]mailbox.DeadLetter, bool, error) {
	if q.Limit < 1 {
		return nil, false, fmt.Errorf("list dead letters: limit %d is below 1", q.Limit)
	}
	letters, more, err := s.listDead(ctx, q)
	if err != nil {
		return nil, false, fmt.Errorf("list dead letters: %w", err)
	}
	return letters, more, nil
}

func (s *Store) listDead(ctx context.Context, q mailbox.DeadQuery) ([]mailbox.DeadLetter, bool, error) {
	err := s.prepare(ctx)
	if err != nil {
		return nil, false, err
	}
	filter := deadFilter(q.DeadFilter)
	if q.After != (envelope.Position{}) {
		filter = append(filter, bson.E{Key: "_id", Value: bson.D{{Key: "$gt", Value: encodePosition(q.After)}}})
	}
	var letters []mailbox.DeadLetter
	more, size := false, 0
	o := options.Find().SetSort(ascending("_id")).SetLimit(int64(min(q.Limit, math.MaxInt32)) + 1)
	err = scan(ctx, s.dead, filter, o, func(c *mongo.Cursor) (bool, error) {
		if len(letters) == q.Limit || q.MaxBytes > 0 && size > q.MaxBytes {
			more = true
			return false, nil
		}
		var d deadDocument
		err := c.Decode(&d)
		if err != nil {
			return false, err
		}
		l, err := d.letter()
		letters = append(letters, l)
		size += len(l.Record)
		return true, err
	})
	return letters, more, err
}

func deadFilter(f mailbox.DeadFilter) bson.D {
	filter := bson.D{}
	if f.User != "" {
		filter = append(filter, bson.E{Key: "users", Value: string(f.User)})
	}
	if f.Reason != "" {
		filter = append(filter, bson.E{Key: "reason", Value: f.Reason})
	}
	if f.Before != 0 {
		filter = append(filter, bson.E{Key: "at", Value: bson.D{{Key: "$lt", Value: f.Before}}})
	}
	return filter
}

// GetDead implements mailbox.DeadLetters.
func (s *Store) GetDead(ctx context.Context, pos envelope.Position) (mailbox.DeadLetter, bool, error) {
	var d deadDocument
	err := s.request(ctx, func(ctx context.Context) error {
		return s.dead.FindOne(ctx, bson.D{{Key: "_id", Value: encodePosition(pos)}}).Decode(&d)
	})
	if errors.Is(err, mongo.ErrNoDocuments) {
		return mailbox.DeadLetter{}, false, nil
	}
	var l mailbox.DeadLetter
	if err == nil {
		l, err = d.letter()
	}
	if err != nil {
		return mailbox.DeadLetter{}, false, fmt.Errorf("read a dead letter: %w", err)
	}
	return l, true, nil
}

// DeleteDead implements mailbox.DeadLetters.
func (s *Store) DeleteDead(ctx context.Context, positions []envelope.Position) (int, error) {
	n, err := s.deleteDead(ctx, positions)
	if err != nil {
		return n, fmt.Errorf("delete %d dead letters: %w", len(positions), err)
	}
	return n, nil
}

func (s *Store) deleteDead(ctx context.Context, positions []envelope.Position) (int, error) {
	err := s.prepare(ctx)
	if err != nil {
		return 0, err
	}
	gone := 0
	for len(positions) > 0 {
		n := min(len(positions), maxKeys)
		keys := make([]string, n)
		for i, pos := range positions[:n] {
			keys[i] = encodePosition(pos)
		}
		deleted, err := s.deleteDeadKeys(ctx, keys)
		gone += deleted
		if err != nil {
			return gone, err
		}
		positions = positions[n:]
	}
	return gone, nil
}

func (s *Store) deleteDeadKeys(ctx context.Context, keys []string) (int, error) {
	n := int64(0)
	err := limited(ctx, func(ctx context.Context) error {
		result, err := s.dead.DeleteMany(ctx, bson.D{{Key: "_id", Value: bson.D{{Key: "$in", Value: keys}}}})
		if err == nil {
			n = result.DeletedCount
		}
		return err
	})
	return int(n), err
}

// PurgeDead implements mailbox.DeadLetters. It finds and deletes in turns, so that no
// request grows with the number of letters.
func (s *Store) PurgeDead(ctx context.Context, filter mailbox.DeadFilter, limit int) (int, error) {
	if limit < 1 {
		return 0, fmt.Errorf("purge dead letters: limit %d is below 1", limit)
	}
	n, err := s.purgeDead(ctx, filter, limit)
	if err != nil {
		return n, fmt.Errorf("purge dead letters: %w", err)
	}
	return n, nil
}

func (s *Store) purgeDead(ctx context.Context, filter mailbox.DeadFilter, limit int) (int, error) {
	err := s.prepare(ctx)
	if err != nil {
		return 0, err
	}
	gone := 0
	for gone < limit {
		page := min(limit-gone, maxKeys)
		var keys []string
		o := options.Find().SetProjection(bson.D{{Key: "_id", Value: 1}}).SetLimit(int64(page)).SetBatchSize(int32(page))
		err := scan(ctx, s.dead, deadFilter(filter), o, func(c *mongo.Cursor) (bool, error) {
			var d deadDocument
			err := c.Decode(&d)
			keys = append(keys, d.Key)
			return true, err
		})
		if err != nil || len(keys) == 0 {
			return gone, err
		}
		n, err := s.deleteDeadKeys(ctx, keys)
		gone += n
		if err != nil || len(keys) < page {
			return gone, err
		}
	}
	return gone, nil
}

// CountDead implements mailbox.DeadLetters.
func (s *Store) CountDead(ctx context.Context) (int, error) {
	var n int64
	err := s.request(ctx, func(ctx context.Context) error {
		var err error
		n, err = s.dead.CountDocuments(ctx, bson.D{})
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("count dead letters: %w", err)
	}
	return int(n), nil
}
