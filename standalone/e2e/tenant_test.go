package e2e

import "testing"

func TestUsersOfOneAppCannotReachThoseOfAnother(t *testing.T) {
	t.Parallel()
	app1, boss1 := newApp(t)
	app2, boss2 := newApp(t)
	outsider, insider := shared.login(t, boss1), shared.login(t, boss2)
	for _, to := range []string{boss2, userOf(app2), masterOf("ONESIDED")} {
		for _, feature := range []string{"RELIABLE", "FAST"} {
			outsider.send("%s", message(to, "intrusion", "r", feature))
			f := outsider.expectFailure("DELIVER_FAILED", "FORBIDDEN_APP", "r", "data.to", to)
			if *f.Data.Retryable {
				t.Errorf("got %v: there is no sense in trying again", f)
			}
			outsider.send("%s", group([]string{userOf(app1), to}, "intrusion", "r", feature))
			outsider.expectFailure("DELIVER_FAILED", "FORBIDDEN_APP", "r", "data.to", to)
		}
	}
	insider.works()
	outsider.works()
}

func TestAUserOfAnAppThatDoesNotExistIsUnknown(t *testing.T) {
	t.Parallel()
	c := shared.login(t, newUser())
	for _, to := range []string{"XYZ-1", "anz-1", "domain2-1", "connector-1"} {
		for _, feature := range []string{"RELIABLE", "FAST"} {
			c.send("%s", message(to, "x", "r", feature))
			c.expectFailure("DELIVER_FAILED", "UNKNOWN_APP", "r", "data.to", to)
		}
	}
	c.works()
}

func TestAUserOfADomainWithoutARoadIsReported(t *testing.T) {
	t.Parallel()
	c := shared.login(t, userOf("SPLIT"))
	for _, feature := range []string{"RELIABLE", "FAST"} {
		c.send("%s", message("SPLIT-150000", "x", "r", feature))
		c.expectFailure("DELIVER_FAILED", "NO_ROUTE", "r", "SPLIT-150000", "domain-02")
	}
	// A number outside every range is at home here.
	c.say("SPLIT-250000", "stored here", "")
	c.works()
	if got, _ := shared.login(t, "SPLIT-250000").fetch(10); len(got) != 1 {
		t.Errorf("got %v", got)
	}
}

func TestAppsThatAllowEachOtherReachEachOther(t *testing.T) {
	t.Parallel()
	a, b := shared.login(t, userOf("FRIEND1")), shared.login(t, userOf("FRIEND2"))
	a.say(b.user, "hello", "r")
	b.expectMessage(a.user, "hello")
	a.expectConfirmation("r")
	b.sayFast(a.user, "hello back", "r")
	a.expectMessage(b.user, "hello back")
	b.expectConfirmation("r")
	one := shared.login(t, userOf("ONESIDED"))
	one.say(newUser(), "x", "r") // allowed by one of the two only
	one.expectFailure("DELIVER_FAILED", "FORBIDDEN_APP", "r")
	stranger := shared.login(t, newUser())
	stranger.say(one.user, "x", "r")
	stranger.expectFailure("DELIVER_FAILED", "FORBIDDEN_APP", "r")
	// The master of the other app has no rights here.
	boss := shared.login(t, masterOf("FRIEND2"))
	boss.send("%s", closing(a.user, "r"))
	for {
		f := boss.next()
		if f.Type == "DELIVER_FAILED" {
			if f.Data.Code != "FORBIDDEN" {
				t.Errorf("got %v", f)
			}
			break
		}
		if f.Type != "USER_CONNECTED" {
			t.Fatalf("got %v", f)
		}
	}
	a.works()
}
