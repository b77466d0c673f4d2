package e2e

import (
	"fmt"
	"testing"
)

// group is a GROUP_MESSAGE frame.
func group(to []string, content, reference, feature string) string {
	return fmt.Sprintf(`{"type":"GROUP_MESSAGE","data":{"to":%s,"content":%s},"feature":"%s","reference":%s}`,
		quoted(to), quoted(content), feature, quoted(reference))
}

func TestEveryMemberOfAGroupGetsAnOrdinaryMessageOnce(t *testing.T) {
	t.Parallel()
	for _, feature := range []string{"RELIABLE", "FAST"} {
		t.Run(feature, func(t *testing.T) {
			t.Parallel()
			a := newUser()
			sender := shared.login(t, a)
			members := make([]*client, 6)
			var to []string
			for i := range members {
				members[i] = shared.login(t, newUser())
				to = append(to, members[i].user, members[i].user) // twice each: to is a set
			}
			to = append(to, a)
			sender.send("%s", group(to, "to the group", "ref", feature))
			if f := sender.expectMessage(a, "to the group"); f.reference() != "ref" {
				t.Errorf("got %v", f)
			}
			ids := map[string]bool{}
			for _, m := range members {
				f := m.expectMessage(a, "to the group")
				if f.reference() != "ref" {
					t.Errorf("got %v without the reference", f)
				}
				ids[f.ID] = true
				sender.send("%s", message(m.user, "marker", "marker", feature))
				m.expectMessage(a, "marker")
				sender.expectConfirmation("marker") // and none for the group
			}
			if len(ids) != 1 {
				t.Errorf("the copies have the ids %v", ids)
			}
		})
	}
}

func TestOneBadMemberRefusesTheWholeGroup(t *testing.T) {
	t.Parallel()
	a, b := newUser(), newUser()
	sender, receiver := shared.login(t, a), shared.login(t, b)
	for bad, want := range map[string][2]string{
		"ANZ-007": {"INVALID_MESSAGE", "INVALID_FIELD"}, "": {"INVALID_MESSAGE", "INVALID_FIELD"}, "ANZ": {"INVALID_MESSAGE", "INVALID_FIELD"},
		"XYZ-1": {"DELIVER_FAILED", "UNKNOWN_APP"}, "BNZ-1": {"DELIVER_FAILED", "FORBIDDEN_APP"},
	} {
		for _, feature := range []string{"RELIABLE", "FAST"} {
			sender.send("%s", group([]string{b, bad}, "refused", "r", feature))
			sender.expectFailure(want[0], want[1], "r", "data.to", bad)
		}
	}
	sender.say(b, "marker", "")
	receiver.expectMessage(a, "marker")
}

func TestAbsentMembersFindAGroupMessageInTheirNextFetch(t *testing.T) {
	t.Parallel()
	a := newUser()
	sender, present := shared.login(t, a, "accept"), shared.login(t, newUser())
	absent := []string{newUser(), newUser(), newUser()}
	sender.send("%s", group(append([]string{present.user}, absent...), "for later", "ref", "RELIABLE"))
	id := sender.expect("MESSAGE_ACCEPTED").Data.ID
	present.expectMessage(a, "for later")
	sender.send("%s", group(absent, "dropped", "ref", "FAST"))
	sender.works() // it is on its way before anybody logs in
	for _, user := range absent {
		c := shared.login(t, user)
		got, left := c.fetch(100)
		if len(got) != 1 || left != 0 || got[0].Type != "MESSAGE" || got[0].Data.From != a || got[0].reference() != "ref" || got[0].ID != id {
			t.Errorf("%s: got %v, %d left", user, got, left)
		}
		c.works()
		if got, left := c.fetch(100); len(got) != 0 || left != 0 {
			t.Errorf("%s: got %v, %d left after everything was fetched", user, got, left)
		}
	}
	sender.works() // no confirmation came
}

func TestAGroupMayHave4096Members(t *testing.T) {
	t.Parallel()
	sender := shared.login(t, newUser(), "accept")
	// Short names: all of them have to fit into one frame.
	to := make([]string, 4097)
	for i := range to {
		to[i] = fmt.Sprintf("ANZ-%d", 500_000+i)
	}
	sender.send("%s", group(to, "too many", "r", "RELIABLE"))
	sender.expectFailure("INVALID_MESSAGE", "INVALID_FIELD", "r", "data.to", "4096")
	sender.send("%s", group(append(to[:4096], to[:100]...), "just enough", "r", "RELIABLE"))
	sender.expect("MESSAGE_ACCEPTED")
	for _, i := range []int{0, 1, 999, 1000, 4095} {
		c := shared.login(t, to[i])
		if got, left := c.fetch(10); len(got) != 1 || left != 0 || got[0].Data.Content != "just enough" {
			t.Errorf("%s: got %v, %d left", to[i], got, left)
		}
	}
}

func TestGroupAndDirectMessagesOfOneSenderNeverOvertakeEachOther(t *testing.T) {
	t.Parallel()
	a := newUser()
	sender := shared.login(t, a)
	members := []*client{shared.login(t, newUser()), shared.login(t, newUser()), shared.login(t, newUser())}
	to := []string{members[0].user, members[1].user, members[2].user}
	const rounds = 100
	for n := range rounds {
		sender.send("%s", group(to, fmt.Sprint(2*n), "", "RELIABLE"))
		for _, user := range to {
			sender.say(user, fmt.Sprint(2*n+1), "")
		}
	}
	for _, m := range members {
		for n := range 2 * rounds {
			m.expectMessage(a, fmt.Sprint(n))
		}
	}
}
