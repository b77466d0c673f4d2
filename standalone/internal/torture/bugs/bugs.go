// Package bugs is what shows that the torture can fail: for each promise a way to
// break it, as a few replacements in the source. The source itself stays as it is:
// programs with a bug are built with go build -overlay.
package bugs

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Bug is one way to break a promise.
type Bug struct {
	Name  string // such as settle-before-proof
	What  string // what goes wrong, in one sentence
	Edits []Edit
}

// Edit replaces the only place in a file that reads Old.
type Edit struct {
	File     string // relative to the root of the repository, with slashes
	Old, New string
}

// All returns the bugs.
func All() []Bug {
	return []Bug{
		{
			Name: "settle-before-proof",
			What: "a lane takes what a connector has taken for what the socket has proved",
			Edits: []Edit{{
				File: "processor/internal/custody/deliver.go",
				Old:  "n := s.advance(sn, p.Taken, p.Proved, fx)",
				New:  "n := s.advance(sn, p.Taken, p.Taken, fx)",
			}},
		},
		{
			Name: "commit-before-settle",
			What: "a lane commits records when it has read them",
			Edits: []Edit{{
				File: "processor/internal/lane/actor.go",
				Old:  "	_ = failpoint.Hit(failpoint.LaneBeforeHandling)\n",
				New: "	if handle <= batch[0].Offset {\n" +
					"		_ = d.lane.Commit(context.Background(), batch[len(batch)-1].Offset+1)\n" +
					"	}\n" +
					"	_ = failpoint.Hit(failpoint.LaneBeforeHandling)\n",
			}},
		},
		{
			Name: "acks-none",
			What: "what was sent to the log counts as written, whether it has acknowledged that or not",
			Edits: []Edit{{
				File: "pkg/broker/kafka/producer.go",
				Old:  "	if err != nil {\n		return 0, err\n	}\n	if err := failpoint.Hit(",
				New: "	if dial := new(net.OpError); err != nil && errors.As(err, &dial) && dial.Op == \"dial\" {\n		return 0, err\n	}\n" +
					"	if err != nil {\n		return 0, nil\n	}\n	if err := failpoint.Hit(",
			}, {
				File: "pkg/broker/kafka/producer.go",
				Old:  "	\"log/slog\"\n",
				New:  "	\"log/slog\"\n	\"net\"\n",
			}},
		},
		{
			Name: "delete-before-proof",
			What: "rows of the mailbox are deleted when they are sent",
			Edits: []Edit{{
				File: "processor/internal/custody/deliver.go",
				Old:  "	s.takeOff(sn, flight{d: sn.d, item: it, fetch: fetched, since: s.now})\n",
				New: "	s.takeOff(sn, flight{d: sn.d, item: it, fetch: fetched, since: s.now})\n" +
					"	if it.stored && !it.deleted {\n" +
					"		it.deleted, it.leaving = true, fx.round\n" +
					"		fx.Delete = append(fx.Delete, it.key())\n" +
					"	}\n",
			}},
		},
		{
			Name: "no-epoch-check",
			What: "a connector takes deliveries of a lane's former owner",
			Edits: []Edit{{
				File: "connector/internal/downlink/downlink.go",
				Old:  "if b.Epoch.Before(l.epoch) {",
				New:  "if b.Epoch.Before(l.epoch) && len(b.Items) == 0 {",
			}},
		},
		{
			Name: "live-while-rows-wait",
			What: "new messages go out at once while older ones wait in the mailbox",
			Edits: []Edit{{
				File: "processor/internal/custody/step.go",
				Old:  "case t.behind:\n			owed, store = true, true\n",
				New:  "case t.behind && t.roomiest() == nil:\n			owed, store = true, true\n",
			}},
		},
		{
			Name: "duplicates-not-known",
			What: "a record that was taken before is taken again",
			Edits: []Edit{{
				File: "processor/internal/window/window.go",
				Old:  "	if !take(&s.live, n) {\n		return true\n	}\n",
				New:  "	_ = take(&s.live, n)\n",
			}},
		},
	}
}

// Names returns the names of the bugs.
func Names() []string {
	var names []string
	for _, b := range All() {
		names = append(names, b.Name)
	}
	return names
}

// Overlay writes the changed files of a bug into dir and returns the file that
// go build -overlay wants. root is the root of the repository.
func Overlay(name, root, dir string) (string, error) {
	i := slices.IndexFunc(All(), func(b Bug) bool { return b.Name == name })
	if i < 0 {
		return "", fmt.Errorf("bug %q, expected one of %s", name, strings.Join(Names(), ", "))
	}
	changed := map[string]string{} // file → its text
	for _, e := range All()[i].Edits {
		path := filepath.Join(root, filepath.FromSlash(e.File))
		text, edited := changed[path]
		if !edited {
			source, err := os.ReadFile(path)
			if err != nil {
				return "", fmt.Errorf("build with bug %s: %w", name, err)
			}
			text = string(source)
		}
		if n := strings.Count(text, e.Old); n != 1 {
			return "", fmt.Errorf("build with bug %s: %s has %d places that read %q, expected one", name, e.File, n, e.Old)
		}
		changed[path] = strings.Replace(text, e.Old, e.New, 1)
	}
	replace := map[string]string{}
	for path, text := range changed {
		copied := filepath.Join(dir, fmt.Sprintf("%d-%s", len(replace), filepath.Base(path)))
		if err := os.WriteFile(copied, []byte(text), 0o600); err != nil {
			return "", fmt.Errorf("build with bug %s: %w", name, err)
		}
		replace[path] = copied
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", fmt.Errorf("build with bug %s: %w", name, err)
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, list, 0o600); err != nil {
		return "", fmt.Errorf("build with bug %s: %w", name, err)
	}
	return file, nil
}
