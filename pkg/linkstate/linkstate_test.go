package linkstate_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/linkstate"
)

func entry(domain string, speaker, version uint64, up ...string) linkstate.Entry {
	return linkstate.Entry{Domain: domain, Speaker: speaker, Version: version, Up: up}
}

func TestOnlyWhatIsNewerIsNews(t *testing.T) {
	t.Parallel()
	now := time.Now()
	d := linkstate.New()
	for i, c := range []struct {
		entry linkstate.Entry
		news  bool
	}{
		{entry("a", 1, 5, "b"), true},
		{entry("a", 1, 5, "b"), false},
		{entry("a", 1, 4, "c"), false},
		{entry("a", 2, 4, "c"), true},       // another speaker
		{entry("b", 1, 1, "a"), true},       // another domain's speaker of the same number
		{entry("a", 1, 6), true},            // nothing is up any more
		{entry("a", 1, 5, "b"), false},      // late
		{entry("A", 1, 7, "b"), false},      // not a name
		{entry("a", 1, 7, "a"), false},      // itself
		{entry("a", 1, 7, "c", "b"), false}, // not in order
		{entry("a", 1, 7, "b", "b"), false},
		{entry("a", 1, 7, "b."), false},
	} {
		news := d.Merge([]linkstate.Entry{c.entry}, now)
		if c.news != (len(news) == 1) || c.news && !reflect.DeepEqual(news[0], c.entry) {
			t.Errorf("%d: news of %+v: %+v", i, c.entry, news)
		}
	}
	want := map[string]map[string]bool{"a": {"c": true}, "b": {"a": true}}
	if live := d.Live(now); !reflect.DeepEqual(live, want) {
		t.Errorf("live %v, want %v", live, want)
	}
}

func TestWhatIsNotRefreshedIsGoneAfterItsLife(t *testing.T) {
	t.Parallel()
	now := time.Now()
	d := linkstate.New()
	d.Merge([]linkstate.Entry{entry("a", 1, 1, "b"), entry("b", 1, 1, "a")}, now)
	now = now.Add(linkstate.Life / 2)
	d.Merge([]linkstate.Entry{entry("a", 1, 2, "b")}, now)
	now = now.Add(linkstate.Life / 2)
	if live := d.Live(now.Add(-1)); len(live) != 2 {
		t.Errorf("a moment before its end: %v", live)
	}
	if live := d.Live(now); len(live) != 1 || !live["a"]["b"] {
		t.Errorf("live %v", live)
	}
	if d.Knows("b", 1, now) || !d.Knows("a", 1, now) || d.Knows("a", 2, now) {
		t.Error("who is known is wrong")
	}
	all := d.All(now)
	if len(all) != 1 || all[0].Domain != "a" || all[0].Version != 2 || all[0].Age != linkstate.Life/2 {
		t.Errorf("all %+v", all)
	}
}

// Holders that pass on what they know to each new link would otherwise keep a dead
// speaker alive for ever.
func TestWhatIsPassedOnAgainAndAgainGrowsOldAllTheSame(t *testing.T) {
	t.Parallel()
	now := time.Now()
	d := linkstate.New()
	d.Merge([]linkstate.Entry{entry("a", 1, 1, "b")}, now)
	for range 10 {
		now = now.Add(linkstate.Life / 4)
		next := linkstate.New()
		for _, batch := range linkstate.Batches(d.All(now)) {
			entries, err := linkstate.Decode(batch)
			if err != nil {
				t.Fatal(err)
			}
			next.Merge(entries, now)
		}
		d = next
	}
	if all := d.All(now); len(all) > 0 {
		t.Errorf("still known: %+v", all)
	}
}

func TestAnExpiredEntryKeepsItsOwnPastOut(t *testing.T) {
	t.Parallel()
	now := time.Now()
	d := linkstate.New()
	d.Merge([]linkstate.Entry{entry("a", 1, 2)}, now)
	now = now.Add(linkstate.Life)
	if news := d.Merge([]linkstate.Entry{entry("a", 1, 1, "b")}, now); len(news) > 0 {
		t.Errorf("news %+v", news)
	}
}

func TestAFullDatabaseKeepsWhatItKnowsAndCountsTheRest(t *testing.T) {
	t.Parallel()
	now := time.Now()
	d := linkstate.New()
	for i := range linkstate.MaxEntries {
		d.Merge([]linkstate.Entry{entry(fmt.Sprintf("a%d", i/linkstate.MaxSpeakers), uint64(i), 1, "b")}, now)
	}
	later := now.Add(linkstate.Life / 2)
	if news := d.Merge([]linkstate.Entry{entry("b", 1, 1, "a"), entry("a0", 7, 2)}, later); len(news) != 1 || news[0].Speaker != 7 {
		t.Errorf("news %+v, want the one of the known speaker", news)
	}
	if d.Dropped() != 1 {
		t.Errorf("dropped %d, want 1", d.Dropped())
	}
	later = now.Add(linkstate.Life)
	if news := d.Merge([]linkstate.Entry{entry("b", 1, 1, "a")}, later); len(news) != 1 {
		t.Error("what has expired takes room")
	}
	if all := d.All(later); len(all) != 2 {
		t.Errorf("%d entries, want 2", len(all))
	}
}

