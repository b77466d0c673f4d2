package e2e

import (
	"testing"
)

// expectPresence expects that the master hears of this user.
func (c *client) expectPresence(kind, user string) {
	c.t.Helper()
	if f := c.expect(kind); f.Data.UserID != user {
		c.t.Fatalf("%s: got %v, want %s", c.user, f, user)
	}
}

func TestPresenceLooksExactlyAsDocumented(t *testing.T) {
	t.Parallel()
	app, boss := newApp(t)
	master, user := shared.login(t, boss), userOf(app)
	c := shared.login(t, user)
	for _, kind := range []string{"USER_CONNECTED", "USER_DISCONNECTED"} {
		f := master.next()
		want := `{"type":"` + kind + `","data":{"userId":"` + user + `"},"id":"` + f.ID + `","createdAt":`
		if len(f.raw) < len(want) || f.raw[:len(want)] != want || f.ID == "" || f.CreatedAt == 0 {
			t.Errorf("got %s, want %s…", f.raw, want)
		}
		if kind == "USER_CONNECTED" {
			c.leave()
		}
	}
}

func TestTheMasterHearsOfTheFirstLoginAndTheLastLogoutOnly(t *testing.T) {
	t.Parallel()
	app, boss := newApp(t)
	master := shared.login(t, boss)
	user := userOf(app)
	tabs := []*client{shared.login(t, user), shared.login(t, user), shared.login(t, user)}
	master.expectPresence("USER_CONNECTED", user)
	master.works() // the other tabs change nothing
	tabs[1].leave()
	tabs[0].leave()
	tabs[2].works()
	master.works()
	tabs[2].leave()
	master.expectPresence("USER_DISCONNECTED", user)
	again := shared.login(t, user)
	master.expectPresence("USER_CONNECTED", user)
	again.works()
	master.works()
}

func TestTheMasterItselfIsNeverAnnounced(t *testing.T) {
	t.Parallel()
	app, boss := newApp(t)
	master := shared.login(t, boss)
	shared.login(t, boss).leave()
	shared.login(t, boss)
	user := userOf(app)
	shared.login(t, user)
	master.expectPresence("USER_CONNECTED", user)
}

func TestASocketThatWasNotLoggedInIsNeverAnnounced(t *testing.T) {
	t.Parallel()
	app, boss := newApp(t)
	master, user := shared.login(t, boss), userOf(app)
	shared.dial(t).leave()
	refused(t, `{"type":"AUTH_CLIENT","data":{"appId":"wrong","userId":"`+user+`"}}`, "REFUSED", 4403)
	early := shared.dial(t)
	early.send(`{"type":"USER_DISCONNECTED","data":{"userId":"%s"}}`, user)
	early.expect("AUTH_REQUIRED")
	forger := shared.login(t, userOf(app))
	master.expectPresence("USER_CONNECTED", forger.user)
	forger.send(`{"type":"USER_DISCONNECTED","data":{"userId":"%s"}}`, user)
	forger.expectFailure("INVALID_MESSAGE", "FORBIDDEN_TYPE", "")
	shared.login(t, user)
	master.expectPresence("USER_CONNECTED", user)
}

func TestASocketThatVanishesWithoutAGoodbyeIsAnnounced(t *testing.T) {
	t.Parallel()
	app, boss := newApp(t)
	master := shared.login(t, boss)
	for name, vanish := range map[string]func(*rawSocket){
		"closed": func(r *rawSocket) { _ = r.conn.Close() },
		"reset":  func(r *rawSocket) { r.reset(t) },
		"broken": func(r *rawSocket) { r.bytes(t, masked(fin|0x40|opText, nil)) },
	} {
		user := userOf(app)
		r := loginRaw(t, shared.WebsocketURL(), user)
		master.expectPresence("USER_CONNECTED", user)
		vanish(r)
		master.expectPresence("USER_DISCONNECTED", user)
		t.Log(name, "was noticed")
	}
}

func TestPresenceIsStoredWhileTheMasterIsAway(t *testing.T) {
	t.Parallel()
	app, boss := newApp(t)
	first, second := userOf(app), userOf(app)
	shared.login(t, first).leave()
	c := shared.login(t, second)
	master := shared.login(t, boss, "push") // so that all comes in order
	seen := map[string]string{}
	for len(seen[first]) < len("+-") || seen[second] == "" {
		switch f := master.next(); f.Type {
		case "USER_CONNECTED":
			seen[f.Data.UserID] += "+"
		case "USER_DISCONNECTED":
			seen[f.Data.UserID] += "-"
		case "MISSING_MESSAGES_AVAILABLE": // of what was stored until the login
		default:
			t.Fatalf("got %v", f)
		}
	}
	if seen[first] != "+-" || seen[second] != "+" {
		t.Errorf("the master heard %v", seen)
	}
	c.leave()
	master.expectPresence("USER_DISCONNECTED", second)
}

func TestMastersHearOfTheirOwnAppOnly(t *testing.T) {
	t.Parallel()
	app1, boss1 := newApp(t)
	app2, boss2 := newApp(t)
	master1, master2 := shared.login(t, boss1), shared.login(t, boss2)
	user1, user2 := userOf(app1), userOf(app2)
	shared.login(t, user1)
	shared.login(t, user2)
	master1.expectPresence("USER_CONNECTED", user1)
	master2.expectPresence("USER_CONNECTED", user2)
	master1.works()
	master2.works()
}
