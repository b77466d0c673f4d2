package e2e

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	linker "github.com/linkerhq/linker/pkg/client"
)

// goConfig is that of a client in Go with short pauses.
func goConfig(address, user string) linker.Config {
	return linker.Config{
		URLs: []string{address}, AppID: appID(user), UserID: user, Token: func(context.Context) (string, error) { return secretToken, nil },
		MinPause: 20 * time.Millisecond, MaxPause: 500 * time.Millisecond,
	}
}

// goConnect logs in a client in Go that is closed when the test ends.
func goConnect(t *testing.T, cfg linker.Config) *linker.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := linker.Connect(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// goTake returns the next message.
func goTake(t *testing.T, c *linker.Client) linker.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for m, err := range c.Messages(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	return linker.Message{}
}

func TestAGoClientSendsAndGetsEverything(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	sender, receiver := newUser(), newUser()
	a := goConnect(t, goConfig(shared.WebsocketURL(), sender))
	sent, err := a.Send(ctx, receiver, secretContent, linker.Reference("r-1"), linker.Confirm()) // before the receiver is there
	if err != nil {
		t.Fatal(err)
	}
	b := goConnect(t, goConfig(shared.WebsocketURL(), receiver))
	m := goTake(t, b)
	if m.From != sender || m.Content != secretContent || m.Reference != "r-1" || m.ID != sent.ID || m.Late || time.Since(m.CreatedAt) > time.Hour {
		t.Errorf("got %+v, sent %+v", m, sent)
	}
	if err := sent.Confirmed(ctx); err != nil {
		t.Error(err)
	}
	sent, err = b.Send(ctx, sender, "quick", linker.Fast(), linker.Confirm())
	if err != nil {
		t.Fatal(err)
	}
	if m := goTake(t, a); m.Content != "quick" || m.Reference != "" {
		t.Errorf("got %+v", m)
	}
	if err := sent.Confirmed(ctx); err != nil {
		t.Error(err)
	}
	if _, err := a.SendGroup(ctx, []string{sender, receiver}, "to both"); err != nil {
		t.Error(err)
	}
	for _, c := range []*linker.Client{a, b} {
		if m := goTake(t, c); m.Content != "to both" || m.From != sender {
			t.Errorf("got %+v", m)
		}
	}
	for range 2 { // the same message twice
		if _, err := a.Send(ctx, receiver, "named", linker.ID("order-7")); err != nil {
			t.Error(err)
		}
	}
	if _, err := a.Send(ctx, receiver, "the end"); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"named", "the end"} {
		if m := goTake(t, b); m.Content != want {
			t.Errorf("got %+v, want %s", m, want)
		}
	}
	var refused *linker.SendError
	if _, err := a.Send(ctx, "NOBODY-1", "x"); !errors.As(err, &refused) || refused.Code != "UNKNOWN_APP" || refused.Retryable {
		t.Errorf("got %v", err)
	}
	if _, err := a.Send(ctx, receiver, strings.Repeat("x", 64<<10)); !errors.Is(err, linker.ErrTooLarge) {
		t.Errorf("got %v", err)
	}
	if got := b.Stats(); got.Duplicates != 0 || got.Logins != 1 {
		t.Errorf("got %+v", got)
	}
}