func TestWhatIsEncodedIsDecoded(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		entries := make([]linkstate.Entry, random.IntN(20))
		for i := range entries {
			entries[i] = entry(fmt.Sprintf("d%d", i), random.Uint64(), random.Uint64())
			entries[i].Age = time.Duration(random.IntN(16001)) * time.Millisecond
			for j := range random.IntN(5) {
				entries[i].Up = append(entries[i].Up, fmt.Sprintf("n%d", j))
			}
		}
		got, err := linkstate.Decode(linkstate.Append(nil, entries))
		if err != nil || len(got) != len(entries) || len(got) > 0 && !reflect.DeepEqual(got, entries) {
			t.Fatalf("got %+v, %v, want %+v", got, err, entries)
		}
	}
}

func TestBatchesHoldEverythingInMessagesOfABoundedSize(t *testing.T) {
	t.Parallel()
	var up []string
	for i := range linkstate.MaxUp {
		up = append(up, fmt.Sprintf("n%04d%s", i, strings.Repeat("x", 58)))
	}
	var entries []linkstate.Entry
	for i := range 50 {
		entries = append(entries, entry("big", uint64(i), 1, up...))
	}
	for i := range 3 * linkstate.MaxEntries {
		entries = append(entries, entry("small", uint64(i), 1))
	}
	var got []linkstate.Entry
	for i, batch := range linkstate.Batches(entries) {
		if len(batch) > 512<<10 {
			t.Errorf("batch %d has %d bytes", i, len(batch))
		}
		some, err := linkstate.Decode(batch)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, some...)
	}
	if !reflect.DeepEqual(got, entries) {
		t.Errorf("%d entries came back of %d", len(got), len(entries))
	}
	if batches := linkstate.Batches(nil); len(batches) > 0 {
		t.Errorf("batches of nothing: %v", batches)
	}
}

func TestDecodeSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	tooMany := make([]linkstate.Entry, linkstate.MaxEntries+1)
	for i := range tooMany {
		tooMany[i] = entry("a", uint64(i), 1)
	}
	var long []string
	for i := range linkstate.MaxUp + 1 {
		long = append(long, fmt.Sprintf("n%05d", i))
	}
	good := linkstate.Append(nil, []linkstate.Entry{entry("a", 1, 1, "b")})
	for _, c := range []struct {
		input []byte
		want  string
	}{
		{nil, "malformed"},
		{[]byte{9, 0}, "version 9, expected 1"},
		{[]byte{1}, "malformed"},
		{good[:len(good)-1], "malformed"},
		{append(slices.Clone(good), 0), "malformed"},
		{linkstate.Append(nil, tooMany), "4097 entries, expected at most 4096"},
		{linkstate.Append(nil, []linkstate.Entry{entry("a", 1, 1), entry("UP", 1, 1)}), `entry 1: domain "UP" is not a domain name`},
		{linkstate.Append(nil, []linkstate.Entry{entry("a", 1, 1, long...)}), "1025 neighbours, expected at most 1024"},
		{linkstate.Append(nil, []linkstate.Entry{entry("a", 1, 1, "c", "b")}), "ascending order"},
		{bytes.Replace(linkstate.Append(nil, []linkstate.Entry{{Domain: "a", Version: 1, Age: linkstate.Life}}), []byte{0x80, 0x7d}, []byte{0x81, 0x7d}, 1), "age 16001 ms, expected at most 16000 ms"},
	} {
		_, err := linkstate.Decode(c.input)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.40x: error %v, want %q", c.input, err, c.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte{})
	f.Add(linkstate.Append(nil, nil))
	f.Add(linkstate.Append(nil, []linkstate.Entry{entry("a", 1, 2, "b", "c"), {Domain: "b", Speaker: 1 << 63, Version: 1, Age: linkstate.Life}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		entries, err := linkstate.Decode(b)
		if err != nil {
			return
		}
		again, err := linkstate.Decode(linkstate.Append(nil, entries))
		if err != nil || !reflect.DeepEqual(again, entries) {
			t.Errorf("%+v, %v came back for %+v", again, err, entries)
		}
		d, now := linkstate.New(), time.Now()
		if news := d.Merge(entries, now); len(news) > len(entries) {
			t.Errorf("%d news of %d entries", len(news), len(entries))
		}
		if news := d.Merge(d.All(now), now); len(news) > 0 {
			t.Errorf("what is known is news: %+v", news)
		}
	})
}

func TestNoDomainHasMoreSpeakersThanItMay(t *testing.T) {
	t.Parallel()
	now, d := time.Now(), linkstate.New()
	for i := range linkstate.MaxSpeakers {
		d.Merge([]linkstate.Entry{entry("a", uint64(i), 1)}, now)
	}
	if news := d.Merge([]linkstate.Entry{entry("a", 1<<40, 1), entry("b", 1, 1)}, now); len(news) != 1 || news[0].Domain != "b" {
		t.Errorf("news %+v, want the one of the other domain", news)
	}
	if d.Dropped() != 1 {
		t.Errorf("dropped %d, want 1", d.Dropped())
	}
}

func TestWhatIsSaidOfUnknownDomainsIsLeftOut(t *testing.T) {
	t.Parallel()
	known := func(domain string) bool { return domain != "x" }
	got := linkstate.Within([]linkstate.Entry{entry("a", 1, 1, "b", "x"), entry("x", 1, 1, "a")}, known)
	if len(got) != 1 || got[0].Domain != "a" || !slices.Equal(got[0].Up, []string{"b"}) {
		t.Errorf("got %+v", got)
	}
}
