package kafka

import (
	"context"
	"encoding/binary"
	"hash/crc32"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

// Places in a batch of records, which is made up of the offset of the first one, the
// length of what follows, the epoch of the leader, the format, a checksum of
// what follows, attributes, the last record's number, the first and the latest
// time, three numbers of producers that want to be recognised, the number of
// records, and the records. All numbers are big-endian.
const (
	batchLengthAt = 8
	batchMagicAt  = 16
	batchSumAt    = 17
	batchSummedAt = 21 // the attributes
	batchLastAt   = 23
	batchTimeAt   = 27
	batchCountAt  = 57
	batchHeader   = 61

	// mostOverhead is what a record takes beside its key and its value, at most.
	mostOverhead = 24

	batchMagic = 2
	// What attributes may say that only the library understands: compression, and
	// markers of transactions.
	batchSpecial = 7 | 1<<5
)

// requestHeader is the length of what every request of ours begins with: its size,
// what it is, in which version, its number, and who we are.
const requestHeader = 4 + 2 + 2 + 4 + 2 + len(clientID)

// newRequest returns a request without a body. putHeader fills in the rest.
func newRequest(room []byte) []byte {
	b := append(room[:0], make([]byte, requestHeader-2-len(clientID))...)
	return appendString(b, clientID)
}

func putHeader(request []byte, key protocol.ApiKey, version int16, number int32) {
	binary.BigEndian.PutUint32(request, uint32(len(request)-4))
	binary.BigEndian.PutUint16(request[4:], uint16(key))
	binary.BigEndian.PutUint16(request[6:], uint16(version))
	binary.BigEndian.PutUint32(request[8:], uint32(number))
}

// produce appends a batch to the partition. The broker's own refusal comes apart
// from an error after which nobody knows what has happened.
func (l *leader) produce(ctx context.Context, batch []record) (offset int64, refused, err error) {
	defer l.tidy()
	l.sent.bytes = l.appendProduce(newRequest(l.sent.bytes), batch, time.Now())
	body, err := l.ask(ctx, protocol.Produce, produceVersion, l.sent.bytes, &l.got)
	if err != nil {
		return 0, nil, err
	}
	offset, refused, err = l.produced(body)
	if err != nil || refused != nil {
		l.close() // another broker may be the leader now
	}
	return offset, refused, err
}

func (l *leader) appendProduce(b []byte, batch []record, now time.Time) []byte {
	b = binary.BigEndian.AppendUint16(b, 0xffff) // no transaction
	b = appendInt16(b, int16(kafka.RequireAll))
	b = appendInt32(b, int32(requestTimeout.Milliseconds()))
	b = l.appendPlace(b)
	size := len(b)
	b = appendBatch(appendInt32(b, 0), batch, now)
	binary.BigEndian.PutUint32(b[size:], uint32(len(b)-size-4))
	return b
}

// appendPlace says one topic, and one partition of it.
func (l *leader) appendPlace(b []byte) []byte {
	b = appendInt32(b, 1)
	b = appendString(b, l.topic)
	b = appendInt32(b, 1)
	return appendInt32(b, int32(l.partition))
}

func appendBatch(b []byte, batch []record, now time.Time) []byte {
	start, millis := len(b), uint64(now.UnixMilli())
	size := batchHeader
	for i := range batch {
		size += len(batch[i].key) + len(batch[i].value) + mostOverhead
	}
	b = slices.Grow(b, size)
	b = append(b, make([]byte, batchHeader)...)
	for i := range batch {
		b = appendRecord(b, i, &batch[i])
	}
	header := b[start:]
	binary.BigEndian.PutUint32(header[batchLengthAt:], uint32(len(header)-batchLengthAt-4))
	for i := batchLengthAt + 4; i < batchMagicAt; i++ {
		header[i] = 0xff // the leader's epoch: not known
	}
	header[batchMagicAt] = batchMagic
	binary.BigEndian.PutUint32(header[batchLastAt:], uint32(len(batch)-1))
	binary.BigEndian.PutUint64(header[batchTimeAt:], millis)
	binary.BigEndian.PutUint64(header[batchTimeAt+8:], millis)
	for i := batchTimeAt + 16; i < batchCountAt; i++ {
		header[i] = 0xff // a producer that is not recognised
	}
	binary.BigEndian.PutUint32(header[batchCountAt:], uint32(len(batch)))
	binary.BigEndian.PutUint32(header[batchSumAt:], checksum(header[batchSummedAt:]))
	return b
}

// appendRecord writes the number-th record of a batch, of the same time as the
// first, without headers.
func appendRecord(b []byte, number int, r *record) []byte {
	length := 3 + varintLength(number) + varintLength(len(r.key)) + len(r.key) + varintLength(len(r.value)) + len(r.value)
	b = binary.AppendVarint(b, int64(length))
	b = append(b, 0, 0) // attributes, time
	b = binary.AppendVarint(b, int64(number))
	b = binary.AppendVarint(b, int64(len(r.key)))
	b = append(b, r.key...)
	b = binary.AppendVarint(b, int64(len(r.value)))
	b = append(b, r.value...)
	return append(b, 0)
}

// varintLength is how long a number that is not negative is as a varint.
func varintLength(n int) int {
	length := 1
	for u := uint64(n) << 1; u >= 0x80; u >>= 7 {
		length++
	}
	return length
}

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

func (l *leader) appendFetch(b []byte, from int64) []byte {
	b = appendInt32(b, -1) // not a broker
	b = appendInt32(b, int32(fetchWait.Milliseconds()))
	b = appendInt32(b, 1) // bytes at least
	b = appendInt32(b, maxFetchBytes)
	b = append(b, 0)       // also what is not committed
	b = appendInt32(b, 0)  // no session
	b = appendInt32(b, -1) // and none wanted
	b = l.appendPlace(b)
	b = appendInt32(b, -1) // whatever epoch the leader has
	b = appendInt64(b, from)
	b = appendInt64(b, -1)
	b = appendInt32(b, maxFetchBytes)
	return appendInt32(b, 0) // nothing to forget
}

func appendInt16(b []byte, n int16) []byte { return binary.BigEndian.AppendUint16(b, uint16(n)) }
func appendInt32(b []byte, n int32) []byte { return binary.BigEndian.AppendUint32(b, uint32(n)) }
func appendInt64(b []byte, n int64) []byte { return binary.BigEndian.AppendUint64(b, uint64(n)) }

func appendString(b []byte, s string) []byte { return append(appendInt16(b, int16(len(s))), s...) }