func TestTheLargestFrameOfAGoClientIsTaken(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	user := newUser()
	c := goConnect(t, goConfig(shared.WebsocketURL(), user))
	size := 64 << 10
	for {
		content := strings.Repeat("<", size)
		_, err := c.Send(ctx, user, content)
		if errors.Is(err, linker.ErrTooLarge) {
			size--
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if m := goTake(t, c); m.Content != content {
			t.Errorf("it arrived with %d of %d bytes", len(m.Content), size)
		}
		break
	}
	if got := c.Stats(); got.Logins != 1 || size < 64<<10-300 {
		t.Errorf("of %d bytes: %+v", size, got)
	}
}

func TestAMasterInGoIsToldOfUsersAndClosesThem(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	app, master := newApp(t)
	events := make(chan linker.PresenceEvent, 16)
	cfg := goConfig(shared.WebsocketURL(), master)
	cfg.Presence = func(e linker.PresenceEvent) { events <- e }
	m := goConnect(t, cfg)
	user := userOf(app)
	c := goConnect(t, goConfig(shared.WebsocketURL(), user))
	expect := func(connected bool) {
		t.Helper()
		select {
		case e := <-events:
			if e.UserID != user || e.Connected != connected {
				t.Errorf("got %+v", e)
			}
		case <-ctx.Done():
			t.Fatal("the master is not told")
		}
	}
	expect(true)
	// A busy machine may be slower with the refusal than CloseUser is patient.
	refusedWith := func(by *linker.Client, user, code string) {
		t.Helper()
		var refused *linker.SendError
		for !errors.As(by.CloseUser(ctx, user), &refused) {
			if ctx.Err() != nil {
				t.Fatal("it is never refused")
			}
		}
		if refused.Code != code {
			t.Errorf("got %v, want %s", refused, code)
		}
	}
	refusedWith(c, master, "FORBIDDEN")
	if err := m.CloseUser(ctx, user); err != nil {
		t.Error(err)
	}
	expect(false)
	select {
	case <-c.Done():
	case <-ctx.Done():
		t.Fatal("the user is still there")
	}
	var closed *linker.CloseError
	if !errors.As(c.Err(), &closed) || closed.Code != 4410 {
		t.Errorf("got %v", c.Err())
	}
	refusedWith(m, user, "NOT_CONNECTED")
}

func TestALoginInGoThatIsRefusedSaysWhy(t *testing.T) {
	t.Parallel()
	cfg := goConfig(shared.WebsocketURL(), newUser())
	cfg.AppID = "another"
	var refused *linker.LoginError
	if _, err := linker.Connect(t.Context(), cfg); !errors.As(err, &refused) || refused.Reason != "REFUSED" {
		t.Errorf("got %v", err)
	}
}

// A user that knocks at another domain is sent home. The addresses of domains are
// names that nobody listens at; the client's dialler knows better.
func TestAGoClientGoesWhereItsUserIsAtHome(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, networkSetup{yaml: describeNetwork(2, lineOf(2))})
	places := map[string]string{}
	for i := 1; i <= 2; i++ {
		listens, err := url.Parse(n.place(i).Websocket)
		if err != nil {
			t.Fatal(err)
		}
		named, err := url.Parse(clientURL(i))
		if err != nil {
			t.Fatal(err)
		}
		places[named.Host] = listens.Host
	}
	var mu sync.Mutex
	var dialled []string
	transport := &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		mu.Lock()
		dialled = append(dialled, address)
		mu.Unlock()
		return new(net.Dialer).DialContext(ctx, network, cmp.Or(places[address], address))
	}}
	t.Cleanup(transport.CloseIdleConnections)
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	cfg := goConfig(clientURL(1), userAt(2, 1))
	cfg.HTTPClient = &http.Client{Transport: transport}
	there := goConnect(t, cfg)
	cfg.UserID = userAt(1, 1)
	here := goConnect(t, cfg)
	mu.Lock()
	if fmt.Sprint(dialled) != "[domain-01.example:8088 domain-02.example:8088 domain-01.example:8088]" {
		t.Errorf("they went to %v", dialled)
	}
	mu.Unlock()
	if _, err := here.Send(ctx, userAt(2, 1), "over the link"); err != nil {
		t.Error(err)
	}
	if m := goTake(t, there); m.Content != "over the link" || m.From != userAt(1, 1) {
		t.Errorf("got %+v", m)
	}
}

