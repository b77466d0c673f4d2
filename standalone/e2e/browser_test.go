package e2e

import (
	"fmt"
	"testing"
)

// browserTest shows the console of a running system in a real browser, logs in
// two users of the first app that it offers, and lets them talk: there and
// back, and over an absence. wsURL is the connector that both use.
func browserTest(t *testing.T, consoleURL, wsURL string) {
	t.Helper()
	p := openPage(t, consoleURL)
	p.waitFor(t, "document.querySelectorAll('.pane').length === 2")
	alice, bob := pane{p, 1}, pane{p, 2}
	first, second := alice.logIn(t, wsURL), bob.logIn(t, wsURL)
	if first == second {
		t.Fatalf("both panes offer the user %s", first)
	}

	const hostile = `hello <img src=x onerror="document.body.remove()"> & all`
	alice.send(t, second, hostile)
	bob.shows(t, `.messages .in .content`, hostile)
	alice.shows(t, `.messages .out .status.confirmed`, "confirmed")
	alice.shows(t, `.frames .type`, "MESSAGE_CONFIRMATION")
	bob.send(t, first, "and back")
	alice.shows(t, `.messages .in .content`, "and back")
	bob.shows(t, `.messages .out .status.confirmed`, "confirmed")

	p.click(t, bob.at(`[data-action="logout"]`))
	bob.shows(t, `[data-part="state"]`, "Not connected (1000 closed)")
	alice.send(t, second, "while you were away")
	alice.shows(t, `.messages .out:last-child .status`, "accepted")
	p.click(t, bob.at(`[data-action="login"]`))
	bob.shows(t, `[data-part="state"]`, "Logged in")
	p.click(t, bob.at(`.segments label:has([value="fetch"])`))
	p.click(t, bob.at(`[data-form="message"] [type="submit"]`))
	bob.shows(t, `.messages .in .content`, "while you were away")
	alice.shows(t, `.messages .out:last-child .status`, "confirmed")
	bob.shows(t, `.messages .note`, "fetch complete, 0 left")

	var elements int
	p.eval(t, `document.querySelectorAll('.content *, .frames img').length`, &elements)
	if elements != 0 {
		t.Errorf("%d elements were made from the text of a message", elements)
	}
	for _, scheme := range []string{"light", "dark"} {
		p.look(t, 1280, 1400, scheme)
		p.screenshot(t, "wide-"+scheme)
		p.look(t, 390, 1400, scheme)
		p.screenshot(t, "narrow-"+scheme)
		var overflow bool
		p.eval(t, `document.documentElement.scrollWidth > innerWidth`, &overflow)
		if overflow {
			t.Errorf("%s: a narrow screen has to be scrolled sideways", scheme)
		}
	}
	p.noProblems(t)
}

// pane is the n-th user on the page, from 1.
type pane struct {
	*page
	n int
}

// at makes a selector mean this pane's element.
func (u pane) at(selector string) string {
	return fmt.Sprintf(".pane:nth-of-type(%d) %s", u.n, selector)
}

// logIn takes the user id that the pane offers, and returns it.
func (u pane) logIn(t *testing.T, wsURL string) string {
	t.Helper()
	u.fill(t, u.at(`[name="url"]`), wsURL)
	var user string
	u.eval(t, fmt.Sprintf("document.querySelector(%q).value", u.at(`[name="user"]`)), &user)
	u.click(t, u.at(`[data-action="login"]`))
	u.shows(t, `[data-part="state"]`, "Logged in")
	return user
}

func (u pane) send(t *testing.T, to, content string) {
	t.Helper()
	u.fill(t, u.at(`[name="to"]`), to)
	u.fill(t, u.at(`[name="content"]`), content)
	u.click(t, u.at(`[data-form="message"] [type="submit"]`))
}

// shows waits until one of the elements has exactly this text.
func (u pane) shows(t *testing.T, selector, text string) {
	t.Helper()
	u.waitFor(t, fmt.Sprintf("Array.from(document.querySelectorAll(%q)).some((node) => node.textContent === %q)", u.at(selector), text))
}
