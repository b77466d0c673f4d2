package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// get returns the answer's status and body.
func get(t *testing.T, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: new(http.Transport)}
	defer client.CloseIdleConnections()
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// edit replaces text in the description of the network, as an operator does.
func edit(t *testing.T, file, old, replacement string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), old) {
		t.Fatalf("%s does not hold %q", file, old)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(b), old, replacement, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// problems returns what the meta server finds wrong with the file.
func problems(t *testing.T, s *system) string {
	t.Helper()
	_, body := get(t, s.MetaURL()+"/status")
	var status struct{ Problems json.RawMessage }
	if err := json.Unmarshal([]byte(body), &status); err != nil {
		t.Fatal(err)
	}
	return string(status.Problems)
}

// eventually repeats a look until it shows what is awaited.
func eventually(t *testing.T, what string, look func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !look(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("after %v: not %s", patience, what)
		}
	}
}

func TestAFreshStartHasThreeAppsAndAFileToEdit(t *testing.T) {
	t.Parallel()
	s := start(t, setup{})
	_, body := get(t, s.MetaURL()+"/clientApps")
	var apps []struct {
		AppName, AppID, MasterUserID string
		UserDistributions            []any
	}
	if err := json.Unmarshal([]byte(body), &apps); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, a := range apps {
		got = append(got, a.AppName+" "+a.AppID+" "+a.MasterUserID)
		if len(a.UserDistributions) > 0 {
			t.Errorf("%s has number ranges", a.AppName)
		}
	}
	const want = "ANZ app-id-343 ANZ-123223, BNZ bnz-344 BNZ-453432, CNZ cnz-34324 CNZ-213424"
	if strings.Join(got, ", ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
	for path, want := range map[string]int{
		"/domains": 200, "/domains/links": 200, "/domains/graph": 200, "/resolve?userId=ANZ-1": 200, "/resolve?userId=XYZ-1": 404,
		"/snapshot": 401, "/nothing": 404,
	} {
		if code, body := get(t, s.MetaURL()+path); code != want {
			t.Errorf("%s: got %d %s, want %d", path, code, body, want)
		}
	}
	master := s.login(t, "ANZ-123223")
	s.login(t, "ANZ-1").works()
	master.expectPresence("USER_CONNECTED", "ANZ-1")
}

func TestEditingTheFileTakesEffectWithoutARestart(t *testing.T) {
	t.Parallel()
	s := start(t, setup{})
	file := s.NetworkFile()
	anz, anz2, bnz, bnzHints := s.login(t, "ANZ-1"), s.login(t, "ANZ-2"), s.login(t, "BNZ-1"), s.loginWithHints(t, "BNZ-2")

	// A new app can log in, and a new app's users can be written to.
	began := time.Now()
	edit(t, file, "  - appName: CNZ\n", "  - {appName: DNZ, appId: id-of-DNZ, masterUserId: DNZ-1}\n  - appName: CNZ\n")
	eventually(t, "a user of the new app logged in", func() bool {
		c, err := tryLogin(t, s.WebsocketURL(), "DNZ-5")
		if err == nil {
			c.works()
		}
		return err == nil
	})
	within(t, "a new app", 2*time.Second, began)

	// A file with mistakes changes nothing, and says what is wrong with it.
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	edit(t, file, "appName: BNZ", "appName: ANZ")
	eventually(t, "refused", func() bool { return strings.Contains(problems(t, s), "ANZ") })
	if got := problems(t, s); !strings.Contains(got, `"line":`) {
		t.Errorf("got %s without a line", got)
	}
	bnz.works()
	s.login(t, "BNZ-3").works()
	if err := os.WriteFile(file, []byte("domains: [[["), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "refused as YAML", func() bool { return problems(t, s) != "[]" && !strings.Contains(problems(t, s), "ANZ") })
	bnz.works()
	s.login(t, "BNZ-3").works()

	// A removed app's sessions end, and nobody of it comes in or is written to.
	began = time.Now()
	text := string(before)
	head, rest, _ := strings.Cut(text, "  - appName: BNZ")
	_, tail, _ := strings.Cut(rest, "  - {appName: DNZ")
	if err := os.WriteFile(file, []byte(head+"  - {appName: DNZ"+tail), 0o600); err != nil {
		t.Fatal(err)
	}
	bnz.expectClosed(4403)
	if got := bnzHints.closed(); got != 4403 {
		t.Errorf("got close code %d, want 4403", got)
	}
	within(t, "the end of the sessions", 2*time.Second, began)
	if _, err := tryLogin(t, s.WebsocketURL(), "BNZ-1"); err == nil || !strings.Contains(err.Error(), "UNKNOWN_APP") {
		t.Errorf("got %v, want UNKNOWN_APP", err)
	}
	anz.say("BNZ-1", "x", "r")
	anz.expectFailure("DELIVER_FAILED", "UNKNOWN_APP", "r")
	anz.say("ANZ-2", "not disturbed", "r")
	anz2.expectMessage("ANZ-1", "not disturbed")
	anz.expectConfirmation("r")
}

func TestUsersWhoseHomeMovesAreSentThere(t *testing.T) {
	t.Parallel()
	s := start(t, setup{})
	staying, plain, hinted := s.login(t, "ANZ-1"), s.login(t, "ANZ-1000"), s.loginWithHints(t, "ANZ-1001")
	edit(t, s.NetworkFile(), "clientApps:", `  - {name: domain-02, urls: ['ws://two.example:8188']}
userDistributions:
  - {domainName: `+s.domain+`, to: 999}
  - {domainName: domain-02, from: 1000}
clientApps:`)
	plain.expectClosed(4421)
	if f := hinted.expect("GO_AWAY"); f.Data.Reason == "" {
		t.Errorf("got %v", f)
	}
	hinted.expectClosed(4421)
	if _, err := tryLogin(t, s.WebsocketURL(), "ANZ-1000"); err == nil || !strings.Contains(err.Error(), "ws://two.example:8188") {
		t.Errorf("got %v, want WRONG_DOMAIN with the urls", err)
	}
	staying.say("ANZ-1000", "x", "r")
	staying.expectFailure("DELIVER_FAILED", "NO_ROUTE", "r")
	staying.works()
}
