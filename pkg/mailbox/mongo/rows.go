package mongo

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/mailbox"
)

const (
	maxPutBytes = 4 << 20 // of records in one request
	maxKeys     = 1000    // in one request
	maxEntries  = 1000    // of an index that one request goes through for targets
)

// duplicateKey is the server's code for a document whose key is taken.
const duplicateKey = 11000

// rowDocument is a row in the collection mailbox.
type rowDocument struct {
	Key    []byte `bson:"_id"` // the target, then the 16 bytes of the id
	To     string `bson:"to"`
	Pos    string `bson:"pos"` // see encodePosition
	Lane   int    `bson:"lane"`
	Proved bool   `bson:"proved"`
	Stored int64  `bson:"stored"`
	Size   int    `bson:"size"` // of the record, for an index that has all that Usage wants
	Record []byte `bson:"record"`
}

func newDocument(r mailbox.Row) rowDocument {
	return rowDocument{
		Key: rowKey(mailbox.Key{To: r.To, ID: r.ID}), To: r.To, Pos: encodePosition(r.Pos), Lane: r.Lane,
		Proved: r.Proved, Stored: r.Stored, Size: len(r.Record), Record: r.Record,
	}
}

func rowKey(k mailbox.Key) []byte { return append([]byte(k.To), k.ID[:]...) }

func (d *rowDocument) row() (mailbox.Row, error) {
	r := mailbox.Row{To: d.To, Lane: d.Lane, Proved: d.Proved, Stored: d.Stored, Record: d.Record}
	if len(d.Key) != len(d.To)+len(r.ID) {
		return mailbox.Row{}, fmt.Errorf("a row of %s has a key of %d bytes", d.To, len(d.Key))
	}
	copy(r.ID[:], d.Key[len(d.To):])
	var err error
	r.Pos, err = decodePosition(d.Pos)
	return r, err
}

// Put implements mailbox.Rows.
func (s *Store) Put(ctx context.Context, rows []mailbox.Row) error {
	err := s.put(ctx, rows)
	if err != nil {
		return fmt.Errorf("store %d rows: %w", len(rows), err)
	}
	return nil
}

func (s *Store) put(ctx context.Context, rows []mailbox.Row) error {
	err := s.prepare(ctx)
	if err != nil {
		return err
	}
	documents := make([]rowDocument, 0, len(rows))
	seen := make(map[string]bool, len(rows))
	size := 0
	for _, r := range rows {
		d := newDocument(r)
		if seen[string(d.Key)] {
			continue
		}
		seen[string(d.Key)] = true
		if size > 0 && size+len(r.Record) > maxPutBytes {
			err := s.insert(ctx, documents)
			if err != nil {
				return err
			}
			documents, size = documents[:0], 0
		}
		documents = append(documents, d)
		size += len(r.Record)
	}
	return s.insert(ctx, documents)
}

func (s *Store) insert(ctx context.Context, documents []rowDocument) error {
	if len(documents) == 0 {
		return nil
	}
	err := limited(ctx, func(ctx context.Context) error {
		_, err := s.rows.InsertMany(ctx, documents, options.InsertMany().SetOrdered(false))
		return err
	})
	if onlyDuplicates(err) {
		return nil
	}
	return err
}

// onlyDuplicates says whether all that err reports is documents that were there
// already, which a majority has. The driver's own check asks for one such document.
func onlyDuplicates(err error) bool {
	var bulk mongo.BulkWriteException
	if !errors.As(err, &bulk) || bulk.WriteConcernError != nil || len(bulk.WriteErrors) == 0 {
		return false
	}
	for _, e := range bulk.WriteErrors {
		if e.Code != duplicateKey {
			return false
		}
	}
	return true
}

