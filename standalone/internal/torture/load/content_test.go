package load_test

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/linkerhq/linker/standalone/internal/torture/history"
	"github.com/linkerhq/linker/standalone/internal/torture/load"
)

const maxFrame = 64 << 10 // of a server, unless it is told otherwise

func prepared(t *testing.T) *load.Load {
	t.Helper()
	w, err := history.Create(filepath.Join(t.TempDir(), "history.jsonl"), history.Run{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	l, err := load.New(load.Config{
		Apps: []load.App{{Name: "ANZ", ID: "a", Master: "ANZ-9"}}, Domains: []load.Domain{{Name: "d", URLs: []string{"ws://127.0.0.1:1"}}}, History: w,
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestAContentTellsWhatItIsAndWhetherItWasChanged(t *testing.T) {
	t.Parallel()
	l := prepared(t)
	for _, size := range []int{0, 100, 4096, 60_000} {
		for n := int64(1); n < 200; n += 13 {
			content := load.WriteContent(l, "ANZ-1", n, "ANZ-2", size)
			if size > 0 && (len(content) < size-20 || len(content) > size+80) {
				t.Errorf("asked for %d bytes, got %d", size, len(content))
			}
			from, m, bound, damaged, err := load.ReadContent(content)
			if from != "ANZ-1" || m != n || bound != "ANZ-2" || damaged || err != nil {
				t.Fatalf("got %s, %d, %s, %t, %v", from, m, bound, damaged, err)
			}
			for _, changed := range []string{content[:len(content)-1], content + "x", strings.Replace(content, "ANZ-2", "ANZ-3", 1)} {
				if _, _, _, damaged, err := load.ReadContent(changed); !damaged && err == nil {
					t.Fatalf("%.60q was changed, and nobody sees it", changed)
				}
			}
			if frame := load.FrameOf(content); len(frame) > maxFrame || !json.Valid(frame) {
				t.Fatalf("a content of %d bytes makes a frame of %d", len(content), len(frame))
			}
		}
	}
}

func FuzzContent(f *testing.F) {
	f.Add("ANZ-1|ANZ-2|7|0011223344556677|pad")
	f.Add("|||||")
	f.Fuzz(func(t *testing.T, text string) {
		if _, n, _, _, err := load.ReadContent(text); err == nil && n < 1 {
			t.Errorf("the number is %d", n)
		}
	})
}

func FuzzReference(f *testing.F) {
	f.Add("7")
	f.Add("7+")
	f.Add("+")
	f.Fuzz(func(t *testing.T, text string) {
		n, isAgain, ok := load.ReadReference(text)
		if !ok {
			return
		}
		if m, isAgain2, ok := load.ReadReference(load.WriteReference(n, isAgain)); m != n || isAgain2 != isAgain || !ok {
			t.Errorf("%q is %d, %t, and then %d, %t", text, n, isAgain, m, isAgain2)
		}
	})
}
