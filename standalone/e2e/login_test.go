package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestALoginIsAnsweredExactlyAsDocumented(t *testing.T) {
	t.Parallel()
	user := newUser()
	c := shared.dial(t)
	c.send(`{"type":"AUTH_CLIENT","data":{"appId":"app-id-343","userId":"%s","token":"token-12345"}}`, user)
	want := `{"type":"AUTH_CLIENT_REPLY","data":{"appId":"app-id-343","userId":"` + user + `","isAuthenticated":true}}`
	if f := c.next(); f.raw != want {
		t.Errorf("got  %s\nwant %s", f.raw, want)
	}
}

func TestNothingButALoginIsTakenBeforeTheLogin(t *testing.T) {
	t.Parallel()
	user, other := newUser(), newUser()
	receiver := shared.login(t, other)
	c := shared.dial(t)
	c.user = user
	for _, text := range []string{
		message(other, "too early", "r", "RELIABLE"), message(other, "too early", "r", "FAST"),
		`{"type":"GROUP_MESSAGE","data":{"to":["` + other + `"],"content":"too early"}}`,
		`{"type":"CLOSE_CONNECTION","data":{"userId":"` + other + `"}}`,
		`{"type":"FETCH_MISSING_MESSAGES_REQUEST","data":{"count":1}}`,
		`{"type":"USER_DISCONNECTED","data":{"userId":"` + other + `"}}`, `{"type":"NONSENSE"}`,
	} {
		c.send("%s", text)
		if f := c.expect("AUTH_REQUIRED"); f.raw != `{"type":"AUTH_REQUIRED","data":{}}` {
			t.Errorf("got %v", f)
		}
	}
	c.send(`not JSON`)
	c.expectFailure("INVALID_MESSAGE", "BAD_JSON", "")
	c.send("%s", auth(user))
	c.expect("AUTH_CLIENT_REPLY")
	c.say(other, "now", "")
	receiver.expectMessage(user, "now")
	c.works()
}

func TestEveryRefusedLoginSaysWhyAndIsClosed(t *testing.T) {
	t.Parallel()
	const form = `{"type":"AUTH_CLIENT","data":{"appId":%s,"userId":%s,"token":"x"}}`
	for name, c := range map[string]struct {
		frame  string
		reason string
	}{
		"an unknown app":             {fmt.Sprintf(form, `"app-id-343"`, `"XYZ-1"`), "UNKNOWN_APP"},
		"another app id":             {fmt.Sprintf(form, `"bnz-344"`, `"ANZ-1"`), "REFUSED"},
		"an app id in other letters": {fmt.Sprintf(form, `"APP-ID-343"`, `"ANZ-1"`), "REFUSED"},
		"no app id":                  {`{"type":"AUTH_CLIENT","data":{"userId":"ANZ-1"}}`, "INVALID_REQUEST"},
		"no user id":                 {`{"type":"AUTH_CLIENT","data":{"appId":"app-id-343"}}`, "INVALID_REQUEST"},
		"no data":                    {`{"type":"AUTH_CLIENT"}`, "INVALID_REQUEST"},
		"data that is a list":        {`{"type":"AUTH_CLIENT","data":[]}`, "INVALID_REQUEST"},
		"a number as user id":        {fmt.Sprintf(form, `"app-id-343"`, `5`), "INVALID_REQUEST"},
		"null as app id":             {fmt.Sprintf(form, `null`, `"ANZ-1"`), "INVALID_REQUEST"},
		"a number as token":          {`{"type":"AUTH_CLIENT","data":{"appId":"app-id-343","userId":"ANZ-1","token":7}}`, "INVALID_REQUEST"},
		"features that are a string": {`{"type":"AUTH_CLIENT","data":{"appId":"app-id-343","userId":"ANZ-1","features":"ack"}}`, "INVALID_REQUEST"},
		"authEnabled without a URL":  {auth("NOURL-1"), "AUTH_NOT_CONFIGURED"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			refused(t, c.frame, c.reason, 4403)
		})
	}
	for _, id := range []string{
		"", "ANZ", "ANZ-", "-5", "ANZ--5", "ANZ-+5", "ANZ-007", "ANZ-٥", "ANZ-1-2", "ANZ-9999999999999999999", " ANZ-5", "ANZ-5 ",
		"9NZ-5", strings.Repeat("A", 33) + "-1", strings.Repeat("A", 300), "connector-01", "SYSTEM", "ANZ-1.0", "ANZ-0x1",
	} {
		t.Run("the user id "+id, func(t *testing.T) {
			t.Parallel()
			refused(t, fmt.Sprintf(form, `"app-id-343"`, quoted(id)), "INVALID_USER_ID", 4403)
		})
	}
	for _, id := range []string{"connector-1", "processor-1", "domain2-1"} {
		t.Run("the user id "+id, func(t *testing.T) {
			t.Parallel()
			refused(t, fmt.Sprintf(form, `"app-id-343"`, quoted(id)), "UNKNOWN_APP", 4403)
		})
	}
}

