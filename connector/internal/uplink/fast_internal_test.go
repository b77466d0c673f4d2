package uplink

import (
	"encoding/binary"
	"errors"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/linkerhq/linker/pkg/delivery"
)

// counter is a live plane that refuses every seventh message, and checks the rest.
type counter struct {
	t     *testing.T
	calls int // guarded by the lane's lock, which is held by whoever publishes
	last  uint64
	most  int // bytes of a message of several records
	alone int // messages of one record
}

func (c *counter) Publish(_ string, data []byte) error {
	if c.calls++; c.calls%7 == 0 {
		return errors.New("away")
	}
	records := 0
	for size := len(data); len(data) > 0; records++ {
		record, rest, err := delivery.NextFast(data)
		if err != nil {
			c.t.Error(err)
			return nil
		}
		data = rest
		if n := binary.BigEndian.Uint64(record); n != c.last+1 {
			c.t.Errorf("number %d behind %d", n, c.last)
		}
		c.last++
		if records > 0 {
			c.most = max(c.most, size)
		}
	}
	if records == 1 {
		c.alone++
	}
	return nil
}

// However many publish at once, the numbers of what has left are dense and in order.
func TestFastRecordsOfManySendersAreNumberedDensely(t *testing.T) {
	t.Parallel()
	m, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	plane := &counter{t: t}
	u := &Uplink{to: Deps{Plane: plane}, metrics: m, fast: make([]fastLane, 1)}
	const senders, each = 20, 500
	var running sync.WaitGroup
	for sender := range senders {
		running.Go(func() {
			for i := range each {
				size := 8 + (sender*each+i)%3000
				if i%50 == 0 {
					size = 40_000 // travels alone
				}
				u.publish(0, fastSent{}, size, func(_, n uint64) []byte {
					record := make([]byte, size)
					binary.BigEndian.PutUint64(record, n)
					return record
				})
			}
		})
	}
	running.Wait()
	f := &u.fast[0]
	if f.n != plane.last || len(f.senders) > 0 || len(f.message) > 0 {
		t.Errorf("%d were numbered and %d have left; %d wait", f.n, plane.last, len(f.senders))
	}
	if plane.last < senders*each/2 || plane.most > delivery.MaxMessageSize+3016 || plane.alone == 0 {
		t.Errorf("%d have left, the largest message of several had %d bytes, %d messages were of one", plane.last, plane.most, plane.alone)
	}
	if sent := testutil.ToFloat64(m.fast); sent != 0 {
		t.Errorf("%v are counted of nobody", sent)
	}
}