// Read implements mailbox.Rows.
func (s *Store) Read(ctx context.Context, q mailbox.Query) ([]mailbox.Row, bool, error) {
	if q.Limit < 1 {
		return nil, false, fmt.Errorf("read rows of %s: limit %d is below 1", q.To, q.Limit)
	}
	rows, more, err := s.readRows(ctx, q)
	if err != nil {
		return nil, false, fmt.Errorf("read rows of %s: %w", q.To, err)
	}
	return rows, more, nil
}

func (s *Store) readRows(ctx context.Context, q mailbox.Query) ([]mailbox.Row, bool, error) {
	err := s.prepare(ctx)
	if err != nil {
		return nil, false, err
	}
	filter := selected(q)
	if q.Unproved {
		filter = append(filter, bson.E{Key: "proved", Value: false})
	}
	var rows []mailbox.Row
	more, size := false, 0
	o := options.Find().SetSort(ascending("pos")).SetLimit(int64(min(q.Limit, math.MaxInt32)) + 1)
	err = scan(ctx, s.rows, filter, o, func(c *mongo.Cursor) (bool, error) {
		if len(rows) == q.Limit || q.MaxBytes > 0 && size > q.MaxBytes {
			more = true
			return false, nil
		}
		r, err := decodeRow(c)
		rows = append(rows, r)
		size += len(r.Record)
		return true, err
	})
	return rows, more, err
}

func decodeRow(c *mongo.Cursor) (mailbox.Row, error) {
	var d rowDocument
	err := c.Decode(&d)
	if err != nil {
		return mailbox.Row{}, err
	}
	return d.row()
}

