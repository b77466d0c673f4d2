// Package relay is the yardstick of the bench: the least that anybody would write who
// wants websocket clients to send each other messages, in one process, with
// coder/websocket and encoding/json. It passes frames on at once. There is no queue,
// no store, no proof, nobody is asked who they are, and what cannot be written is lost.
package relay

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/coder/websocket"
)

const (
	frameLimit   = 1 << 20
	loginTimeout = 10 * time.Second
)

// Relay passes messages on. Its methods may be called by any goroutine.
type Relay struct {
	listener net.Listener

	mu    sync.Mutex
	users map[string]*websocket.Conn // guarded by mu; the last connection of each
	open  map[*websocket.Conn]bool   // guarded by mu; all of them
	ended bool                       // guarded by mu; there are no more
}

// New listens on HOST:PORT; port 0 picks a free one.
func New(addr string) (*Relay, error) {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &Relay{listener: listener, users: map[string]*websocket.Conn{}, open: map[*websocket.Conn]bool{}}, nil
}

// URL is where clients connect.
func (r *Relay) URL() string { return "ws://" + r.listener.Addr().String() + "/ws" }

// Run serves until ctx ends.
func (r *Relay) Run(ctx context.Context) error {
	// One that can end would cost each read and write something.
	lasting := context.WithoutCancel(ctx)
	var serving sync.WaitGroup
	handler := http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		serving.Add(1)
		defer serving.Done()
		ws, err := websocket.Accept(w, request, &websocket.AcceptOptions{InsecureSkipVerify: true})
		if err != nil {
			return // it has been answered
		}
		r.serve(lasting, ws)
	})
	server := &http.Server{Handler: handler, ReadHeaderTimeout: loginTimeout, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	stop := context.AfterFunc(ctx, func() { _ = server.Close(); r.end() })
	defer stop()
	err := server.Serve(r.listener)
	serving.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// end closes all connections.
func (r *Relay) end() {
	r.mu.Lock()
	r.ended = true
	open := slices.Collect(maps.Keys(r.open))
	r.mu.Unlock()
	for _, ws := range open {
		_ = ws.CloseNow()
	}
}

// enter notes a connection. It is false when there are to be no more.
func (r *Relay) enter(ws *websocket.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.ended {
		r.open[ws] = true
	}
	return !r.ended
}

// leave forgets a connection.
func (r *Relay) leave(user string, ws *websocket.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, ws)
	if r.users[user] == ws {
		delete(r.users, user)
	}
}

// incoming is a frame of a client, whichever.
type incoming struct {
	Type string `json:"type"`
	Data struct {
		AppID   string    `json:"appId"`
		UserID  string    `json:"userId"`
		To      receivers `json:"to"`
		Content string    `json:"content"`
	} `json:"data"`
	Reference *string `json:"reference"`
	Confirm   *bool   `json:"confirmationEnabled"`
}

// receivers are one, or an array of them.
type receivers []string

// UnmarshalJSON reads both forms.
func (r *receivers) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		*r = receivers{""}
		return json.Unmarshal(b, &(*r)[0])
	}
	return json.Unmarshal(b, (*[]string)(r))
}

// outgoing is a frame of the relay.
type outgoing struct {
	Type      string  `json:"type"`
	Data      any     `json:"data"`
	Reference *string `json:"reference,omitempty"`
}

type (
	loginReply struct {
		AppID           string `json:"appId"`
		UserID          string `json:"userId"`
		IsAuthenticated bool   `json:"isAuthenticated"`
	}
	delivered struct {
		From    string `json:"from"`
		Content string `json:"content"`
	}
	confirmation struct {
		Reference string `json:"reference"`
	}
)

// serve is one connection, up to its end.
func (r *Relay) serve(ctx context.Context, ws *websocket.Conn) {
	defer func() { _ = ws.CloseNow() }()
	ws.SetReadLimit(frameLimit)
	user := ""
	if !r.enter(ws) {
		return
	}
	defer func() { r.leave(user, ws) }()
	for {
		_, b, err := ws.Read(ctx)
		if err != nil {
			break
		}
		var f incoming
		if json.Unmarshal(b, &f) != nil {
			break
		}
		if f.Type == "AUTH_CLIENT" && user == "" {
			if user = r.login(ctx, ws, f); user == "" {
				break
			}
			continue
		}
		if user == "" || r.pass(ctx, ws, user, f) != nil {
			break
		}
	}
}

// login takes anybody in. It returns the user, empty if that cannot be told.
func (r *Relay) login(ctx context.Context, ws *websocket.Conn, f incoming) string {
	user := f.Data.UserID
	if user == "" {
		return ""
	}
	r.mu.Lock()
	r.users[user] = ws
	r.mu.Unlock()
	if send(ctx, ws, outgoing{Type: "AUTH_CLIENT_REPLY", Data: loginReply{f.Data.AppID, user, true}}) != nil {
		return ""
	}
	return user
}

// pass gives a message to those it is for. Nobody hears of those who are not there.
func (r *Relay) pass(ctx context.Context, ws *websocket.Conn, from string, f incoming) error {
	if f.Type != "MESSAGE" && f.Type != "GROUP_MESSAGE" {
		return nil
	}
	b, err := json.Marshal(outgoing{"MESSAGE", delivered{from, f.Data.Content}, f.Reference})
	if err != nil {
		return err
	}
	reached := false
	for _, user := range f.Data.To {
		if to := r.find(user); to != nil && to.Write(ctx, websocket.MessageText, b) == nil {
			reached = true
		}
	}
	wanted := f.Type == "MESSAGE" && f.Reference != nil && (f.Confirm == nil || *f.Confirm)
	if !reached || !wanted {
		return nil
	}
	return send(ctx, ws, outgoing{Type: "MESSAGE_CONFIRMATION", Data: confirmation{*f.Reference}})
}

func (r *Relay) find(user string) *websocket.Conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.users[user]
}

func send(ctx context.Context, ws *websocket.Conn, f outgoing) error {
	b, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return ws.Write(ctx, websocket.MessageText, b)
}
