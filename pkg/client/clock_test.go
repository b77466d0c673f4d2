package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/linkerhq/linker/pkg/client"
)

// pipes is a network without a network: connections are pipes in this process, so
// that the clock of a test can be a fake one.
type pipes struct {
	conns chan net.Conn // never closed
	once  sync.Once
	ended chan struct{} // closed by Close
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), ended: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.ended:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.ended) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes"} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.conns <- there:
		return here, nil
	case <-p.ended:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// serve runs a server on pipes, whose sockets are let in and then given to each;
// they end when it returns.
func serve(t *testing.T, each func(n int, ws *websocket.Conn)) client.Config {
	t.Helper()
	listener := newPipes()
	var n atomic.Int64
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer ws.CloseNow() //nolint:errcheck // it may be closed
		if _, _, err := ws.Read(context.Background()); err != nil {
			return
		}
		b, err := json.Marshal(frame{Type: "AUTH_CLIENT_REPLY", Data: map[string]any{"isAuthenticated": true}})
		if err != nil || ws.Write(context.Background(), websocket.MessageText, b) != nil {
			return
		}
		each(int(n.Add(1)), ws)
	})}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(listener)
	}()
	transport := &http.Transport{DialContext: listener.dial}
	t.Cleanup(func() {
		_ = server.Close()
		<-ended
		transport.CloseIdleConnections()
	})
	cfg := config("ws://linker.test", "ANZ-1")
	cfg.HTTPClient = &http.Client{Transport: transport}
	return cfg
}

// reads reads until the connection ends.
func reads(ws *websocket.Conn) {
	for {
		if _, _, err := ws.Read(context.Background()); err != nil {
			return
		}
	}
}

func TestASilentConnectionIsGivenUpAfterFiftySeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan struct{})
		cfg := serve(t, func(n int, ws *websocket.Conn) {
			if n == 1 { // reads nothing, and so answers nothing
				<-ended
				return
			}
			reads(ws)
		})
		states := make(chan client.State, 8)
		cfg.State = func(s client.State) { states <- s }
		began := time.Now()
		c, err := client.Connect(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []client.State{client.Connected, client.Disconnected, client.Connected} {
			if got := <-states; got != want {
				t.Errorf("got %v, want %v", got, want)
			}
			if want == client.Disconnected {
				if took := time.Since(began); took < 45*time.Second || took > 55*time.Second {
					t.Errorf("it was given up after %v", took)
				}
			}
		}
		close(ended)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestAConnectionThatShowsSignsOfLifeStays(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := serve(t, func(_ int, ws *websocket.Conn) { reads(ws) }) // answers pings, says nothing
		c, err := client.Connect(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if got := c.Stats(); got.Logins != 1 {
			t.Errorf("got %+v", got)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestAServerThatNeverAnswersALoginIsLeftAfterHalfAMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		listener := newPipes()
		over := make(chan struct{})
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if ws, err := websocket.Accept(w, r, nil); err == nil {
				reads(ws)
			}
		})}
		go func() { defer close(over); _ = server.Serve(listener) }()
		cfg := config("ws://linker.test", "ANZ-1")
		transport := &http.Transport{DialContext: listener.dial}
		cfg.HTTPClient = &http.Client{Transport: transport}
		ctx, cancel := context.WithTimeout(t.Context(), 31*time.Second)
		defer cancel()
		_, err := client.Connect(ctx, cfg)
		if !errors.Is(err, context.DeadlineExceeded) || err.Error() == "connect: context deadline exceeded" {
			t.Errorf("got %v, want what was wrong as well", err)
		}
		_ = server.Close()
		<-over
		transport.CloseIdleConnections()
	})
}

