package kafka

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

const (
	// leastRecord is the length of the shortest record.
	leastRecord = 7
	// chunkBytes is how much memory records of one fetch share at most: one that is
	// kept for long keeps no more than that.
	chunkBytes = 4 << 10
)

var (
	errAnswer   = errors.New("an answer that cannot be read")
	errChecksum = errors.New("a batch with a wrong checksum")
	errRecord   = errors.New("a record that cannot be read")
)

// answer reads what a broker says. After the first mistake it reads zeros.
type answer struct {
	rest []byte
	bad  bool
}

func (a *answer) take(n int) []byte {
	if n < 0 || n > len(a.rest) {
		a.rest, a.bad = nil, true
		return nil
	}
	taken := a.rest[:n]
	a.rest = a.rest[n:]
	return taken
}

func (a *answer) int16() int16 {
	if b := a.take(2); b != nil {
		return int16(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (a *answer) int32() int32 {
	if b := a.take(4); b != nil {
		return int32(binary.BigEndian.Uint32(b))
	}
	return 0
}

func (a *answer) int64() int64 {
	if b := a.take(8); b != nil {
		return int64(binary.BigEndian.Uint64(b))
	}
	return 0
}

// text reads a string that may be missing.
func (a *answer) text() string {
	n := a.int16()
	if n == -1 {
		return ""
	}
	return string(a.take(int(n)))
}

// place reads that one topic follows, and one partition of it.
func (a *answer) place(topic string, partition int) {
	one := a.int32() == 1 && string(a.take(int(a.int16()))) == topic
	if one = one && a.int32() == 1 && a.int32() == int32(partition); !one {
		a.bad = true
	}
}

// produced reads the answer to appendProduce.
func (l *leader) produced(body []byte) (offset int64, refused, err error) {
	a := answer{rest: body}
	a.place(l.topic, l.partition)
	code, offset := a.int16(), a.int64()
	a.take(8 + 8) // when the broker wrote it; where its log begins
	for range a.int32() {
		if a.take(4); a.bad { // the number of a record
			break
		}
		a.text()
	}
	why := a.text()
	switch {
	case a.bad:
		return 0, nil, errAnswer
	case code == 0:
		return offset, nil, nil
	case why == "":
		return 0, kafka.Error(code), nil
	default:
		return 0, fmt.Errorf("%w: %s", kafka.Error(code), why), nil
	}
}

// fetch returns what one request brings; with an error there may still be records.
func (l *leader) fetch(ctx context.Context, from int64) ([]Record, error) {
	defer l.tidy()
	l.sent.bytes = l.appendFetch(newRequest(l.sent.bytes), from)
	body, err := l.ask(ctx, protocol.Fetch, fetchVersion, l.sent.bytes, &l.got)
	if err != nil {
		return nil, err
	}
	set, code, err := l.fetched(body)
	if err == nil && code != 0 {
		err = kafka.Error(code)
	}
	if err != nil {
		l.close() // another broker may be the leader now
		return nil, err
	}
	return decodeRecords(set, from)
}

// fetched reads the answer to appendFetch.
func (l *leader) fetched(body []byte) (records []byte, code int16, err error) {
	a := answer{rest: body}
	a.take(4) // how long we are to wait: the next answer comes as late
	code = a.int16()
	a.take(4) // session
	if code != 0 && !a.bad {
		return nil, code, nil
	}
	a.place(l.topic, l.partition)
	code = a.int16()
	a.take(8 + 8 + 8) // where the log begins and ends
	if aborted := a.int32(); aborted > 0 {
		a.take(int(aborted) * 16)
	}
	if size := a.int32(); size > 0 {
		records = a.take(int(size))
	}
	if a.bad {
		return nil, 0, errAnswer
	}
	return records, code, nil
}

// decodeRecords reads batches, without what comes before an offset. The records own
// their memory. With an error there may still be records, those before the mistake.
func decodeRecords(set []byte, from int64) ([]Record, error) {
	whole, records, plain := survey(set)
	if !plain {
		return decodeSpecial(set, from)
	}
	if whole == 0 {
		if len(set) > 0 {
			return nil, fmt.Errorf("%w: only the first %d bytes came", errRecord, len(set))
		}
		return nil, nil
	}
	d := decoder{from: from, records: make([]Record, 0, records)}
	for set = set[:whole]; len(set) > 0; {
		length := batchLength32(set)
		if err := d.batch(set[:length]); err != nil {
			return d.records, err
		}
		set = set[length:]
	}
	return d.records, nil
}

// batchLength32 is the length of the batch with which set begins, header included.
func batchLength32(set []byte) int {
	return batchLengthAt + 4 + int(int32(binary.BigEndian.Uint32(set[batchLengthAt:])))
}

// survey returns how many bytes are whole batches, how many records there are in
// them, and whether only the library can read one of them.
func survey(set []byte) (whole, records int, plain bool) {
	for len(set)-whole > batchMagicAt {
		rest := set[whole:]
		if rest[batchMagicAt] != batchMagic {
			return whole, records, false
		}
		length := 0
		if len(rest) >= batchHeader {
			length = batchLength32(rest)
		}
		if length < batchHeader || length > len(rest) {
			break // the broker cuts off what is too much
		}
		if rest[batchSummedAt+1]&batchSpecial != 0 {
			return whole, records, false
		}
		count := int(int32(binary.BigEndian.Uint32(rest[batchCountAt:])))
		records += max(0, min(count, (length-batchHeader)/leastRecord))
		whole += length
	}
	return whole, records, true
}

// decoder copies records out of an answer.
type decoder struct {
	from    int64
	records []Record
	chunk   []byte // what is left of the last one
}

func (d *decoder) batch(b []byte) error {
	if binary.BigEndian.Uint32(b[batchSumAt:]) != checksum(b[batchSummedAt:]) {
		return errChecksum
	}
	first := int64(binary.BigEndian.Uint64(b))
	if first+int64(int32(binary.BigEndian.Uint32(b[batchLastAt:]))) < d.from {
		return nil
	}
	began := int64(binary.BigEndian.Uint64(b[batchTimeAt:]))
	count := int(int32(binary.BigEndian.Uint32(b[batchCountAt:])))
	rest := fields{rest: b[batchHeader:]}
	for range count {
		if err := d.record(&rest, first, began); err != nil {
			return err
		}
	}
	return nil
}

func (d *decoder) record(batch *fields, first, began int64) error {
	r := fields{rest: batch.bytes()}
	r.skip(1) // attributes
	at := began + r.varint()
	offset := first + r.varint()
	key, value := r.bytes(), r.bytes()
	headers := r.headers()
	if batch.bad || r.bad {
		return errRecord
	}
	if offset < d.from {
		return nil
	}
	memory := d.room(len(key)+len(value), len(batch.rest))
	record := Record{Offset: offset, Key: memory[:len(key):len(key)], Value: memory[len(key):]}
	copy(record.Key, key)
	copy(record.Value, value)
	if len(headers) > 0 {
		record.Report = readReport(headers, time.UnixMilli(at))
	}
	d.records = append(d.records, record)
	return nil
}

// room returns so many bytes; so many more are to come.
func (d *decoder) room(n, more int) []byte {
	if n > len(d.chunk) {
		d.chunk = make([]byte, max(n, min(n+more, chunkBytes)))
	}
	memory := d.chunk[:n:n]
	d.chunk = d.chunk[n:]
	return memory
}

// fields reads what records are made up of. After the first mistake it reads zeros.
type fields struct {
	rest []byte
	bad  bool
}

func (f *fields) skip(n int) { f.take(int64(n)) }

func (f *fields) take(n int64) []byte {
	if n < 0 || n > int64(len(f.rest)) {
		f.rest, f.bad = nil, true
		return nil
	}
	taken := f.rest[:n]
	f.rest = f.rest[n:]
	return taken
}

func (f *fields) varint() int64 {
	v, n := binary.Varint(f.rest)
	if n <= 0 {
		f.rest, f.bad = nil, true
		return 0
	}
	f.rest = f.rest[n:]
	return v
}

// bytes reads a length and as many bytes; -1 is nothing.
func (f *fields) bytes() []byte {
	n := f.varint()
	if n == -1 {
		return nil
	}
	return f.take(n)
}

func (f *fields) headers() []kafka.Header {
	n := f.varint()
	if n < 0 || n > int64(len(f.rest)/2) { // two lengths each
		f.rest, f.bad = nil, true
		return nil
	}
	var headers []kafka.Header
	for range n {
		headers = append(headers, kafka.Header{Key: string(f.bytes()), Value: f.bytes()})
	}
	return headers
}

// decodeSpecial reads what is compressed, or was written by something very old.
func decodeSpecial(set []byte, from int64) ([]Record, error) {
	size := binary.BigEndian.AppendUint32(nil, uint32(len(set)))
	var records protocol.RecordSet
	if _, err := records.ReadFrom(bufio.NewReader(io.MultiReader(bytes.NewReader(size), bytes.NewReader(set)))); err != nil {
		return nil, err
	}
	if records.Records == nil {
		return nil, fmt.Errorf("%w: only the first %d bytes came", errRecord, len(set))
	}
	var list []Record
	for {
		r, err := records.Records.ReadRecord()
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return list, err
		}
		record, err := copyRecord(r)
		if err != nil {
			return list, err
		}
		if record.Offset >= from { // the broker sends whole batches, also the part before
			list = append(list, record)
		}
	}
}

// copyRecord takes a record out of the library's pages and gives these back.
func copyRecord(r *kafka.Record) (Record, error) {
	keyLength, valueLength := length(r.Key), length(r.Value)
	buffer := make([]byte, keyLength+valueLength)
	record := Record{Offset: r.Offset, Key: buffer[:keyLength:keyLength], Value: buffer[keyLength:]}
	err := errors.Join(drain(r.Key, record.Key), drain(r.Value, record.Value))
	if len(r.Headers) > 0 {
		record.Report = readReport(r.Headers, r.Time)
	}
	return record, err
}

func length(b kafka.Bytes) int {
	if b == nil {
		return 0
	}
	return b.Len()
}

func drain(from kafka.Bytes, into []byte) error {
	if from == nil {
		return nil
	}
	_, err := io.ReadFull(from, into)
	return errors.Join(err, from.Close())
}
