package e2e

import (
	"fmt"
	"testing"
)

func closing(user, reference string) string {
	return fmt.Sprintf(`{"type":"CLOSE_CONNECTION","data":{"userId":%s},"reference":%s}`, quoted(user), quoted(reference))
}

func TestTheMasterClosesAllSocketsOfAUser(t *testing.T) {
	t.Parallel()
	app, boss := newApp(t)
	master, user := shared.login(t, boss), userOf(app)
	bystander := shared.login(t, userOf(app))
	master.expectPresence("USER_CONNECTED", bystander.user)
	targets := []*client{shared.login(t, user), shared.login(t, user, "ack"), shared.login(t, user, "push")}
	master.expectPresence("USER_CONNECTED", user)
	master.send("%s", closing(user, "r"))
	for _, c := range targets {
		c.expectClosed(4410)
	}
	master.expectPresence("USER_DISCONNECTED", user)
	bystander.works()
	shared.login(t, user).works() // it is not kept out, and not hit later
	master.expectPresence("USER_CONNECTED", user)
	master.works()
}

func TestNobodyElseMayCloseAConnection(t *testing.T) {
	t.Parallel()
	app, _ := newApp(t)
	_, otherBoss := newApp(t)
	target := shared.login(t, userOf(app))
	for name, sender := range map[string]string{
		"a user of the app": userOf(app), "the master of another app": otherBoss, "the target itself": target.user,
	} {
		c := shared.login(t, sender)
		c.send("%s", closing(target.user, "r"))
		f := c.expectFailure("DELIVER_FAILED", "FORBIDDEN", "r")
		if *f.Data.Retryable {
			t.Errorf("%s: got %v: there is no sense in trying again", name, f)
		}
		c.works()
		if c.user == target.user {
			target.expectMessage(target.user, "does it still work?")
		}
	}
	target.works()
}

func TestAnAbsentTargetIsReportedAndNotHitLater(t *testing.T) {
	t.Parallel()
	app, boss := newApp(t)
	master, user := shared.login(t, boss), userOf(app)
	master.send("%s", closing(user, "r"))
	master.expectFailure("DELIVER_FAILED", "NOT_CONNECTED", "r", user)
	c := shared.login(t, user)
	c.works()
	master.expectPresence("USER_CONNECTED", user)
	master.send("%s", closing("XYZ-1", "r2"))
	master.expectFailure("DELIVER_FAILED", "UNKNOWN_APP", "r2", "XYZ-1")
	master.send("%s", closing(boss, "r3")) // its own socket
	master.expectClosed(4410)
}
