package mongo

import (
	"context"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/mailbox"
)

var OnlyDuplicates = onlyDuplicates

// SetLimits makes documents and journals small.
func (s *Store) SetLimits(partBytes, journalBytes, journalEntries int) {
	s.limits = limits{partBytes: partBytes, journalBytes: journalBytes, journalEntries: journalEntries}
}

// WritePartsOnly is a save that ends before its entry is written.
func (s *Store) WritePartsOnly(ctx context.Context, lane int, change mailbox.LaneChange) error {
	e := &entry{Lane: lane, Seq: s.owned[lane].last + 1}
	return s.setData(ctx, e, appendMemory(nil, changed(change)))
}

// WriteState shortens the journal at once. Entries that are put back afterwards
// are those of a process that was killed before it deleted them.
func (s *Store) WriteState(ctx context.Context, lane int) error {
	return s.writeState(ctx, lane, s.owned[lane])
}

// Database is where the store keeps everything.
func (s *Store) Database() *mongo.Database { return s.rows.Database() }

// Commands are those whose plans matter.
func Commands(to string, after envelope.Position, lane int) map[string]bson.D {
	find := func(filter, sort bson.D) bson.D {
		return bson.D{{Key: "find", Value: "mailbox"}, {Key: "filter", Value: filter}, {Key: "sort", Value: sort}, {Key: "limit", Value: 100}}
	}
	q := mailbox.Query{To: to, After: after}
	return map[string]bson.D{
		"in_order: Read":  find(selected(q), ascending("pos")),
		"in_order: Count": find(append(selected(q), bson.E{Key: "proved", Value: false}), bson.D{}),
		"in_order: Usage": {
			{Key: "aggregate", Value: "mailbox"}, {Key: "pipeline", Value: usagePipeline(to)}, {Key: "cursor", Value: bson.D{}},
		},
		"by_age: Expired": find(expiredFilter(lane, 50), ascending("stored")),
		"by_target: Targets": append(find(behindTarget(lane, to), laneOrder()),
			bson.E{Key: "projection", Value: bson.D{{Key: "_id", Value: 0}, {Key: "to", Value: 1}}}),
		"_id_: Delete": find(bson.D{{Key: "_id", Value: bson.D{{Key: "$in", Value: [][]byte{rowKey(mailbox.Key{To: to})}}}}}, bson.D{}),
	}
}
