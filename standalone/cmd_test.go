package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/linkerhq/linker/metaserver"
	"github.com/linkerhq/linker/pkg/embedded"
)

// serviceTime is how long a service may take for anything.
const serviceTime = 40 * time.Second

// service is a program of its own, run as an operator runs it.
type service struct {
	name, path string
	cmd        *exec.Cmd
	ended      chan struct{} // closed when it has; then err can be read
	lines      chan logLine  // what it logs; closed before ended
	err        error
	mu         sync.Mutex
	said       bytes.Buffer // guarded by mu
}

// logLine is what the test reads of a line of the log.
type logLine struct{ Msg, HTTP, Websocket, Listen string }

// build builds the programs of the services.
func build(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	command := exec.CommandContext(t.Context(), "go", "build", "-o", dir+string(filepath.Separator),
		"../connector/cmd/connector", "../processor/cmd/processor", "../metaserver/cmd/metaserver", "./cmd/console")
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("build the services: %v: %s", err, out)
	}
	return dir
}

// startService starts a program with nothing but these variables.
func startService(t *testing.T, dir, name string, args, environ []string) *service {
	t.Helper()
	s := &service{name: name, path: filepath.Join(dir, name), ended: make(chan struct{}), lines: make(chan logLine, 1000)}
	s.cmd = exec.Command(s.path, args...)
	s.cmd.Env = append(environ, "LINKER_LOG_FORMAT=json")
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		<-s.ended
		if t.Failed() {
			t.Logf("%s said:\n%s", name, s.output())
		}
	})
	go s.listen(stderr)
	return s
}

func (s *service) listen(stderr io.Reader) {
	for scanner := bufio.NewScanner(stderr); scanner.Scan(); {
		s.mu.Lock()
		s.said.Write(append(scanner.Bytes(), '\n'))
		s.mu.Unlock()
		var line logLine
		if json.Unmarshal(scanner.Bytes(), &line) == nil {
			select {
			case s.lines <- line:
			default: // nobody waits for a line that late
			}
		}
	}
	close(s.lines)
	s.err = s.cmd.Wait()
	close(s.ended)
}

func (s *service) output() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.said.String()
}

// wait returns the first line of the log with that message.
func (s *service) wait(t *testing.T, msg string) logLine {
	t.Helper()
	deadline := time.After(serviceTime)
	for {
		select {
		case line, ok := <-s.lines:
			if !ok {
				t.Fatalf("%s has ended: %s", s.name, s.output())
			}
			if line.Msg == msg {
				return line
			}
		case <-deadline:
			t.Fatalf("%s does not say %q: %s", s.name, msg, s.output())
		}
	}
}

// probe asks the program itself, as the health check of a container does.
func (s *service) probe(ctx context.Context, address string) (string, error) {
	out, err := exec.CommandContext(ctx, s.path, "--probe", "http://"+address+"/readyz").CombinedOutput()
	return string(out), err
}

// ready waits until the program's probe says so.
func (s *service) ready(t *testing.T, address string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), serviceTime)
	defer cancel()
	for {
		out, err := s.probe(ctx, address)
		if err == nil {
			return
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("%s is not ready: %s", s.name, out)
		}
	}
}

// end ends the program as an operator does.
func (s *service) end(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.ended:
	case <-time.After(serviceTime):
		t.Fatalf("%s does not end", s.name)
	}
	if s.err != nil {
		t.Errorf("%s ended with %v", s.name, s.err)
	}
}

func TestServicesAreProcessesOfTheirOwn(t *testing.T) {
	t.Parallel()
	dir := build(t)
	t.Run("set up from all sources, a client logs in and sends", func(t *testing.T) {
		t.Parallel()
		servicesServe(t, dir)
	})
	t.Run("one that cannot start says why in one line", func(t *testing.T) {
		t.Parallel()
		servicesSayWhy(t, dir)
	})
}

// servicesServe starts first what needs the others: all of it waits.
func servicesServe(t *testing.T, dir string) {
	t.Helper()
	meta, kafka, nats, redis := lastingPort(t), lastingPort(t), lastingPort(t), lastingPort(t)
	metaAddress := address(meta)
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	token := write("meta-token", "0123456789abcdef\n")
	// One file of variables for all of them, and one of settings for two.
	environ := []string{
		"LINKER_META_URL=http://" + metaAddress, "LINKER_META_TOKEN_FILE=" + token, "LINKER_TOKEN_FILE=" + token,
		"LINKER_FILE=" + write("network.yaml", string(metaserver.DefaultFile(9089, 8088))), "LINKER_REDIS_URL=redis://" + address(redis),
		"LINKER_MAILBOX_URL=file:" + filepath.Join(dir, "mailbox"), "LINKER_LANES=7",
	}
	file := write("settings.yaml", fmt.Sprintf("domain: domain-01\nkafka-hosts: [%s]\nnats-url: nats://%s\nlanes: 9\nhttp-listen: nowhere:1\n", address(kafka), address(nats)))
	common := []string{"--config", file, "--http-listen=127.0.0.1:0", "--lanes=2"}
	processor := startService(t, dir, "processor", common, environ)
	connector := startService(t, dir, "connector", append(common, "--listen=127.0.0.1:0", "--link-listen=127.0.0.1:0"), environ)
	console := startService(t, dir, "console", []string{"--listen=127.0.0.1:0"}, environ)

	where := connector.wait(t, "connector serves")
	processorHTTP := processor.wait(t, "processor serves").HTTP
	for s, at := range map[*service]string{connector: where.HTTP, processor: processorHTTP} {
		if out, err := s.probe(t.Context(), at); err == nil || !strings.Contains(out, "503") || !strings.Contains(out, "network") {
			t.Errorf("without anything, %s says %q, %v", s.name, out, err)
		}
	}
	metaServer := startService(t, dir, "metaserver", []string{"--listen", metaAddress}, environ)
	metaServer.ready(t, metaAddress)
	startBrokers(t, kafka, nats, redis)
	connector.ready(t, where.HTTP)
	processor.ready(t, processorHTTP)

	sender, receiver := dial(t, where.Websocket, "ANZ-1"), dial(t, where.Websocket, "ANZ-2")
	sender.say(`{"type":"MESSAGE","data":{"to":"ANZ-2","content":"across processes"},"feature":"RELIABLE","reference":"r"}`)
	if f := receiver.expect("MESSAGE"); f.Data["content"] != "across processes" || f.Data["from"] != "ANZ-1" {
		t.Errorf("got %v", f)
	}
	sender.expect("MESSAGE_CONFIRMATION")

	res, err := http.Get("http://" + console.wait(t, "console serves").Listen + "/config.json") //nolint:noctx // a test
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, _ := io.ReadAll(res.Body); !strings.Contains(string(body), "ws://127.0.0.1:8088") || !strings.Contains(string(body), "app-id-343") {
		t.Errorf("the console offers %s", body)
	}
	for _, s := range []*service{connector, processor, console, metaServer} {
		s.end(t)
		if strings.Contains(s.output(), "0123456789abcdef") {
			t.Errorf("%s logs the token", s.name)
		}
	}
}