// A loop that takes nothing for longer than the server waits for a reader that
// takes no bytes costs neither the connection nor a message.
func TestAGoClientMayBeSlow(t *testing.T) {
	t.Parallel()
	const many = 3000 // more than the server sends ahead
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	sender, receiver := newUser(), newUser()
	from := shared.login(t, sender)
	to := goConnect(t, goConfig(shared.WebsocketURL(), receiver))
	go func() {
		for n := range many {
			if err := from.write(message(receiver, fmt.Sprint(n), "", "RELIABLE")); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	n := 0
	for m, err := range to.Messages(ctx) {
		if err != nil {
			t.Fatalf("after %d messages: %v", n, err)
		}
		if m.Content != fmt.Sprint(n) {
			t.Fatalf("got %s, want %d", m.Content, n)
		}
		if n++; n == many {
			break
		}
		if n == 1 {
			time.Sleep(40 * time.Second) // the server's patience is 30 s
		}
	}
	if got := to.Stats(); got.Logins != 1 || got.Duplicates != 0 || got.Overflow != 0 {
		t.Errorf("got %+v", got)
	}
}

// goLine is what one client sends to one user: numbers, one after another.
type goLine struct {
	from *linker.Client
	to   string
	sent atomic.Int64 // accepted
}

func (l *goLine) send(ctx context.Context, more func() bool) error {
	for more() {
		if _, err := l.from.Send(ctx, l.to, fmt.Sprint(l.sent.Load())); err != nil {
			return err
		}
		l.sent.Add(1)
	}
	return nil
}

// Two clients send to each other and to themselves while the whole system is
// killed and started again, one of them with an outbox in a file. Everything that
// was sent is taken once, in order.
func TestGoClientsGetEverythingOnceAndInOrderWhateverIsKilled(t *testing.T) {
	t.Parallel()
	const rounds, perRound = 3, 40
	d := newLasting(t)
	gate := newProxy(t) // the address stays, wherever the system listens
	system := launch(t, d)
	stands := func(l life) {
		u, err := url.Parse(l.ws())
		if err != nil {
			t.Fatal(err)
		}
		gate.forward(u.Host)
	}
	stands(system)
	users := []string{"ANZ-1001", "ANZ-1002"}
	outbox, err := linker.OpenOutbox(filepath.Join(t.TempDir(), "outbox"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := outbox.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var lines []*goLine
	var clients []*linker.Client
	for i, user := range users {
		cfg := goConfig("ws://"+gate.addr(), user)
		cfg.Failed = func(f linker.Failure) { t.Errorf("failed: %+v", f) }
		if i == 0 {
			cfg.Outbox = outbox
		}
		c := goConnect(t, cfg)
		clients = append(clients, c)
		for _, to := range users {
			lines = append(lines, &goLine{from: c, to: to})
		}
	}
	var stop atomic.Bool
	var senders, receivers sync.WaitGroup
	for _, l := range lines {
		senders.Go(func() {
			if err := l.send(ctx, func() bool { return !stop.Load() }); err != nil {
				t.Error(err)
			}
		})
	}
	reading, enough := context.WithCancel(ctx)
	defer enough()
	var taken [2][2]atomic.Int64 // by receiver and sender
	for i, c := range clients {
		receivers.Go(func() {
			for m, err := range c.Messages(reading) {
				if err != nil {
					if reading.Err() == nil {
						t.Error(err)
					}
					return
				}
				from := 0
				if m.From == users[1] {
					from = 1
				}
				if want := fmt.Sprint(taken[i][from].Load()); m.Content != want {
					t.Errorf("%s got number %s of %s, want %s", users[i], m.Content, m.From, want)
				}
				taken[i][from].Add(1)
			}
		})
	}
	progress := func() {
		t.Helper()
		aims := make([]int64, len(lines))
		for i, l := range lines {
			aims[i] = l.sent.Load() + perRound
		}
		patiently(t, "every line goes on", readyPatience, func() bool {
			for i, l := range lines {
				if l.sent.Load() < aims[i] {
					return false
				}
			}
			return true
		})
	}
	for range rounds {
		progress()
		system.kill()
		system = launch(t, d)
		stands(system)
	}
	progress()
	stop.Store(true)
	senders.Wait()
	total := int64(0)
	for i := range users {
		for from := range users {
			sent := &lines[2*from+i].sent
			total += sent.Load()
			patiently(t, "everything is taken", readyPatience, func() bool { return taken[i][from].Load() >= sent.Load() })
		}
	}
	for _, l := range lines { // what came twice would come before this
		last := l.sent.Load() + 1
		if err := l.send(ctx, func() bool { return l.sent.Load() < last }); err != nil {
			t.Error(err)
		}
	}
	for i := range users {
		for from := range users {
			sent := &lines[2*from+i].sent
			patiently(t, "the last is taken", readyPatience, func() bool { return taken[i][from].Load() == sent.Load() })
		}
	}
	enough()
	receivers.Wait()
	if left, err := outbox.Pending(); err != nil || len(left) > 0 {
		t.Errorf("the outbox holds %d, %v", len(left), err)
	}
	t.Logf("%d messages in %d rounds; %+v; %+v", total, rounds, clients[0].Stats(), clients[1].Stats())
}
