package session

import (
	"fmt"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/wire"
)

// Cause says why a session has ended. The list is closed.
type Cause string

// The causes.
const (
	CausePeer         Cause = "peer"     // the client closed, or its connection broke
	CauseProtocol     Cause = "protocol" // against RFC 6455, or binary, or not UTF-8
	CauseTooLarge     Cause = "too_large"
	CauseBadFrames    Cause = "bad_frames"
	CauseLoginTimeout Cause = "login_timeout"
	CauseRefused      Cause = "refused"     // the login, by a decision
	CauseUnavailable  Cause = "unavailable" // the login, for want of something
	CauseSlow         Cause = "reading_slowly"
	CauseSilent       Cause = "silent"
	CauseFast         Cause = "sending_fast"
	CauseMaster       Cause = "master"
	CauseMoved        Cause = "moved"
	CauseShutdown     Cause = "shutdown"
	CauseAsleep       Cause = "asleep" // the connector itself did not run for too long
)

// orderly says whether the session ends by a decision of ours that is no fault of
// its client, which reads on until the end.
func (c Cause) orderly() bool {
	switch c {
	case CauseMaster, CauseMoved, CauseShutdown:
		return true
	case CausePeer, CauseProtocol, CauseTooLarge, CauseBadFrames, CauseLoginTimeout, CauseRefused, CauseUnavailable,
		CauseSlow, CauseSilent, CauseFast, CauseAsleep:
	}
	return false
}

// Metrics are the counters of all sessions of a connector.
type Metrics struct {
	in         map[wire.Type]prometheus.Counter
	out        map[wire.Type]prometheus.Counter
	otherIn    prometheus.Counter
	otherOut   prometheus.Counter
	bytesIn    prometheus.Counter
	bytesOut   prometheus.Counter
	sockets    prometheus.Gauge
	ended      map[Cause]prometheus.Counter
	invalid    map[wire.Code]prometheus.Counter
	proofs     prometheus.Counter
	pings      prometheus.Counter
	duplicates prometheus.Counter
	fastDrops  prometheus.Counter
	unsent     prometheus.Counter
}

// NewMetrics creates every counter and registers it.
func NewMetrics(r prometheus.Registerer) (*Metrics, error) {
	frames := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "linker_session_frames_total", Help: "Client frames by direction and type."}, []string{"direction", "type"})
	bytes := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "linker_session_socket_bytes_total", Help: "Bytes of websockets by direction."}, []string{"direction"})
	ended := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "linker_session_ended_total", Help: "Sockets that ended, by cause."}, []string{"cause"})
	invalid := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "linker_session_invalid_frames_total", Help: "Frames answered with INVALID_MESSAGE, by code."}, []string{"code"})
	drops := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "linker_session_dropped_frames_total", Help: "Frames not written, by reason: fast_queue_full, ended (RELIABLE ones are kept by the lane)."}, []string{"reason"})
	m := &Metrics{
		in: make(map[wire.Type]prometheus.Counter), out: make(map[wire.Type]prometheus.Counter),
		otherIn: frames.WithLabelValues("in", "other"), otherOut: frames.WithLabelValues("out", "other"),
		bytesIn: bytes.WithLabelValues("in"), bytesOut: bytes.WithLabelValues("out"),
		sockets:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "linker_session_sockets", Help: "Open sockets, logged in or not."}),
		ended:      make(map[Cause]prometheus.Counter),
		invalid:    make(map[wire.Code]prometheus.Counter),
		proofs:     prometheus.NewCounter(prometheus.CounterOpts{Name: "linker_session_proofs_total", Help: "Proofs of receipt that moved a session on."}),
		pings:      prometheus.NewCounter(prometheus.CounterOpts{Name: "linker_session_pings_total", Help: "Pings written."}),
		duplicates: prometheus.NewCounter(prometheus.CounterOpts{Name: "linker_session_duplicates_total", Help: "Deliveries not written because the socket has the message."}),
		fastDrops:  drops.WithLabelValues("fast_queue_full"),
		unsent:     drops.WithLabelValues("ended"),
	}
	for _, t := range []wire.Type{wire.TypeAuthClient, wire.TypeMessage, wire.TypeGroupMessage, wire.TypeCloseConnection, wire.TypeFetch, wire.TypeMessageAck} {
		m.in[t] = frames.WithLabelValues("in", string(t))
	}
	for _, t := range []wire.Type{
		wire.TypeMessage, wire.TypeAuthClientReply, wire.TypeAuthRequired, wire.TypeConfirmation, wire.TypeUserConnected, wire.TypeUserDisconnected,
		wire.TypeFetchComplete, wire.TypeMessageAccepted, wire.TypeInvalidMessage, wire.TypeDeliverFailed, wire.TypeMissingAvailable, wire.TypeGoAway,
	} {
		m.out[t] = frames.WithLabelValues("out", string(t))
	}
	for _, c := range []Cause{
		CausePeer, CauseProtocol, CauseTooLarge, CauseBadFrames, CauseLoginTimeout, CauseRefused, CauseUnavailable,
		CauseSlow, CauseSilent, CauseFast, CauseMaster, CauseMoved, CauseShutdown, CauseAsleep,
	} {
		m.ended[c] = ended.WithLabelValues(string(c))
	}
	for _, c := range []wire.Code{
		wire.CodeBadJSON, wire.CodeDuplicateKey, wire.CodeUnknownType, wire.CodeForbiddenType, wire.CodeInvalidField,
		wire.CodeInvalidUserID, wire.CodeTooLarge, wire.CodeAlreadyAuthenticated, wire.CodeRateLimited,
	} {
		m.invalid[c] = invalid.WithLabelValues(string(c))
	}
	for _, c := range []prometheus.Collector{frames, bytes, ended, invalid, drops, m.sockets, m.proofs, m.pings, m.duplicates} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register session metrics: %w", err)
		}
	}
	return m, nil
}

func (m *Metrics) countIn(t wire.Type) {
	c, known := m.in[t]
	if !known {
		c = m.otherIn
	}
	c.Inc()
}

// countOut counts a frame by the type that it begins with.
func (m *Metrics) countOut(frame []byte) {
	const head = len(`{"type":"`)
	for i := head; i < len(frame); i++ {
		if frame[i] != '"' {
			continue
		}
		if c, known := m.out[wire.Type(frame[head:i])]; known {
			c.Inc()
			return
		}
		break
	}
	m.otherOut.Inc()
}

// Buffers lends byte slices and frames to readers and writers, so that an idle socket holds
// none. One serves all sessions of a connector.
type Buffers struct {
	pool   sync.Pool
	frames sync.Pool
}

// keptBuffer is the largest buffer that is kept.
const keptBuffer = 2 * writeSize

func (b *Buffers) get() *[]byte {
	if buf, ok := b.pool.Get().(*[]byte); ok {
		return buf
	}
	buf := make([]byte, 0, readSize)
	return &buf
}

func (b *Buffers) getFrame() *wire.Frame {
	if f, ok := b.frames.Get().(*wire.Frame); ok {
		return f
	}
	return new(wire.Frame)
}

func (b *Buffers) putFrame(f *wire.Frame) {
	*f = wire.Frame{}
	b.frames.Put(f)
}

func (b *Buffers) put(buf *[]byte) {
	if cap(*buf) > keptBuffer {
		return
	}
	*buf = (*buf)[:0]
	b.pool.Put(buf)
}