func servicesSayWhy(t *testing.T, dir string) {
	t.Helper()
	fine := []string{
		"LINKER_DOMAIN=domain-01", "LINKER_KAFKA_HOSTS=127.0.0.1:1", "LINKER_NATS_URL=nats://127.0.0.1:1", "LINKER_REDIS_URL=redis://127.0.0.1:1",
		"LINKER_META_URL=http://127.0.0.1:1", "LINKER_META_TOKEN=0123456789abcdef", "LINKER_TOKEN=0123456789abcdef", "LINKER_LOG_LEVEL=error",
	}
	for name, c := range map[string]struct {
		program string
		args    []string
		names   []string
	}{
		"nothing is set":   {"connector", []string{"--domain="}, []string{"connector: domain is missing: set --domain or LINKER_DOMAIN"}},
		"a mailbox":        {"processor", nil, []string{"processor: mailbox-url is missing"}},
		"no network file":  {"metaserver", []string{"--file=/nowhere/network.yaml", "--listen=127.0.0.1:0"}, []string{"/nowhere/network.yaml"}},
		"a port":           {"connector", []string{"--listen=192.0.2.1:80"}, []string{"bind the websocket port 192.0.2.1:80"}},
		"a typing mistake": {"console", []string{"--lissten=:1"}, []string{"there is no flag --lissten; did you mean --listen?"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var stderr bytes.Buffer
			cmd := exec.CommandContext(t.Context(), filepath.Join(dir, c.program), c.args...)
			cmd.Env, cmd.Stderr = fine, &stderr
			var exit *exec.ExitError
			if err := cmd.Run(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
				t.Errorf("it ended with %v, want exit code 1", err)
			}
			said := stderr.String()
			if strings.Count(said, "\n") != 1 {
				t.Errorf("it said %q, want one line", said)
			}
			for _, part := range c.names {
				if !strings.Contains(said, part) {
					t.Errorf("it said %q, which lacks %q", said, part)
				}
			}
		})
	}
}

// startBrokers runs the brokers and the store of a domain on these ports.
func startBrokers(t *testing.T, kafkaPort, natsPort, redisPort int) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	redis, err := embedded.Redis(redisPort)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(redis.Close)
	nats, err := embedded.NATS(natsPort, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nats.Close)
	kafka, err := embedded.Kafka("", kafkaPort, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(kafka.Close)
}

// lastingPort is a free port from a range that kernels take none from for
// outgoing connections: it stays free while nobody asks for just this one.
func lastingPort(t *testing.T) int {
	t.Helper()
	for range 100 {
		port := 15000 + rand.IntN(17000)
		listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address(port))
		if err == nil {
			_ = listener.Close()
			return port
		}
	}
	t.Fatal("no free port found")
	return 0
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// client is a user of ANZ who has logged in.
type client struct {
	t      *testing.T
	conn   *websocket.Conn
	frames chan []byte // closed when the connection has ended
}

type frame struct {
	Type string
	Data map[string]any
}

func dial(t *testing.T, address, user string) *client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), serviceTime)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, "ws://"+address+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &client{t: t, conn: conn, frames: make(chan []byte, 100)}
	go c.read(context.WithoutCancel(t.Context()))
	t.Cleanup(func() { _ = conn.CloseNow() })
	c.say(`{"type":"AUTH_CLIENT","data":{"appId":"app-id-343","userId":"` + user + `","token":""}}`)
	if f := c.expect("AUTH_CLIENT_REPLY"); f.Data["isAuthenticated"] != true {
		t.Fatalf("got %v", f)
	}
	return c
}

func (c *client) say(text string) {
	c.t.Helper()
	if err := c.conn.Write(c.t.Context(), websocket.MessageText, []byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

// read reads all the time: that is what answers pings, and so proves receipt.
func (c *client) read(ctx context.Context) {
	defer close(c.frames)
	for {
		_, text, err := c.conn.Read(ctx)
		if err != nil {
			return
		}
		c.frames <- text
	}
}

// expect returns the next frame, which must be of the type.
func (c *client) expect(kind string) frame {
	c.t.Helper()
	var text []byte
	select {
	case text = <-c.frames:
	case <-time.After(serviceTime):
	}
	var f frame
	if err := json.Unmarshal(text, &f); err != nil || f.Type != kind {
		c.t.Fatalf("got %s, want %s", text, kind)
	}
	return f
}