// Count implements mailbox.Rows.
func (s *Store) Count(ctx context.Context, q mailbox.Query) (int, error) {
	var n int64
	err := s.request(ctx, func(ctx context.Context) error {
		var err error
		n, err = s.rows.CountDocuments(ctx, append(selected(q), bson.E{Key: "proved", Value: false}))
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("count rows of %s: %w", q.To, err)
	}
	return int(n), nil
}

// MarkProved implements mailbox.Rows.
func (s *Store) MarkProved(ctx context.Context, keys []mailbox.Key) error {
	err := s.eachChunk(ctx, keys, func(ctx context.Context, chunk [][]byte) error {
		_, err := s.rows.UpdateMany(ctx,
			bson.D{{Key: "_id", Value: bson.D{{Key: "$in", Value: chunk}}}, {Key: "proved", Value: false}},
			bson.D{{Key: "$set", Value: bson.D{{Key: "proved", Value: true}}}})
		return err
	})
	if err != nil {
		return fmt.Errorf("mark %d rows as proved: %w", len(keys), err)
	}
	return nil
}

// Delete implements mailbox.Rows.
func (s *Store) Delete(ctx context.Context, keys []mailbox.Key) error {
	err := s.eachChunk(ctx, keys, s.deleteKeys)
	if err != nil {
		return fmt.Errorf("delete %d rows: %w", len(keys), err)
	}
	return nil
}

func (s *Store) deleteKeys(ctx context.Context, keys [][]byte) error {
	_, err := s.rows.DeleteMany(ctx, bson.D{{Key: "_id", Value: bson.D{{Key: "$in", Value: keys}}}})
	return err
}

// eachChunk calls run for as many keys as one request may have.
func (s *Store) eachChunk(ctx context.Context, keys []mailbox.Key, run func(context.Context, [][]byte) error) error {
	err := s.prepare(ctx)
	if err != nil {
		return err
	}
	for len(keys) > 0 {
		n := min(len(keys), maxKeys)
		chunk := make([][]byte, n)
		for i, k := range keys[:n] {
			chunk[i] = rowKey(k)
		}
		err := limited(ctx, func(ctx context.Context) error { return run(ctx, chunk) })
		if err != nil {
			return err
		}
		keys = keys[n:]
	}
	return nil
}

// DeleteProved implements mailbox.Rows.
func (s *Store) DeleteProved(ctx context.Context, to string, before envelope.Position) error {
	err := s.deleteProved(ctx, append(selected(mailbox.Query{To: to, Before: before}), bson.E{Key: "proved", Value: true}))
	if err != nil {
		return fmt.Errorf("delete proved rows of %s: %w", to, err)
	}
	return nil
}

// deleteProved finds and deletes in turns, so that no request grows with the
// number of rows. Mostly the first finds none.
func (s *Store) deleteProved(ctx context.Context, filter bson.D) error {
	err := s.prepare(ctx)
	if err != nil {
		return err
	}
	o := options.Find().SetProjection(bson.D{{Key: "_id", Value: 1}}).SetLimit(maxKeys).SetBatchSize(maxKeys)
	for {
		var keys [][]byte
		err := scan(ctx, s.rows, filter, o, func(c *mongo.Cursor) (bool, error) {
			var d rowDocument
			err := c.Decode(&d)
			keys = append(keys, d.Key)
			return true, err
		})
		if err != nil || len(keys) == 0 {
			return err
		}
		err = limited(ctx, func(ctx context.Context) error { return s.deleteKeys(ctx, keys) })
		if err != nil || len(keys) < maxKeys {
			return err
		}
	}
}

// Usage implements mailbox.Rows.
func (s *Store) Usage(ctx context.Context, to string) (mailbox.Usage, error) {
	var u mailbox.Usage
	err := s.request(ctx, func(ctx context.Context) error {
		var err error
		u, err = s.usage(ctx, to)
		return err
	})
	if err != nil {
		return mailbox.Usage{}, fmt.Errorf("measure rows of %s: %w", to, err)
	}
	return u, nil
}

func (s *Store) usage(ctx context.Context, to string) (mailbox.Usage, error) {
	cursor, err := s.rows.Aggregate(ctx, usagePipeline(to))
	if err != nil {
		return mailbox.Usage{}, err
	}
	var sums []struct {
		Rows  int   `bson:"rows"`
		Bytes int64 `bson:"bytes"`
	}
	err = cursor.All(ctx, &sums)
	if err != nil || len(sums) == 0 {
		return mailbox.Usage{}, err
	}
	return mailbox.Usage{Rows: sums[0].Rows, Bytes: sums[0].Bytes}, nil
}

// usagePipeline asks for nothing that the index in_order does not have.
func usagePipeline(to string) mongo.Pipeline {
	return mongo.Pipeline{
		{{Key: "$match", Value: append(selected(mailbox.Query{To: to}), bson.E{Key: "proved", Value: false})}},
		{{Key: "$group", Value: bson.D{
			{Key: "_id", Value: nil},
			{Key: "rows", Value: bson.D{{Key: "$sum", Value: 1}}},
			{Key: "bytes", Value: bson.D{{Key: "$sum", Value: bson.D{{Key: "$toLong", Value: "$size"}}}}},
		}}},
	}
}

// Expired implements mailbox.Rows.
func (s *Store) Expired(ctx context.Context, lane int, before int64, limit int) ([]mailbox.Row, error) {
	if limit < 1 {
		return nil, fmt.Errorf("read expired rows of lane %d: limit %d is below 1", lane, limit)
	}
	rows, err := s.expired(ctx, lane, before, limit)
	if err != nil {
		return nil, fmt.Errorf("read expired rows of lane %d: %w", lane, err)
	}
	return rows, nil
}

func (s *Store) expired(ctx context.Context, lane int, before int64, limit int) ([]mailbox.Row, error) {
	err := s.prepare(ctx)
	if err != nil {
		return nil, err
	}
	o := options.Find().SetSort(ascending("stored")).SetLimit(int64(limit))
	var rows []mailbox.Row
	err = scan(ctx, s.rows, expiredFilter(lane, before), o, func(c *mongo.Cursor) (bool, error) {
		r, err := decodeRow(c)
		rows = append(rows, r)
		return true, err
	})
	return rows, err
}

func expiredFilter(lane int, before int64) bson.D {
	return bson.D{{Key: "lane", Value: lane}, {Key: "stored", Value: bson.D{{Key: "$lt", Value: before}}}}
}

// Targets implements mailbox.Rows. However many rows a target has, it looks at a
// page of them at most, and then behind the target.
func (s *Store) Targets(ctx context.Context, lane int, after string, limit int) ([]string, error) {
	if limit < 1 {
		return nil, fmt.Errorf("list targets of lane %d: limit %d is below 1", lane, limit)
	}
	targets, err := s.targets(ctx, lane, after, limit)
	if err != nil {
		return nil, fmt.Errorf("list targets of lane %d: %w", lane, err)
	}
	return targets, nil
}

func (s *Store) targets(ctx context.Context, lane int, after string, limit int) ([]string, error) {
	err := s.prepare(ctx)
	if err != nil {
		return nil, err
	}
	// The index by_target has all that is asked for.
	o := options.Find().SetSort(laneOrder()).SetLimit(maxEntries).SetBatchSize(maxEntries).
		SetProjection(bson.D{{Key: "_id", Value: 0}, {Key: "to", Value: 1}})
	var targets []string
	for {
		entries := 0
		err := scan(ctx, s.rows, behindTarget(lane, after), o, func(c *mongo.Cursor) (bool, error) {
			entries++
			var d rowDocument
			err := c.Decode(&d)
			if err == nil && d.To != after {
				targets, after = append(targets, d.To), d.To
			}
			return len(targets) < limit, err
		})
		if err != nil || len(targets) == limit || entries < maxEntries {
			return targets, err
		}
	}
}

// behindTarget selects the rows of a lane whose targets lie behind one.
func behindTarget(lane int, target string) bson.D {
	return bson.D{{Key: "lane", Value: lane}, {Key: "to", Value: bson.D{{Key: "$gt", Value: target}}}}
}

func laneOrder() bson.D { return bson.D{{Key: "lane", Value: 1}, {Key: "to", Value: 1}} }

// request is one round trip, after the indexes have been made.
func (s *Store) request(ctx context.Context, run func(context.Context) error) error {
	err := s.prepare(ctx)
	if err != nil {
		return err
	}
	return limited(ctx, run)
}

// selected is the target and the bounds of a query.
func selected(q mailbox.Query) bson.D {
	var bounds bson.D
	if q.After != (envelope.Position{}) {
		bounds = append(bounds, bson.E{Key: "$gt", Value: encodePosition(q.After)})
	}
	if q.Before != (envelope.Position{}) {
		bounds = append(bounds, bson.E{Key: "$lt", Value: encodePosition(q.Before)})
	}
	filter := bson.D{{Key: "to", Value: q.To}}
	if bounds != nil {
		filter = append(filter, bson.E{Key: "pos", Value: bounds})
	}
	return filter
}

func ascending(field string) bson.D { return bson.D{{Key: field, Value: 1}} }

// encodePosition returns a string that sorts, byte by byte, as positions do: the
// generation in 8 hexadecimal digits, a colon, and the offset in 16. Offsets of
// rows are not negative; as a bound, a negative one lies before all others.
func encodePosition(p envelope.Position) string {
	if p.Offset < 0 {
		return fmt.Sprintf("%08x", p.Generation)
	}
	return fmt.Sprintf("%08x:%016x", p.Generation, p.Offset)
}

func decodePosition(s string) (envelope.Position, error) {
	if len(s) != 25 || s[8] != ':' {
		return envelope.Position{}, fmt.Errorf("%q is not a position", s)
	}
	generation, err := strconv.ParseUint(s[:8], 16, 32)
	if err != nil {
		return envelope.Position{}, fmt.Errorf("%q is not a position", s)
	}
	offset, err := strconv.ParseInt(s[9:], 16, 64)
	if err != nil {
		return envelope.Position{}, fmt.Errorf("%q is not a position", s)
	}
	return envelope.Position{Generation: uint32(generation), Offset: offset}, nil
}
