package e2e

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"
)

const (
	commandTimeout = 20 * time.Second // of one DevTools command
	showTimeout    = 15 * time.Second // until the page shows what is awaited; below commandTimeout
)

// page is one page of a headless Chromium of its own, driven through the
// DevTools protocol over a pair of pipes: no port is opened, and a browser
// whose test has died sees the pipe close and exits. Its methods fail the test.
type page struct {
	commands io.Writer // owned by the test's goroutine
	session  string    // of the page; empty while the browser itself is spoken to
	last     int       // command number, owned by the test's goroutine

	replies chan reply // closed when the browser has gone

	mu       sync.Mutex
	problems []string // guarded by mu: exceptions and errors that the page has reported
}

type command struct {
	ID        int            `json:"id"`
	SessionID string         `json:"sessionId,omitempty"`
	Method    string         `json:"method"`
	Params    map[string]any `json:"params,omitempty"`
}

type reply struct {
	ID     int             `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Message string `json:"message"`
	} `json:"error"`
}

// openPage starts a browser and shows url in it. The test is skipped where no
// browser is installed, and not parallel to others: a browser is a dozen processes, and
// on two processors with sixteen tests beside it a click takes seconds.
func openPage(t *testing.T, url string) *page {
	t.Helper()
	p := startChromium(t, findChromium(t))
	var target struct {
		TargetID string `json:"targetId"`
	}
	p.call(t, "Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var attached struct {
		SessionID string `json:"sessionId"`
	}
	p.call(t, "Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	p.session = attached.SessionID
	for _, domain := range []string{"Runtime", "Log", "Page"} {
		p.call(t, domain+".enable", nil, nil)
	}
	p.look(t, 1280, 900, "light")
	p.call(t, "Page.navigate", map[string]any{"url": url}, nil)
	return p
}

// findChromium takes the browser that CHROME_BIN names, else the first of the
// usual names in PATH.
func findChromium(t *testing.T) string {
	t.Helper()
	names := []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "headless_shell"}
	if name := os.Getenv("CHROME_BIN"); name != "" {
		names = []string{name}
	}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skipf("no browser: none of %q is in PATH, and CHROME_BIN names no other", names)
	return ""
}

func startChromium(t *testing.T, path string) *page {
	t.Helper()
	// Not t.TempDir: what the browser's children still write while they end would fail the test.
	home, err := os.MkdirTemp("", "linker-chromium-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	toBrowser, commands := pipe(t)
	answers, fromBrowser := pipe(t)
	var stderr bytes.Buffer
	browser := exec.CommandContext(t.Context(), path, "--headless", "--remote-debugging-pipe", "--user-data-dir="+home,
		"--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--disable-breakpad",
		"--no-first-run", "--no-default-browser-check", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--disable-extensions", "--no-proxy-server", "--hide-scrollbars")
	browser.Env = append(os.Environ(), "HOME="+home)
	browser.ExtraFiles = []*os.File{toBrowser, fromBrowser} // become 3 and 4
	browser.Stderr = &stderr
	browser.Cancel = commands.Close     // the browser takes it as the request to exit,
	browser.WaitDelay = 5 * time.Second // and is killed if it does not
	if err := browser.Start(); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	toBrowser.Close()
	fromBrowser.Close()

	p := &page{commands: commands, replies: make(chan reply, 16)}
	var reading sync.WaitGroup
	reading.Go(func() { p.read(answers) })
	t.Cleanup(func() {
		go drain(p.replies)
		err := browser.Wait()
		answers.Close() // a child of the browser may hold the other end
		reading.Wait()
		if t.Failed() {
			t.Logf("browser ended: %v\n%s", err, stderr.Bytes())
		}
		os.RemoveAll(home)
	})
	return p
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

func drain(replies <-chan reply) {
	for range replies { //nolint:revive // nobody waits for them any more
	}
}

// read takes what the browser says, each text ended by a zero byte, until it goes.
func (p *page) read(answers io.Reader) {
	defer close(p.replies)
	r := bufio.NewReader(answers)
	for {
		text, err := r.ReadBytes(0)
		if err != nil {
			return
		}
		var said reply
		if err := json.Unmarshal(bytes.TrimSuffix(text, []byte{0}), &said); err != nil {
			p.report(fmt.Sprintf("browser: %v", err))
			continue
		}
		switch {
		case said.ID != 0:
			p.replies <- said
		case said.Method == "Runtime.exceptionThrown":
			p.report(string(said.Params))
		case said.Method == "Log.entryAdded" && bytes.Contains(said.Params, []byte(`"level":"error"`)):
			p.report(string(said.Params))
		}
	}
}

func (p *page) report(problem string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.problems = append(p.problems, problem)
}

// noProblems fails the test if the page has thrown, or was refused something
// by its own policy.
func (p *page) noProblems(t *testing.T) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, problem := range p.problems {
		t.Errorf("the page reports: %s", problem)
	}
}

// call runs one command; result may be nil.
func (p *page) call(t *testing.T, method string, params map[string]any, result any) {
	t.Helper()
	if err := p.try(method, params, result); err != nil {
		t.Fatalf("%s: %v", method, err)
	}
}

func (p *page) try(method string, params map[string]any, result any) error {
	p.last++
	text, err := json.Marshal(command{ID: p.last, SessionID: p.session, Method: method, Params: params})
	if err != nil {
		return err
	}
	if _, err := p.commands.Write(append(text, 0)); err != nil {
		return err
	}
	timeout := time.NewTimer(commandTimeout)
	defer timeout.Stop()
	for {
		select {
		case answer, ok := <-p.replies:
			switch {
			case !ok:
				return errors.New("the browser has gone")
			case answer.ID != p.last:
				continue
			case answer.Error != nil:
				return errors.New(answer.Error.Message)
			case result == nil:
				return nil
			}
			return json.Unmarshal(answer.Result, result)
		case <-timeout.C:
			return fmt.Errorf("no answer within %v", commandTimeout)
		}
	}
}

// eval runs an expression in the page, waits if it is a promise, and stores
// its value in result, which may be nil.
func (p *page) eval(t *testing.T, expression string, result any) {
	t.Helper()
	var answer struct {
		Result struct {
			Value json.RawMessage `json:"value"`
		} `json:"result"`
		ExceptionDetails json.RawMessage `json:"exceptionDetails"`
	}
	params := map[string]any{"expression": expression, "awaitPromise": true, "returnByValue": true}
	p.call(t, "Runtime.evaluate", params, &answer)
	if answer.ExceptionDetails != nil {
		t.Fatalf("%s: %s", expression, answer.ExceptionDetails)
	}
	if result == nil {
		return
	}
	if err := json.Unmarshal(answer.Result.Value, result); err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
}

// waitFor waits until a condition, a JavaScript expression, holds.
func (p *page) waitFor(t *testing.T, condition string) {
	t.Helper()
	var holds bool
	p.eval(t, fmt.Sprintf(`new Promise((resolve) => {
		const end = Date.now() + %d;
		const look = () => {
			if (%s) resolve(true);
			else if (Date.now() > end) resolve(false);
			else setTimeout(look, 20);
		};
		look();
	})`, showTimeout.Milliseconds(), condition), &holds)
	if !holds {
		var text string
		p.eval(t, "document.body.innerText", &text)
		p.screenshot(t, "failure")
		p.noProblems(t)
		t.Fatalf("after %v the page does not show: %s\n%s", showTimeout, condition, text)
	}
}

// click presses the mouse on the middle of the element, as a person would.
func (p *page) click(t *testing.T, selector string) {
	t.Helper()
	var at struct{ X, Y float64 }
	p.eval(t, fmt.Sprintf(`(() => {
		const element = document.querySelector(%[1]q);
		element.scrollIntoView({block: 'center'});
		const box = element.getBoundingClientRect();
		const at = {X: box.x + box.width / 2, Y: box.y + box.height / 2};
		const hit = document.elementFromPoint(at.X, at.Y);
		if (!element.contains(hit) && !hit?.contains(element)) throw new Error(%[1]q + ' is covered by ' + hit?.outerHTML);
		return at;
	})()`, selector), &at)
	for _, kind := range []string{"mousePressed", "mouseReleased"} {
		p.call(t, "Input.dispatchMouseEvent", map[string]any{"type": kind, "x": at.X, "y": at.Y, "button": "left", "clickCount": 1}, nil)
	}
}

// fill replaces the text of a field by typing.
func (p *page) fill(t *testing.T, selector, text string) {
	t.Helper()
	p.eval(t, fmt.Sprintf(`(() => {
		const field = document.querySelector(%q);
		field.focus();
		field.select();
	})()`, selector), nil)
	p.call(t, "Input.insertText", map[string]any{"text": text}, nil)
	p.waitFor(t, fmt.Sprintf("document.querySelector(%q).value === %q", selector, text))
}

// look sets the size of the page and the person's colour scheme.
func (p *page) look(t *testing.T, width, height int, scheme string) {
	t.Helper()
	p.call(t, "Emulation.setDeviceMetricsOverride",
		map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false}, nil)
	p.call(t, "Emulation.setEmulatedMedia",
		map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
}

// screenshot saves the whole page among the test's artifacts (go test -artifacts).
func (p *page) screenshot(t *testing.T, name string) {
	t.Helper()
	var shot struct {
		Data string `json:"data"`
	}
	p.call(t, "Page.captureScreenshot", map[string]any{"format": "png", "captureBeyondViewport": true}, &shot)
	image, err := base64.StdEncoding.DecodeString(shot.Data)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(t.ArtifactDir(), strconv.Itoa(p.last)+"-"+name+".png"), image, 0o600); err != nil {
		t.Fatal(err)
	}
}
