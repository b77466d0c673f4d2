package workload_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/linkerhq/linker/standalone/internal/bench/figures"
	"github.com/linkerhq/linker/standalone/internal/bench/workload"
)

// needLinux skips a test where there is no generator.
func needLinux(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("the load generator needs Linux")
	}
}

// received is a frame that a fake server got.
type received struct {
	Type string
	Data struct {
		UserID, Content string
		To              any
		UpTo            int64
	}
	Reference string
}

// delivery is what a server makes of it, for somebody.
func (r received) delivery(from string) string {
	return fmt.Sprintf(`{"type":"MESSAGE","data":{"from":%q,"content":%q},"reference":%q}`, from, r.Data.Content, r.Reference)
}

func (r received) confirmation() string {
	return fmt.Sprintf(`{"type":"MESSAGE_CONFIRMATION","data":{"reference":%q}}`, r.Reference)
}

// fake is a server that answers wrongly on purpose. Everybody writes to themselves.
type fake struct {
	// answer says what a user gets for the n-th frame after its login, from 1.
	answer func(user string, n int, r received) []string
	// enter says with what code a login is closed; nil, or 0: it is let in.
	enter func(user string) websocket.StatusCode
	// refused is the reason for which logins are refused; "": they are not.
	refused string
	acked   atomic.Int64 // MESSAGE_ACK frames
	pongs   atomic.Int64 // answers to pings
	pings   bool         // a ping is sent after each answer
}

// start serves up to the end of the test, and returns the URL.
func (f *fake) start(t *testing.T) string {
	t.Helper()
	var serving sync.WaitGroup
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		serving.Add(1)
		defer serving.Done()
		ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{
			OnPongReceived: func(context.Context, []byte) { f.pongs.Add(1) },
		})
		if err == nil {
			f.serve(ctx, ws)
			_ = ws.CloseNow()
		}
	}))
	t.Cleanup(func() { cancel(); server.CloseClientConnections(); server.Close(); serving.Wait() })
	return "ws" + strings.TrimPrefix(server.URL, "http") + "/ws"
}

func (f *fake) serve(ctx context.Context, ws *websocket.Conn) {
	ws.SetReadLimit(-1)
	user, n := "", 0
	write := func(text string) { _ = ws.Write(ctx, websocket.MessageText, []byte(text)) }
	var pinging sync.WaitGroup
	defer pinging.Wait()
	defer func() { _ = ws.CloseNow() }()
	for {
		_, b, err := ws.Read(ctx)
		if err != nil {
			return
		}
		var r received
		if err := json.Unmarshal(b, &r); err != nil {
			return
		}
		switch {
		case r.Type == "MESSAGE_ACK":
			f.acked.Add(1)
			continue
		case user == "":
			user = r.Data.UserID
			if f.refused != "" {
				write(fmt.Sprintf(`{"type":"AUTH_CLIENT_REPLY","data":{"isAuthenticated":false,"reason":%q}}`, f.refused))
				return
			}
			if f.enter != nil {
				if code := f.enter(user); code != 0 {
					_ = ws.Close(code, "")
					return
				}
			}
			write(`{"type":"AUTH_CLIENT_REPLY","data":{"isAuthenticated":true}}`)
			continue
		}
		n++
		for _, text := range f.answer(user, n, r) {
			if text == "close" {
				_ = ws.Close(4410, "")
				return
			}
			write(text)
		}
		if f.pings {
			pinging.Go(func() { _ = ws.Ping(ctx) })
		}
	}
}

// echo delivers everything as it should be.
func echo(user string, _ int, r received) []string { return []string{r.delivery(user)} }

// observer counts what it is told.
type observer struct{ connected, begun, ended int }

func (o *observer) Connected() { o.connected++ }
func (o *observer) Begin()     { o.begun++ }
func (o *observer) End()       { o.ended++ }

// options are those of a short run: 500 messages of 5 clients.
func options() workload.Options {
	o := workload.Defaults()
	o.Connections, o.Rate, o.Size = 5, 1000, 100
	o.Warmup, o.Duration, o.Drain = workload.Span(100*time.Millisecond), workload.Span(400*time.Millisecond), workload.Span(300*time.Millisecond)
	o.LoginWithin = workload.Span(30 * time.Second)
	return o
}

const sentByOptions = 500

// runOn runs a workload on a server.
func runOn(t *testing.T, name string, o workload.Options, url string) (figures.Run, error) {
	t.Helper()
	needLinux(t)
	w, known := workload.Find(name)
	if !known {
		t.Fatalf("there is no workload %s", name)
	}
	var seen observer
	e := workload.Env{Options: o, URLs: []string{url}, Observer: &seen, Progress: &workload.Progress{}}
	r, err := w.Run(t.Context(), e)
	if err == nil && (seen.begun != 1 || seen.ended != 1) {
		t.Errorf("the observer was told of %d begins and %d ends", seen.begun, seen.ended)
	}
	if err == nil && e.Progress.Sent.Load() != r.Sent {
		t.Errorf("the progress says %d sent of %d", e.Progress.Sent.Load(), r.Sent)
	}
	return r, err
}

func run(t *testing.T, name string, o workload.Options, f *fake) figures.Run {
	t.Helper()
	r, err := runOn(t, name, o, f.start(t))
	if err != nil {
		t.Fatal(err)
	}
	return r
}