// refused sends a login and expects its refusal. The answer is returned.
func refused(t *testing.T, login, reason string, code int) *frame {
	t.Helper()
	c := shared.dial(t)
	c.send("%s", login)
	f := c.expect("AUTH_CLIENT_REPLY")
	if f.Data.IsAuthenticated == nil || *f.Data.IsAuthenticated || f.Data.Reason != reason {
		t.Errorf("got %v, want %s", f, reason)
	}
	if got := c.closed(); int(got) != code {
		t.Errorf("got close code %d, want %d", got, code)
	}
	return f
}

func TestAUserOfAnotherDomainIsToldWhereToGo(t *testing.T) {
	t.Parallel()
	f := refused(t, auth("SPLIT-100000"), "WRONG_DOMAIN", 4403)
	if f.Data.Domain != "domain-02" || len(f.Data.URLs) != 2 || f.Data.URLs[0] != "ws://two.example:8188" {
		t.Errorf("got %v", f)
	}
	shared.login(t, "SPLIT-99999").works()   // the last of the range
	shared.login(t, "SPLIT-200000").works()  // outside every range
	shared.login(t, userOf("SPLIT")).works() // within
}

func TestASecondLoginNeverChangesWhoTheSocketIs(t *testing.T) {
	t.Parallel()
	user, other := newUser(), newUser()
	c := shared.login(t, user)
	c.send("%s", auth(other))
	c.expectFailure("INVALID_MESSAGE", "ALREADY_AUTHENTICATED", "")
	c.send(`{"type":"AUTH_CLIENT","data":{},"reference":"r7"}`)
	c.expectFailure("INVALID_MESSAGE", "ALREADY_AUTHENTICATED", "r7") // whatever is wrong with it besides
	c.works()
}

func TestOfTwoLoginsAtOnceTheFirstWins(t *testing.T) {
	t.Parallel()
	user := newUser()
	c := shared.dial(t)
	c.user = user
	c.send("%s", auth(user))
	c.send("%s", auth(newUser()))
	replies := map[string]*frame{}
	for range 2 {
		f := c.next()
		replies[f.Type] = f
	}
	if f := replies["AUTH_CLIENT_REPLY"]; f == nil || f.Data.UserID != user {
		t.Errorf("got %v", replies)
	}
	if f := replies["INVALID_MESSAGE"]; f == nil || f.Data.Code != "ALREADY_AUTHENTICATED" {
		t.Errorf("got %v", replies)
	}
	c.works()
}

func TestASocketThatDoesNotLogInIsClosed(t *testing.T) {
	t.Parallel()
	began := time.Now()
	silent, busy := shared.dial(t), shared.dial(t)
	trickling := dialRaw(t, shared.WebsocketURL())
	trickling.bytes(t, maskedHeader(opText, 1000))
	stop := make(chan struct{})
	var trickle sync.WaitGroup
	trickle.Go(func() {
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				_, _ = trickling.conn.Write([]byte("x"))
				_ = busy.write(message("ANZ-1", "too early", "", "FAST"))
			}
		}
	})
	for name, c := range map[string]*client{"silent": silent, "busy": busy} {
		if got := c.closed(); got != 4401 {
			t.Errorf("%s: got close code %d, want 4401", name, got)
		}
	}
	if got := trickling.closeCode(t); got != 4401 {
		t.Errorf("trickling: got close code %d, want 4401", got)
	}
	close(stop)
	trickle.Wait()
	if took := time.Since(began); took < 15*time.Second || took > 25*time.Second {
		t.Errorf("that took %v, want 15 s", took)
	}
}

// callbacks are apps by what their auth callback does.
var callbacks = map[string]func(w http.ResponseWriter, q question){
	"SAYYES":  func(w http.ResponseWriter, q question) { q.answer(w, 200, q.AppID, q.UserID, "true") },
	"SAYMORE": func(w http.ResponseWriter, q question) { q.answer(w, 201, q.AppID, q.UserID, `true,"more":{"a":[1]}`) },
	"SAYNO":   func(w http.ResponseWriter, q question) { q.answer(w, 200, q.AppID, q.UserID, "false") },
	"OMIT": func(w http.ResponseWriter, q question) {
		_, _ = fmt.Fprintf(w, `{"appId":%q,"userId":%q}`, q.AppID, q.UserID)
	},
	"OTHERUSER": func(w http.ResponseWriter, q question) { q.answer(w, 200, q.AppID, "OTHERUSER-1", "true") },
	"OTHERAPP":  func(w http.ResponseWriter, q question) { q.answer(w, 200, "app-id-343", q.UserID, "true") },
	"S400":      func(w http.ResponseWriter, q question) { q.answer(w, 400, q.AppID, q.UserID, "true") },
	"S401":      func(w http.ResponseWriter, q question) { q.answer(w, 401, q.AppID, q.UserID, "true") },
	"S404":      func(w http.ResponseWriter, q question) { q.answer(w, 404, q.AppID, q.UserID, "true") },
	"S408":      func(w http.ResponseWriter, q question) { q.answer(w, 408, q.AppID, q.UserID, "true") },
	"S429":      func(w http.ResponseWriter, q question) { q.answer(w, 429, q.AppID, q.UserID, "true") },
	"S500":      func(w http.ResponseWriter, q question) { q.answer(w, 500, q.AppID, q.UserID, "true") },
	"S503":      func(w http.ResponseWriter, q question) { q.answer(w, 503, q.AppID, q.UserID, "false") },
	"NOJSON":    func(w http.ResponseWriter, _ question) { _, _ = io.WriteString(w, "<html>yes</html>") },
	"EMPTY":     func(w http.ResponseWriter, _ question) { w.WriteHeader(http.StatusNoContent) },
	"HUGE": func(w http.ResponseWriter, q question) {
		q.answer(w, 200, q.AppID, q.UserID, "true"+strings.Repeat(" ", 17<<10))
	},
	"REDIRECT": func(w http.ResponseWriter, _ question) {
		w.Header().Set("Location", "SAYYES")
		w.WriteHeader(http.StatusTemporaryRedirect)
	},
	"HANGUP": func(http.ResponseWriter, question) { panic(http.ErrAbortHandler) },
	"SLOW":   func(_ http.ResponseWriter, q question) { <-q.gone },
	"HOLD":   func(w http.ResponseWriter, q question) { held(q); q.answer(w, 200, q.AppID, q.UserID, "true") },
}

