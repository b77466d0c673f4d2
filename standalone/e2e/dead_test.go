package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linkerhq/linker/standalone/internal/stack"
)

var buildTool = sync.OnceValues(func() (string, error) {
	path := filepath.Join(binaryDir, "linkerctl")
	out, err := exec.Command("go", "build", "-o", path, "github.com/linkerhq/linker/processor/cmd/linkerctl").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build linkerctl: %w: %s", err, out)
	}
	return path, nil
})

// ctl runs linkerctl on the machine of the system's processor.
func (s *system) ctl(t *testing.T, wantCode int, args ...string) string {
	t.Helper()
	return ctl(t, s.endpoint("processor"), wantCode, args...)
}

// ctl runs linkerctl as an operator does, and returns what it says.
func ctl(t *testing.T, processor string, wantCode int, args ...string) string {
	t.Helper()
	tool, err := buildTool()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), tool, append([]string{"--url", processor}, args...)...)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	err = command.Run()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	if code := command.ProcessState.ExitCode(); code != wantCode {
		t.Fatalf("linkerctl %v: code %d, want %d: %s%s", args, code, wantCode, stdout.String(), stderr.String())
	}
	return stdout.String() + stderr.String()
}

// deadLetter is one, as linkerctl --json tells of it.
type deadLetter struct {
	ID, Reason, User, From, Kind, MessageID, Reference, Frame string

	Size int
}

// deadLetters waits until so many letters for a user are listed, and returns them.
func (s *system) deadLetters(t *testing.T, user string, n int) []deadLetter {
	t.Helper()
	var answer struct{ Letters []deadLetter }
	eventually(t, fmt.Sprintf("%d dead letters for %s", n, user), func() bool {
		answer.Letters = nil
		if err := json.Unmarshal([]byte(s.ctl(t, 0, "--json", "dead", "list", "--user", user)), &answer); err != nil {
			t.Fatal(err)
		}
		return len(answer.Letters) == n
	})
	return answer.Letters
}

// waits waits until so many messages are stored for a user: they are counted and left alone.
func (s *system) waits(t *testing.T, user string, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d messages wait for %s", n, user), func() bool {
		c := s.loginWithHints(t, user)
		defer c.cut()
		f, err := c.receive(patience)
		return err == nil && f.Type == "MISSING_MESSAGES_AVAILABLE" && f.Data.Count == n
	})
}

func TestWhatFindsAFullMailboxIsADeadLetterThatIsReplayedOnce(t *testing.T) {
	t.Parallel()
	s := start(t, setup{waiting: stack.Waiting{QuotaRows: 2}})
	a, b := newUser(), newUser()
	sender := s.login(t, a, "accept")
	for n := range 2 {
		sender.say(b, "fits "+strconv.Itoa(n), "")
		sender.expect("MESSAGE_ACCEPTED")
	}
	s.waits(t, b, 2)
	sender.say(b, secretContent, "too much")
	id := sender.expect("MESSAGE_ACCEPTED").Data.ID
	sender.expectFailure("DELIVER_FAILED", "MAILBOX_FULL", "too much", b)
	letter := s.deadLetters(t, b, 1)[0]
	if letter.Reason != "MAILBOX_FULL" || letter.User != b || letter.From != a || letter.Kind != "message" || letter.MessageID != id || letter.Reference != "too much" {
		t.Errorf("listed is %+v", letter)
	}
	if shown := s.ctl(t, 0, "dead", "list") + s.ctl(t, 0, "dead", "show", letter.ID); strings.Contains(shown, secretContent) {
		t.Errorf("a list shows what nobody asked for: %s", shown)
	}
	if shown := s.ctl(t, 0, "dead", "show", letter.ID, "--content"); !strings.Contains(shown, secretContent) {
		t.Errorf("the message is not shown: %s", shown)
	}

	s.ctl(t, 0, "dead", "replay", letter.ID) // the mailbox is as full as before
	sender.expectFailure("DELIVER_FAILED", "MAILBOX_FULL", "too much", b)
	again := s.deadLetters(t, b, 1)[0]
	if again.ID == letter.ID || again.MessageID != id {
		t.Errorf("what has died again is listed as %+v", again)
	}

	receiver := s.login(t, b, "push")
	receiver.expect("MISSING_MESSAGES_AVAILABLE")
	for n := range 2 {
		receiver.expectMessage(a, "fits "+strconv.Itoa(n))
	}
	sender.say(b, "newer", "")
	sender.expect("MESSAGE_ACCEPTED")
	receiver.expectMessage(a, "newer")
	if said := s.ctl(t, 0, "dead", "replay", again.ID); said != "replayed: 1\n" {
		t.Errorf("linkerctl says %q", said)
	}
	f := receiver.expectMessage(a, secretContent)
	if f.ID != id || !f.Late || f.reference() != "too much" {
		t.Errorf("replayed as %v", f)
	}
	sender.expectConfirmation("too much")
	s.ctl(t, 1, "dead", "replay", again.ID)
	s.deadLetters(t, b, 0)
	receiver.works() // and nothing came twice
}

