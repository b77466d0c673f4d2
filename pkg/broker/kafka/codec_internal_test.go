package kafka

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

func batchOf(n, size int) []record {
	batch := make([]record, n)
	for i := range batch {
		batch[i] = record{key: fmt.Sprintf("key-%d", i), value: bytes.Repeat([]byte{byte(i)}, size)}
	}
	return batch
}

func TestTheLibraryReadsTheBatchesThatWeWrite(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1_700_000_000_123)
	for _, batch := range [][]record{batchOf(1, 0), batchOf(1, 100_000), batchOf(3, 64), batchOf(1000, 200), {{}}} {
		raw := appendBatch(nil, batch, now)
		var set protocol.RecordSet
		if _, err := set.ReadFrom(bytes.NewReader(append(appendInt32(nil, int32(len(raw))), raw...))); err != nil {
			t.Fatal(err)
		}
		for i := range batch {
			r, err := set.Records.ReadRecord()
			if err != nil {
				t.Fatalf("record %d of %d: %v", i, len(batch), err)
			}
			key, _ := protocol.ReadAll(r.Key)
			value, _ := protocol.ReadAll(r.Value)
			if string(key) != batch[i].key || !bytes.Equal(value, batch[i].value) || r.Offset != int64(i) || !r.Time.Equal(now) || len(r.Headers) != 0 {
				t.Fatalf("record %d is %s at %d, %v", i, key, r.Offset, r.Time)
			}
		}
		if _, err := set.Records.ReadRecord(); !errors.Is(err, io.EOF) {
			t.Errorf("after the last one: %v", err)
		}
	}
}

// stored is a batch as a broker stores it, from an offset on.
func stored(batch []byte, base int64) []byte {
	binary.BigEndian.PutUint64(batch, uint64(base))
	return batch
}

// libraryBatch is what the library makes of records.
func libraryBatch(t testing.TB, attributes protocol.Attributes, records ...kafka.Record) []byte {
	t.Helper()
	set := protocol.RecordSet{Version: 2, Attributes: attributes, Records: protocol.NewRecordReader(records...)}
	var b bytes.Buffer
	if _, err := set.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()[4:]
}

func letter(n int) kafka.Record {
	report := Report{Reason: "why", Lane: n, LaneOffset: int64(n)}
	return kafka.Record{
		Time: time.UnixMilli(int64(n)), Key: protocol.NewBytes(fmt.Append(nil, n)), Value: protocol.NewBytes([]byte("letter")),
		Headers: report.headers(),
	}
}

func TestWeReadTheBatchesThatTheLibraryWrites(t *testing.T) {
	t.Parallel()
	for _, attributes := range []protocol.Attributes{0, protocol.Gzip, protocol.Snappy, protocol.Lz4, protocol.Zstd} {
		t.Run(attributes.String(), func(t *testing.T) {
			t.Parallel()
			set := stored(libraryBatch(t, attributes, letter(1), letter(2), kafka.Record{}), 10)
			set = append(set, stored(libraryBatch(t, attributes, letter(3)), 13)...)
			got, err := decodeRecords(set, 11)
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != 3 || got[0].Offset != 11 || got[1].Offset != 12 || got[2].Offset != 13 {
				t.Fatalf("got %+v", got)
			}
			if len(got[1].Key) != 0 || len(got[1].Value) != 0 || got[1].Report != nil {
				t.Errorf("the empty one is %+v", got[1])
			}
			for i, n := range map[int]int{0: 2, 2: 3} {
				r := got[i]
				if r.Report == nil {
					t.Fatalf("record %d has no report", i)
				}
				if want := (Report{Reason: "why", Lane: n, LaneOffset: int64(n), Time: time.UnixMilli(int64(n))}); *r.Report != want || string(r.Key) != fmt.Sprint(n) || string(r.Value) != "letter" {
					t.Errorf("record %d is %q %q %+v", i, r.Key, r.Value, *r.Report)
				}
			}
		})
	}
}

func TestRecordsOwnTheirMemory(t *testing.T) {
	t.Parallel()
	set := stored(appendBatch(nil, batchOf(100, 1000), time.Now()), 0)
	got, err := decodeRecords(set, 0)
	if err != nil {
		t.Fatal(err)
	}
	clear(set)
	for i := range got {
		got[i].Key = append(got[i].Key, "grown"...)
		if want := fmt.Sprintf("key-%dgrown", i); string(got[i].Key) != want {
			t.Errorf("key %q, want %q", got[i].Key, want)
		}
	}
	for i := range got {
		if !bytes.Equal(got[i].Value, bytes.Repeat([]byte{byte(i)}, 1000)) {
			t.Fatalf("the value of record %d has changed", i)
		}
	}
}

func TestWhatTheBrokerCutsOffIsAskedForAgain(t *testing.T) {
	t.Parallel()
	whole := stored(appendBatch(nil, batchOf(2, 100), time.Now()), 0)
	next := stored(appendBatch(nil, batchOf(2, 100), time.Now()), 2)
	for cut := range next {
		got, err := decodeRecords(append(bytes.Clone(whole), next[:cut]...), 0)
		if err != nil || len(got) != 2 {
			t.Fatalf("%d bytes of the second batch: %d records, %v", cut, len(got), err)
		}
	}
	for cut := 1; cut < len(next); cut++ {
		if got, err := decodeRecords(next[:cut], 0); err == nil || len(got) != 0 {
			t.Fatalf("%d bytes of a batch alone: %d records, %v", cut, len(got), err)
		}
	}
	if got, err := decodeRecords(nil, 0); err != nil || len(got) != 0 {
		t.Errorf("nothing: %d records, %v", len(got), err)
	}
}