func TestAClientThatIsSentInCirclesPausesAfterThreeTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		listener := newPipes()
		over := make(chan struct{})
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ws, err := websocket.Accept(w, r, nil)
			if err != nil {
				return
			}
			b, err := json.Marshal(frame{Type: "AUTH_CLIENT_REPLY", Data: map[string]any{
				"isAuthenticated": false, "reason": "WRONG_DOMAIN", "domain": "elsewhere", "urls": []string{"ws://linker.test"},
			}})
			if err != nil {
				return
			}
			if _, _, err := ws.Read(context.Background()); err != nil {
				return
			}
			if ws.Write(context.Background(), websocket.MessageText, b) == nil {
				reads(ws)
			}
		})}
		go func() { defer close(over); _ = server.Serve(listener) }()
		transport := &http.Transport{DialContext: listener.dial}
		cfg := config("ws://linker.test", "ANZ-1")
		cfg.HTTPClient = &http.Client{Transport: transport}
		cfg.MinPause, cfg.MaxPause = 10000*time.Hour, 10000*time.Hour // drawn below a second once in a life
		logins := 0
		cfg.Token = func(context.Context) (string, error) { logins++; return "", nil }
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := client.Connect(ctx, cfg); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), `"elsewhere"`) {
			t.Errorf("got %v", err)
		}
		if logins != 4 {
			t.Errorf("it tried %d times, want 4", logins)
		}
		_ = server.Close()
		<-over
		transport.CloseIdleConnections()
	})
}

func TestPausesGrowAndAServerCanAskForLongerOnes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		listener := newPipes()
		over := make(chan struct{})
		var times []time.Time
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			times = append(times, time.Now())
			if len(times) == 1 {
				w.Header().Set("Retry-After", "60")
			}
			w.Header().Set("Connection", "close")
			w.WriteHeader(http.StatusServiceUnavailable)
		})}
		go func() { defer close(over); _ = server.Serve(listener) }()
		cfg := config("ws://linker.test", "ANZ-1")
		cfg.MinPause, cfg.MaxPause = time.Second, 16*time.Second
		transport := &http.Transport{DialContext: listener.dial}
		cfg.HTTPClient = &http.Client{Transport: transport}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, err := client.Connect(ctx, cfg); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if first := times[1].Sub(times[0]); first < time.Minute || first > time.Minute+time.Second {
			t.Errorf("the pause that the server asked for was %v", first)
		}
		for i := 2; i < len(times); i++ {
			if pause := times[i].Sub(times[i-1]); pause > 16*time.Second || i == 2 && pause > 2*time.Second {
				t.Errorf("pause %d was %v", i, pause)
			}
		}
		if n := len(times); n < 300 || n > 700 { // on average every 8 s
			t.Errorf("it tried %d times in an hour", n)
		}
		_ = server.Close()
		<-over
		transport.CloseIdleConnections()
	})
}

func TestAcknowledgementsOfABusyReaderGoOutTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var upTo []int
		cfg := serve(t, func(_ int, ws *websocket.Conn) {
			for n := range 300 {
				b, _ := json.Marshal(frame{Type: "MESSAGE", ID: string(rune('a' + n)), Seq: uint64(n + 1), Data: map[string]any{"from": "ANZ-2"}})
				if ws.Write(context.Background(), websocket.MessageText, b) != nil {
					return
				}
			}
			for {
				_, b, err := ws.Read(context.Background())
				if err != nil {
					return
				}
				var f frame
				if json.Unmarshal(b, &f) == nil && f.Type == "MESSAGE_ACK" {
					mu.Lock()
					upTo = append(upTo, int(f.Data["upTo"].(float64)))
					mu.Unlock()
				}
			}
		})
		c, err := client.Connect(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		n := 0
		for range c.Messages(t.Context()) {
			if n++; n > 100 {
				time.Sleep(10 * time.Millisecond) // the work
			}
			if n == 300 {
				break
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		if len(upTo) < 300/64 || len(upTo) > 300/64+2+200/5 || upTo[len(upTo)-1] != 300 {
			t.Errorf("%d acknowledgements: %v", len(upTo), upTo)
		}
	})
}