func TestWhatHasExpiredMayBeSentAgainAndItsLetterIsNoSecondCopy(t *testing.T) {
	t.Parallel()
	s := start(t, setup{waiting: stack.Waiting{ExpireAfter: 2 * time.Second}})
	a, b := newUser(), newUser()
	sender := s.login(t, a, "accept")
	sender.send("%s", named(b, "patient", "mine"))
	id := sender.expect("MESSAGE_ACCEPTED").Data.ID
	sender.send("%s", named(b, "patient", "mine")) // it waits: this is taken once
	sender.expect("MESSAGE_ACCEPTED")
	sender.expectFailure("DELIVER_FAILED", "EXPIRED", "ref mine", b)
	letter := s.deadLetters(t, b, 1)[0]
	if letter.Reason != "EXPIRED" || letter.MessageID != id || letter.Reference != "ref mine" {
		t.Errorf("listed is %+v", letter)
	}

	receiver := s.login(t, b)
	sender.send("%s", named(b, "patient", "mine"))
	sender.expect("MESSAGE_ACCEPTED")
	if f := receiver.expectMessage(a, "patient"); f.ID != id || f.Late {
		t.Errorf("sent again it comes as %v, want %s", f, id)
	}
	sender.expectConfirmation("ref mine")
	s.ctl(t, 0, "dead", "replay", "--user", b, "--reason", "EXPIRED")
	s.deadLetters(t, b, 0)
	sender.say(b, "behind it", "")
	sender.expect("MESSAGE_ACCEPTED")
	receiver.expectMessage(a, "behind it")
}

func TestADeadLetterForAnotherDomainIsReplayedOverTheRoadThatIsThereAgain(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, networkSetup{yaml: describeNetwork(2, lineOf(2))})
	n.settle(t, 2)
	sender, receiver := n.login(t, 1, userIn(1), "accept"), n.login(t, 2, userIn(2))
	n.cut(1, 2)
	patiently(t, "no road", patience, func() bool { return !n.route(t, 1, 2).Reachable })
	sender.say(receiver.user, "after all", "r")
	id := sender.expect("MESSAGE_ACCEPTED").Data.ID
	n.describe(t, describeNetwork(2, nil))
	sender.expectFailure("DELIVER_FAILED", "NO_ROUTE", "r", receiver.user)

	n.describe(t, describeNetwork(2, lineOf(2)))
	n.heal(1, 2)
	patiently(t, "the road is described again, and open", patience, func() bool { return n.route(t, 1, 2).Reachable })
	n.settle(t, 2)
	processor := n.place(1).Processor
	var answer struct{ Letters []deadLetter }
	eventually(t, "the letter is listed", func() bool {
		said := ctl(t, processor, 0, "--json", "dead", "list", "--reason", "NO_ROUTE", "--user", receiver.user)
		return json.Unmarshal([]byte(said), &answer) == nil && len(answer.Letters) == 1 && answer.Letters[0].MessageID == id
	})
	if said := ctl(t, processor, 0, "dead", "replay", answer.Letters[0].ID); said != "replayed: 1\n" {
		t.Errorf("linkerctl says %q", said)
	}
	defer func() {
		if t.Failed() {
			t.Logf("where it is:\n%s\n%s", ctl(t, processor, 0, "trace", id, "--user", receiver.user), ctl(t, processor, 0, "dead", "list"))
		}
	}()
	// The link may end once more, when the other side hears of the change, and be dialled again.
	f, err := receiver.receive(backOff)
	if err != nil || f.Type != "MESSAGE" || f.Data.Content != "after all" || f.ID != id || !f.Late {
		t.Fatalf("replayed as %v, %v; want %s", f, err, id)
	}
	sender.expectConfirmation("r")
	receiver.works()
}

func TestDeadLettersArePurged(t *testing.T) {
	t.Parallel()
	s := start(t, setup{waiting: stack.Waiting{QuotaRows: 1}})
	sender, first, second := s.login(t, newUser(), "accept"), newUser(), newUser()
	for _, to := range []string{first, second} {
		sender.say(to, "fits", "")
		sender.expect("MESSAGE_ACCEPTED")
		s.waits(t, to, 1)
		for range 3 {
			sender.say(to, "x", "r")
			sender.expect("MESSAGE_ACCEPTED")
			sender.expectFailure("DELIVER_FAILED", "MAILBOX_FULL", "r")
		}
	}
	letters := s.deadLetters(t, first, 3)
	s.deadLetters(t, second, 3)
	if said := s.ctl(t, 0, "dead", "purge", letters[1].ID); said != "purged: 1\n" {
		t.Errorf("linkerctl says %q", said)
	}
	s.ctl(t, 2, "dead", "purge")
	if said := s.ctl(t, 0, "dead", "purge", "--user", first, "--before", "0s"); said != "purged: 2\n" {
		t.Errorf("linkerctl says %q", said)
	}
	s.deadLetters(t, first, 0)
	var purged struct{ Purged int }
	if err := json.Unmarshal([]byte(s.ctl(t, 0, "dead", "purge", "--all", "--json")), &purged); err != nil || purged.Purged < 3 { // the master's mailbox is full, too
		t.Errorf("%+v, %v", purged, err)
	}
	s.deadLetters(t, second, 0)
}

func TestNoPageInABrowserAndNoStrangerChangesDeadLetters(t *testing.T) {
	t.Parallel()
	for what, headers := range map[string]map[string]string{
		"a page":     {"Origin": "https://evil.example"},
		"an old one": {"Sec-Fetch-Site": "cross-site"},
		"a stranger": {"X-Forwarded-For": "192.0.2.1"},
	} {
		for _, request := range []string{"POST /v1/dead/replay?all=true", "POST /v1/dead/1-0/replay", "DELETE /v1/dead?all=true", "DELETE /v1/dead/1-0"} {
			method, path, _ := strings.Cut(request, " ")
			req, err := http.NewRequestWithContext(t.Context(), method, shared.endpoint("processor")+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			for key, value := range headers {
				req.Header.Set(key, value)
			}
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if res.StatusCode != http.StatusForbidden && res.StatusCode != http.StatusUnauthorized {
				t.Errorf("%s: %s: %s", what, request, res.Status)
			}
		}
	}
}