func TestAChangedBatchIsNotRead(t *testing.T) {
	t.Parallel()
	good := stored(appendBatch(nil, batchOf(1, 100), time.Now()), 0)
	bad := stored(appendBatch(nil, batchOf(1, 100), time.Now()), 1)
	bad[len(bad)-20]++
	got, err := decodeRecords(append(good, bad...), 0)
	if !errors.Is(err, errChecksum) || len(got) != 1 {
		t.Errorf("%d records, %v", len(got), err)
	}
}

func testLeader() *leader { return new(client).leader("in.domain-01", 3) }

// producedAnswer is what a broker says to a request for records.
func producedAnswer(l *leader, code int16, offset int64, why string) []byte {
	b := appendInt16(l.appendPlace(nil), code)
	b = appendInt64(appendInt64(appendInt64(b, offset), -1), 0)
	b = appendString(appendInt32(appendInt32(b, 1), 7), "a record")
	if why == "" {
		b = appendInt16(b, -1)
	} else {
		b = appendString(b, why)
	}
	return appendInt32(b, 0)
}

func fetchedAnswer(l *leader, code int16, set []byte) []byte {
	b := appendInt32(appendInt16(appendInt32(nil, 0), 0), 0)
	b = appendInt16(l.appendPlace(b), code)
	b = appendInt64(appendInt64(appendInt64(b, 9), 9), 0)
	b = appendInt64(appendInt64(appendInt32(b, 1), 5), 6) // one aborted transaction
	return append(appendInt32(b, int32(len(set))), set...)
}

func TestAnswersAreUnderstoodAndCutOnesAreErrors(t *testing.T) {
	t.Parallel()
	l := testLeader()
	offset, refused, err := l.produced(producedAnswer(l, 0, 42, ""))
	if offset != 42 || refused != nil || err != nil {
		t.Errorf("got %d, %v, %v", offset, refused, err)
	}
	_, refused, err = l.produced(producedAnswer(l, int16(kafka.MessageSizeTooLarge), -1, "much too large"))
	if err != nil || !errors.Is(refused, kafka.MessageSizeTooLarge) || !strings.Contains(refused.Error(), "much too large") {
		t.Errorf("got %v, %v", refused, err)
	}
	whole := producedAnswer(l, 0, 42, "text")
	for cut := range len(whole) - 4 { // what comes last is not looked at
		if _, _, err := l.produced(whole[:cut]); !errors.Is(err, errAnswer) {
			t.Fatalf("%d bytes: %v", cut, err)
		}
	}
	set, code, err := l.fetched(fetchedAnswer(l, 0, []byte("records")))
	if string(set) != "records" || code != 0 || err != nil {
		t.Errorf("got %q, %d, %v", set, code, err)
	}
	whole = fetchedAnswer(l, 1, []byte("records"))
	for cut := range whole {
		if _, _, err := l.fetched(whole[:cut]); !errors.Is(err, errAnswer) {
			t.Fatalf("%d bytes: %v", cut, err)
		}
	}
	other := new(client).leader("in.domain-01", 4)
	if _, _, err := other.produced(producedAnswer(l, 0, 42, "")); !errors.Is(err, errAnswer) {
		t.Errorf("an answer about another lane: %v", err)
	}
	if _, _, err := other.fetched(fetchedAnswer(l, 0, nil)); !errors.Is(err, errAnswer) {
		t.Errorf("records of another lane: %v", err)
	}
}

func FuzzAnswers(f *testing.F) {
	l := testLeader()
	f.Add(producedAnswer(l, 0, 42, "text"))
	f.Add(fetchedAnswer(l, 1, []byte("records")))
	f.Fuzz(func(t *testing.T, body []byte) {
		if _, refused, err := l.produced(body); err != nil && refused != nil {
			t.Error("neither understood nor not")
		}
		if set, _, err := l.fetched(body); err != nil && set != nil {
			t.Error("records of an answer that was not understood")
		}
	})
}

func FuzzDecodeRecords(f *testing.F) {
	f.Add(appendBatch(nil, batchOf(3, 10), time.Now()), int64(0))
	f.Add(libraryBatch(f, 0, letter(1), letter(2)), int64(1))
	f.Add(libraryBatch(f, protocol.Gzip, letter(1)), int64(0))
	f.Fuzz(func(t *testing.T, set []byte, from int64) {
		whole, most, plain := survey(set)
		if !plain {
			return // the library's own matter
		}
		for rest := set[:whole]; len(rest) > 0; rest = rest[batchLength32(rest):] { // or nothing would get past the checksum
			binary.BigEndian.PutUint32(rest[batchSumAt:], checksum(rest[batchSummedAt:batchLength32(rest)]))
		}
		records, err := decodeRecords(set, from)
		if err == nil && whole == 0 && len(set) > 0 {
			t.Error("nothing was understood, and nobody says so")
		}
		if len(records) > most {
			t.Errorf("%d records, where there is room for %d", len(records), most)
		}
		for _, r := range records {
			if r.Offset < from {
				t.Errorf("a record at %d, before %d", r.Offset, from)
			}
		}
	})
}
