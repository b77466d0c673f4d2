package system_test

import (
	"testing"

	"github.com/linkerhq/linker/pkg/delivery"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/wire"
	"github.com/linkerhq/linker/standalone/internal/torture/system"
)

func TestAZombieDeliversUnderTheNextNumbersWhatNobodyHasSent(t *testing.T) {
	t.Parallel()
	frame := func(content string) []byte {
		return wire.AppendMessage(nil, "TOR-100", []byte(`"`+content+`"`), "57", wire.Stamp{ID: ident.MessageID{1}, CreatedAt: 5})
	}
	to := func(session, d uint64) delivery.Target {
		return delivery.Target{Session: session, User: "TOR-300", D: d}
	}
	items := []delivery.Item{
		{Kind: delivery.KindFrame, ID: ident.MessageID{1}, Pos: envelope.Position{Offset: 9}, Frame: frame("TOR-100|TOR-300|57|abc|x|y"), Targets: []delivery.Target{to(1, 4), to(2, 8)}},
		{Kind: delivery.KindFrame, ID: ident.MessageID{2}, Frame: frame("of somebody else"), Targets: []delivery.Target{to(1, 5)}},
		{Kind: delivery.KindFast, Frame: frame("TOR-100|TOR-300|58|abc|x|y"), Targets: []delivery.Target{to(2, 0)}},
		{Kind: delivery.KindFrame, Frame: []byte("no frame"), Targets: []delivery.Target{to(3, 1)}},
	}
	got := system.HauntedItems(items)
	if len(got) != 2 {
		t.Fatalf("got %d items", len(got))
	}
	for i, want := range []string{"TOR-100|TOR-300|33554489|abc|x|y", "TOR-100|TOR-300|57|abc|x|y"} {
		it := got[i]
		next := []delivery.Target{to(1, 6+uint64(i)), to(2, 9+uint64(i))}
		if it.ID == items[0].ID || len(it.Targets) != 2 || it.Targets[0] != next[0] || it.Targets[1] != next[1] {
			t.Errorf("item %d: %+v, want it for %v", i, it, next)
		}
		if text := string(wire.AppendMessage(nil, "TOR-100", []byte(`"`+want+`"`), "57", wire.Stamp{ID: it.ID, CreatedAt: 5})); text != string(it.Frame) {
			t.Errorf("item %d: %s, want %s", i, it.Frame, text)
		}
	}
}
