package delivery_test

import (
	"bytes"
	"fmt"
	"reflect"
	"testing"

	"github.com/linkerhq/linker/pkg/delivery"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
)

var epoch = envelope.Position{Generation: 3, Offset: 1 << 40}

func batch() delivery.Batch {
	return delivery.Batch{Lane: 23, Epoch: epoch, Items: []delivery.Item{
		{Kind: delivery.KindFrame, Late: true, Urgent: true, ID: ident.MessageID{7}, Pos: epoch, Targets: []delivery.Target{{Session: 1 << 63, User: "ANZ-1", D: 1}, {Session: 2, User: "ANZ-2", D: 1 << 50}}, Frame: []byte(`{}`)},
		{Kind: delivery.KindFast, Token: 99, Targets: []delivery.Target{{Session: 3, User: "ANZ-3"}}, Frame: []byte(`{"a":1}`)},
	}}
}

func answers() delivery.Answers {
	return delivery.Answers{
		Lane: 2, Epoch: epoch, Connector: ident.Connector{Name: "c", Incarnation: ident.Incarnation{1}},
		Progress: []delivery.Progress{{Session: 5, Taken: 9, Proved: 8, Gap: true}}, Gone: []uint64{1, 2}, FastProved: []uint64{4}, Join: delivery.Join{Serial: 1 << 63, Part: 2, Parts: 3},
		Sessions: []delivery.SessionState{{Progress: delivery.Progress{Session: 6, Taken: 2}, User: "ANZ-1", L: epoch, Last: envelope.Position{Generation: 3, Offset: 1 << 41}, Features: envelope.FeatureAck, Unproved: []delivery.Unproved{{D: 2, Pos: epoch, ID: ident.MessageID{8}}}}},
	}
}

func TestALongListOfSessionsIsSplitAndNothingIsLost(t *testing.T) {
	t.Parallel()
	whole := delivery.Answers{Lane: 3}
	for n := range uint64(1000) {
		s := delivery.SessionState{Progress: delivery.Progress{Session: n}, User: "ANZ-1"}
		if n%100 == 0 {
			s.Unproved = make([]delivery.Unproved, 2000) // larger than a part by itself
		}
		whole.Sessions = append(whole.Sessions, s)
	}
	parts := whole.Parts(7, 10_000)
	next := uint64(0)
	for i, part := range parts {
		if part.Join != (delivery.Join{Serial: 7, Part: i, Parts: len(parts)}) || part.Lane != 3 {
			t.Errorf("part %d is %+v of lane %d", i, part.Join, part.Lane)
		}
		if size := len(part.Append(nil)); size > 10_100 && len(part.Sessions) > 1 {
			t.Errorf("part %d has %d bytes", i, size)
		}
		for _, s := range part.Sessions {
			if s.Session != next {
				t.Fatalf("got session %d, want %d", s.Session, next)
			}
			next++
		}
	}
	if next != 1000 || len(parts) < 10 {
		t.Errorf("%d sessions in %d parts", next, len(parts))
	}
	if parts := (&delivery.Answers{}).Parts(1, 100); len(parts) != 1 || parts[0].Join.Parts != 1 {
		t.Errorf("of no session: %+v", parts)
	}
}

func TestBatchSurvivesTheWire(t *testing.T) {
	t.Parallel()
	large := delivery.Batch{Lane: 1, Epoch: epoch}
	for i := range 200 { // of one target and of many by turns
		it := delivery.Item{Kind: delivery.KindFrame, ID: ident.MessageID{byte(i)}, Frame: []byte("{}")}
		for j := range 1 + i%3*(i%70) {
			it.Targets = append(it.Targets, delivery.Target{Session: uint64(i), User: ident.UserID(fmt.Sprintf("ANZ-%d", i*j)), D: uint64(j)})
		}
		large.Items = append(large.Items, it)
	}
	for _, want := range []delivery.Batch{batch(), large} {
		got, err := delivery.DecodeBatch(want.Append(nil))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v\nwant %+v", got, err, want)
		}
	}
}

func TestAnswersSurviveTheWire(t *testing.T) {
	t.Parallel()
	want := answers()
	got, err := delivery.DecodeAnswers(want.Append(nil))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
}

func TestAnnouncementSurvivesTheWire(t *testing.T) {
	t.Parallel()
	want := delivery.Announcement{Lane: 7, Epoch: epoch, Joining: true, Full: true, Lag: 12, Ask: []ident.Connector{{Name: "c", Incarnation: ident.Incarnation{4}}}}
	got, err := delivery.DecodeAnnouncement(want.Append(nil))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
}

func FuzzDecodeBatch(f *testing.F) {
	b := batch()
	f.Add(b.Append(nil))
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := delivery.DecodeBatch(in)
		if err != nil {
			return
		}
		once := got.Append(nil)
		again, err := delivery.DecodeBatch(once)
		if err != nil || !bytes.Equal(once, again.Append(nil)) {
			t.Fatalf("an accepted batch does not survive: %v", err)
		}
	})
}

func FuzzDecodeAnswers(f *testing.F) {
	a := answers()
	f.Add(a.Append(nil))
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := delivery.DecodeAnswers(in)
		if err != nil {
			return
		}
		once := got.Append(nil)
		again, err := delivery.DecodeAnswers(once)
		if err != nil || !bytes.Equal(once, again.Append(nil)) {
			t.Fatalf("accepted answers do not survive: %v", err)
		}
	})
}

func FuzzNextFast(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 'x'})
	f.Add(delivery.AppendFast(delivery.AppendFast(nil, []byte("one")), nil))
	f.Fuzz(func(t *testing.T, message []byte) {
		var again []byte
		for rest := message; len(rest) > 0; {
			envelope, behind, err := delivery.NextFast(rest)
			if err != nil {
				return
			}
			if len(behind) >= len(rest) {
				t.Fatalf("%d bytes left of %d", len(behind), len(rest))
			}
			again, rest = delivery.AppendFast(again, envelope), behind
		}
		// A length may be written in more bytes than it needs.
		if len(again) > len(message) {
			t.Errorf("got % x of % x", again, message)
		}
	})
}
