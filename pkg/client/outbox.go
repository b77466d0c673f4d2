package client

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// Pending is a message that is not accepted yet.
type Pending struct {
	Key       uint64   `json:"key"`  // its name in the outbox; grows
	From      string   `json:"from"` // the user who sends it
	To        []string `json:"to"`
	Group     bool     `json:"group,omitempty"`
	Content   string   `json:"content"`
	Reference string   `json:"reference,omitempty"` // the caller's; empty: none
	ID        string   `json:"id"`
	Confirm   bool     `json:"confirm,omitempty"`
}

// Outbox keeps messages from before they are sent until they are accepted. A
// client calls it from several goroutines. An outbox belongs to one user, and to
// one client at a time.
type Outbox interface {
	// Pending returns what it holds, in the order in which it was added.
	Pending() ([]Pending, error)
	// Add keeps a message under a key that it does not hold. When it returns
	// without an error the message survives a crash.
	Add(p Pending) error
	// Remove forgets a message. A crash may undo it.
	Remove(key uint64) error
}

// Errors of FileOutbox.
var (
	// ErrInUse: another process, or another FileOutbox, has the file.
	ErrInUse = errors.New("in use by another process")
	// ErrNotOutbox: the file is something else.
	ErrNotOutbox = errors.New("not an outbox")
)

// The file begins with fileMagic; then come records, each a head and a payload:
//
//	4 bytes  length of the payload, big endian
//	4 bytes  CRC-32C of the payload
//	payload  one byte recordAdd or recordRemove; then a Pending as JSON, or a key
//	         of 8 bytes, big endian
const (
	fileMagic    = "linker outbox 1\n"
	recordHead   = 8
	recordAdd    = 1
	recordRemove = 2
	maxRecord    = 4 << 20 // bytes of a payload; 4096 members of a group and a content are far less
	// compactAt is the size in bytes from which a file is written anew when
	// at least half of it is of no use.
	compactAt = 1 << 20
)

// span is where a message is in the file.
type span struct {
	at, length int64 // of the record, its head included
}

// FileOutbox is an Outbox in a file, for one process at a time. Records are
// appended and made durable before Add returns, several with one fsync; from time
// to time the file is written anew without those that are of no use.
type FileOutbox struct {
	path string // static
	torn int64  // static

	mu    sync.Mutex
	lock  *os.File        // guarded by mu; beside the file, since that is replaced; nil: closed
	file  *os.File        // guarded by mu, replaced with syncing held as well
	size  int64           // guarded by mu; of the file
	live  map[uint64]span // guarded by mu
	used  int64           // guarded by mu; bytes of live
	fault error           // guarded by mu; the file cannot be trusted any more

	syncing sync.Mutex // held around fsync, before mu
	durable int64      // guarded by syncing; up to here the file is on disk
}

// OpenOutbox opens the outbox in the file path, or makes one. Beside it lies
// path.lock while it is open. A record at the end that was not written as a whole
// is cut off: Add has not returned for it. The caller closes it, after the client.
func OpenOutbox(path string) (*FileOutbox, error) {
	o, err := openOutbox(path)
	if err != nil {
		return nil, fmt.Errorf("outbox %s: %w", path, err)
	}
	return o, nil
}

func openOutbox(path string) (*FileOutbox, error) {
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, err
	}
	o := &FileOutbox{path: path, lock: lock, live: map[uint64]span{}}
	if err := o.load(); err != nil {
		return nil, errors.Join(err, o.Close())
	}
	return o, nil
}

