package client

import (
	"bytes"
	"maps"
	"slices"
	"testing"
	"time"
)

// holds returns the keys that an outbox file of these bytes holds, in order, and
// up to where it is whole.
func holds(t *testing.T, b []byte) ([]uint64, int64, error) {
	t.Helper()
	o := &FileOutbox{live: map[uint64]span{}}
	good, err := o.replay(b)
	keys := slices.SortedFunc(maps.Keys(o.live), func(a, b uint64) int { return int(o.live[a].at - o.live[b].at) })
	used := int64(0)
	for _, where := range o.live {
		used += where.length
		if where.at < int64(len(fileMagic)) || where.at+where.length > good {
			t.Errorf("a record lies at %+v of %d good bytes", where, good)
		}
	}
	if used != o.used {
		t.Errorf("%d bytes are used, not %d", used, o.used)
	}
	return keys, good, err
}

func FuzzOutboxReplaysWhatIsWhole(f *testing.F) {
	whole := []byte(fileMagic)
	for key := range uint64(3) {
		b, err := encodeAdd(&Pending{Key: key, To: []string{"ANZ-1"}, Content: "x", ID: "i"})
		if err != nil {
			f.Fatal(err)
		}
		whole = append(whole, b...)
	}
	whole = append(whole, encodeRecord([]byte{recordRemove, 0, 0, 0, 0, 0, 0, 0, 1})...)
	f.Add(whole)
	f.Add(whole[:len(whole)-5])
	f.Add([]byte(fileMagic + "\xff\xff\xff\xff\x00\x00\x00\x00"))
	f.Add(append([]byte(fileMagic), encodeRecord([]byte{recordAdd, '{', '}'})...))
	f.Add([]byte("Dear Sir or Madam"))
	f.Fuzz(func(t *testing.T, b []byte) {
		keys, good, err := holds(t, b)
		if err != nil {
			if bytes.HasPrefix(b, []byte(fileMagic)) || len(keys) > 0 {
				t.Fatal(err)
			}
			return
		}
		if good > int64(len(b)) {
			t.Fatalf("%d of %d bytes are good", good, len(b))
		}
		const key = 1 << 60
		added, err := encodeAdd(&Pending{Key: key, To: []string{"ANZ-1"}})
		if err != nil {
			t.Fatal(err)
		}
		want := append(slices.DeleteFunc(keys, func(k uint64) bool { return k == key }), key)
		again, all, err := holds(t, append(slices.Clone(b[:good]), added...))
		if err != nil || !slices.Equal(again, want) || all != good+int64(len(added)) {
			t.Fatalf("it held %v, with one more %v; %d bytes are good of %d, %v", keys, again, all, good+int64(len(added)), err)
		}
	})
}

func FuzzFramesOfServers(f *testing.F) {
	for _, frame := range []string{
		`{"type":"MESSAGE","data":{"from":"ANZ-1","content":"x"},"reference":"r","id":"a","createdAt":1,"seq":1,"late":true}`,
		`{"type":"MESSAGE_CONFIRMATION","data":{"reference":"r"},"id":"b","seq":2}`,
		`{"type":"USER_CONNECTED","data":{"userId":"ANZ-1"},"id":"c","seq":18446744073709551615}`,
		`{"type":"MESSAGE_ACCEPTED","data":{"reference":"r","id":"d"}}`,
		`{"type":"DELIVER_FAILED","data":{"code":"QUEUE_UNAVAILABLE","retryable":true,"retryAfterMs":-9223372036854775808},"reference":"r"}`,
		`{"type":"INVALID_MESSAGE","data":{"code":"BAD_JSON","message":"x"}}`,
		`{"type":"GO_AWAY","data":{"reason":"x","reconnectInMs":9223372036854775807}}`,
		`{"type":"NEW","seq":3}`, `[]`, `null`,
	} {
		f.Add([]byte(frame), []byte(frame))
	}
	f.Fuzz(func(t *testing.T, one, two []byte) {
		cfg := Config{URLs: []string{"ws://h:1"}, AppID: "a", UserID: "ANZ-1"}
		if err := cfg.complete(); err != nil {
			t.Fatal(err)
		}
		cfg.Confirmed, cfg.Presence = func(Confirmation) {}, func(PresenceEvent) {}
		c := &Client{
			cfg: cfg, log: cfg.Log, line: newLineup(), closing: map[string]chan *SendError{}, seen: NewMemory(8),
			inbox: newInbox(), events: newEvents(), unproved: newConfirmations(),
		}
		cn := &conn{wake: make(chan struct{}, 1)}
		c.conn = cn
		it := newItem(&Pending{To: []string{"ANZ-2"}, Reference: "r"}, c, false)
		c.enterLocked(it)
		c.line.next()
		highest := uint64(0)
		for _, b := range [][]byte{one, two} {
			frame, err := decode(b)
			if err != nil {
				return
			}
			highest = max(highest, frame.Seq)
			c.handle(cn, frame)
		}
		c.gather(cn, time.Now())
		if upTo := cn.acks.upTo(); upTo > highest || cn.acks.sent > highest {
			t.Errorf("acknowledged up to %d of %d", upTo, highest)
		}
		if n := len(c.inbox.queue) + len(c.events.queue); n > 0 && len(cn.acks.open) > n {
			t.Errorf("%d are open, %d wait", len(cn.acks.open), n)
		}
	})
}