// question is what a callback is asked.
type question struct {
	AppID, UserID, Token string
	gone                 <-chan struct{} // closed when nobody waits for the answer
}

func (question) answer(w http.ResponseWriter, status int, appID, userID, authenticated string) {
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `{"appId":%q,"userId":%q,"isAuthenticated":%s}`, appID, userID, authenticated)
}

// answerAuth is the auth callback of all apps that have one; the path is the app.
func answerAuth(w http.ResponseWriter, r *http.Request) {
	var q question
	err := json.NewDecoder(r.Body).Decode(&q)
	behave, known := callbacks[strings.TrimPrefix(r.URL.Path, "/")]
	if err != nil || !known || r.Method != http.MethodPost || q.Token != secretToken || !strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		http.Error(w, "not a question that a connector asks", http.StatusTeapot)
		return
	}
	q.gone = r.Context().Done()
	behave(w, q)
}

// holding tells of questions to the app HOLD and lets them go on.
var holding = struct{ asked, release chan struct{} }{make(chan struct{}), make(chan struct{})}

func held(q question) {
	select {
	case holding.asked <- struct{}{}:
	case <-q.gone:
		return
	}
	select {
	case <-holding.release:
	case <-q.gone:
	}
}

func TestTheAuthCallbackDecides(t *testing.T) {
	t.Parallel()
	for app, want := range map[string]struct {
		reason string
		code   int
	}{
		"SAYYES": {}, "SAYMORE": {},
		"SAYNO": {"REFUSED", 4403}, "OMIT": {"REFUSED", 4403}, "OTHERUSER": {"REFUSED", 4403}, "OTHERAPP": {"REFUSED", 4403},
		"S400": {"REFUSED", 4403}, "S401": {"REFUSED", 4403}, "S404": {"REFUSED", 4403},
		"S408": {"AUTH_UNAVAILABLE", 4503}, "S429": {"AUTH_UNAVAILABLE", 4503}, "S500": {"AUTH_UNAVAILABLE", 4503},
		"S503": {"AUTH_UNAVAILABLE", 4503}, "NOJSON": {"AUTH_UNAVAILABLE", 4503}, "EMPTY": {"AUTH_UNAVAILABLE", 4503},
		"HUGE": {"AUTH_UNAVAILABLE", 4503}, "REDIRECT": {"AUTH_UNAVAILABLE", 4503}, "HANGUP": {"AUTH_UNAVAILABLE", 4503},
		"SLOW": {"AUTH_UNAVAILABLE", 4503},
	} {
		t.Run(app, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			if want.reason == "" {
				shared.login(t, userOf(app)).works()
				return
			}
			refused(t, auth(userOf(app)), want.reason, want.code)
			within(t, "the refusal", 5*time.Second, began)
		})
	}
}

func TestASocketThatEndsDuringTheCallbackIsNotAnnounced(t *testing.T) {
	t.Parallel()
	const app = "HOLD"
	loginHeld := func(user string) *client {
		c := shared.dial(t)
		c.user = user
		c.send("%s", auth(user))
		<-holding.asked
		return c
	}
	master := loginHeld(masterOf(app))
	holding.release <- struct{}{}
	master.expect("AUTH_CLIENT_REPLY")

	impatient := loginHeld(userOf(app))
	_ = impatient.ws.CloseNow()
	if _, err := impatient.receive(patience); errors.Is(err, errNothing) {
		t.Fatal("the connection is still open")
	}
	second := userOf(app)
	patient := loginHeld(second)
	patient.send("%s", auth(userOf(app))) // while the first is being decided
	patient.expectFailure("INVALID_MESSAGE", "ALREADY_AUTHENTICATED", "")
	patient.say(second, "too early", "")
	patient.expect("AUTH_REQUIRED")
	holding.release <- struct{}{}
	patient.expect("AUTH_CLIENT_REPLY")
	if f := master.expect("USER_CONNECTED"); f.Data.UserID != second {
		t.Errorf("got %v, want only %s", f, second)
	}
}