// load reads the file, and cuts off what is torn.
func (o *FileOutbox) load() error {
	file, err := os.OpenFile(o.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	o.file = file
	b, err := io.ReadAll(file)
	if err != nil {
		return err
	}
	if len(b) < len(fileMagic) && bytes.HasPrefix([]byte(fileMagic), b) { // new, or torn while it was made
		return o.start()
	}
	good, err := o.replay(b)
	if err != nil {
		return err
	}
	if o.torn = int64(len(b)) - good; o.torn > 0 {
		if err := file.Truncate(good); err != nil {
			return err
		}
	}
	o.size = good
	if err := file.Sync(); err != nil {
		return err
	}
	o.durable = good
	return nil
}

// start makes an empty file durable.
func (o *FileOutbox) start() error {
	if _, err := o.file.WriteAt([]byte(fileMagic), 0); err != nil {
		return err
	}
	if err := o.file.Sync(); err != nil {
		return err
	}
	o.size = int64(len(fileMagic))
	o.durable = o.size
	return syncDirectory(o.path)
}

// replay takes over what the bytes of a file hold, and returns up to where they
// are whole.
func (o *FileOutbox) replay(b []byte) (int64, error) {
	if !bytes.HasPrefix(b, []byte(fileMagic)) {
		return 0, ErrNotOutbox
	}
	at := int64(len(fileMagic))
	for {
		r, length, ok := decodeRecord(b[at:])
		if !ok {
			return at, nil
		}
		o.apply(r, span{at, length})
		at += length
	}
}

func (o *FileOutbox) apply(r record, where span) {
	old, is := o.live[r.key]
	if is {
		o.used -= old.length
		delete(o.live, r.key)
	}
	if r.added != nil {
		o.live[r.key] = where
		o.used += where.length
	}
}

// record is one entry of the file: a message that was added, or the key of one
// that was removed.
type record struct {
	key   uint64
	added *Pending // nil: removed
}

// decodeRecord reads the record that b begins with; ok is false if it is not
// whole.
func decodeRecord(b []byte) (r record, length int64, ok bool) {
	if len(b) < recordHead {
		return record{}, 0, false
	}
	n := binary.BigEndian.Uint32(b)
	if n == 0 || n > maxRecord || int(n) > len(b)-recordHead {
		return record{}, 0, false
	}
	payload := b[recordHead : recordHead+int(n)]
	if crc32.Checksum(payload, crc32.MakeTable(crc32.Castagnoli)) != binary.BigEndian.Uint32(b[4:]) {
		return record{}, 0, false
	}
	length = recordHead + int64(n)
	switch body := payload[1:]; payload[0] {
	case recordAdd:
		p := new(Pending)
		if json.Unmarshal(body, p) != nil || len(p.To) == 0 {
			return record{}, 0, false
		}
		return record{p.Key, p}, length, true
	case recordRemove:
		if len(body) != 8 {
			return record{}, 0, false
		}
		return record{key: binary.BigEndian.Uint64(body)}, length, true
	default:
		return record{}, 0, false
	}
}

func encodeRecord(payload []byte) []byte {
	b := make([]byte, recordHead, recordHead+len(payload))
	binary.BigEndian.PutUint32(b, uint32(len(payload)))
	binary.BigEndian.PutUint32(b[4:], crc32.Checksum(payload, crc32.MakeTable(crc32.Castagnoli)))
	return append(b, payload...)
}

func encodeAdd(p *Pending) ([]byte, error) {
	body, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	if len(body) >= maxRecord {
		return nil, fmt.Errorf("%w: %d bytes, expected less than %d", ErrTooLarge, len(body), maxRecord)
	}
	return encodeRecord(append([]byte{recordAdd}, body...)), nil
}

// Torn returns how many bytes OpenOutbox has cut off.
func (o *FileOutbox) Torn() int64 { return o.torn }

// Pending returns the messages that it holds, oldest first.
func (o *FileOutbox) Pending() ([]Pending, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.fault != nil {
		return nil, o.fault
	}
	list := make([]Pending, 0, len(o.live))
	for _, where := range o.inOrder() {
		b, err := o.read(where)
		if err != nil {
			return nil, err
		}
		r, _, ok := decodeRecord(b)
		if !ok || r.added == nil {
			return nil, fmt.Errorf("outbox %s: the record at %d has changed", o.path, where.at)
		}
		list = append(list, *r.added)
	}
	return list, nil
}

// inOrder returns where the messages are, oldest first.
func (o *FileOutbox) inOrder() []span {
	list := make([]span, 0, len(o.live))
	for _, where := range o.live {
		list = append(list, where)
	}
	slices.SortFunc(list, func(a, b span) int { return int(a.at - b.at) })
	return list
}

func (o *FileOutbox) read(where span) ([]byte, error) {
	b := make([]byte, where.length)
	if _, err := o.file.ReadAt(b, where.at); err != nil {
		return nil, fmt.Errorf("outbox %s: %w", o.path, err)
	}
	return b, nil
}

// Add keeps a message. When it returns without an error, the message is on disk.
// After an error of the disk nothing more is taken.
func (o *FileOutbox) Add(p Pending) error {
	b, err := encodeAdd(&p)
	if err != nil {
		return err
	}
	end, err := o.append(b, record{p.Key, &p})
	if err != nil {
		return err
	}
	return o.sync(end)
}

// Remove forgets a message. It does not wait for the disk.
func (o *FileOutbox) Remove(key uint64) error {
	payload := binary.BigEndian.AppendUint64([]byte{recordRemove}, key)
	_, err := o.append(encodeRecord(payload), record{key: key})
	if err != nil {
		return err
	}
	return o.compact()
}

// append writes a record and returns where it ends.
func (o *FileOutbox) append(b []byte, r record) (int64, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.fault != nil {
		return 0, o.fault
	}
	if _, err := o.file.WriteAt(b, o.size); err != nil {
		// What was written in part is overwritten by the next record, or torn.
		return 0, err
	}
	o.apply(r, span{o.size, int64(len(b))})
	o.size += int64(len(b))
	return o.size, nil
}

// sync returns when the file is on disk up to end. Whoever comes first does it
// for all who wait.
func (o *FileOutbox) sync(end int64) error {
	o.syncing.Lock()
	defer o.syncing.Unlock()
	o.mu.Lock()
	file, size, fault := o.file, o.size, o.fault
	o.mu.Unlock()
	switch {
	case fault != nil:
		return fault
	case o.durable >= end:
		return nil
	}
	if err := file.Sync(); err != nil {
		return o.distrust(err)
	}
	o.durable = size
	return nil
}

// distrust takes nothing more: after a failed fsync nobody knows what the disk
// has.
func (o *FileOutbox) distrust(err error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fault = fmt.Errorf("outbox %s: %w", o.path, err)
	return o.fault
}

// compact writes the file anew if at least half of it is of no use.
func (o *FileOutbox) compact() error {
	o.mu.Lock()
	due := o.due()
	o.mu.Unlock()
	if !due {
		return nil
	}
	o.syncing.Lock()
	defer o.syncing.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.fault != nil || !o.due() {
		return o.fault
	}
	return o.rewrite()
}

func (o *FileOutbox) due() bool { return o.size >= compactAt && o.used <= o.size/2 }

// rewrite replaces the file by one that holds only what is live. A crash leaves
// the old one or the new one.
func (o *FileOutbox) rewrite() error {
	fresh, err := os.OpenFile(o.path+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	size, live, err := o.copyLive(fresh)
	if err == nil {
		err = fresh.Sync()
	}
	if err == nil {
		err = os.Rename(o.path+".new", o.path)
	}
	if err != nil {
		return errors.Join(err, fresh.Close()) // the old file is as it was
	}
	old := o.file
	o.file, o.size, o.live, o.durable = fresh, size, live, size
	if err := errors.Join(syncDirectory(o.path), old.Close()); err != nil {
		o.fault = fmt.Errorf("outbox %s: %w", o.path, err)
		return o.fault
	}
	return nil
}

func (o *FileOutbox) copyLive(fresh *os.File) (int64, map[uint64]span, error) {
	keys := make(map[int64]uint64, len(o.live))
	for key, where := range o.live {
		keys[where.at] = key
	}
	live := make(map[uint64]span, len(o.live))
	at := int64(len(fileMagic))
	if _, err := fresh.WriteAt([]byte(fileMagic), 0); err != nil {
		return 0, nil, err
	}
	for _, where := range o.inOrder() {
		b, err := o.read(where)
		if err != nil {
			return 0, nil, err
		}
		if _, err := fresh.WriteAt(b, at); err != nil {
			return 0, nil, err
		}
		live[keys[where.at]] = span{at, where.length}
		at += where.length
	}
	return at, live, nil
}

// Close closes the file and lets others have it.
func (o *FileOutbox) Close() error {
	o.syncing.Lock()
	defer o.syncing.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.lock == nil {
		return nil
	}
	var err error
	if o.file != nil {
		err = o.file.Close()
	}
	err = errors.Join(err, unlockFile(o.lock))
	o.lock = nil
	o.fault = fmt.Errorf("outbox %s: %w", o.path, os.ErrClosed)
	return err
}

// syncDirectory makes the name of a file durable.
func syncDirectory(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
