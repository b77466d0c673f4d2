// Command summary reads files with what go test -json printed and says what
// matters: for each the output of what failed, what was skipped and why, and how
// many tests passed and failed; the last line counts those of all files. It
// exits 1 unless some passed in each and none failed.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// event is one line of go test -json.
type event struct {
	Action     string
	Package    string
	ImportPath string // of a build's output
	Test       string
	Output     string
}

// report gathers the events.
type report struct {
	output         map[string][]string // by package and test
	failedIn       map[string]bool     // packages with tests that failed
	skipped        []string
	passed, failed int
}

func main() {
	passed, failed, empty := 0, 0, len(os.Args) < 2
	for _, name := range os.Args[1:] {
		r, err := summarize(name)
		if err != nil {
			fmt.Fprintln(os.Stderr, "summary:", err)
			os.Exit(1)
		}
		if len(os.Args) > 2 {
			fmt.Printf("%s: %d passed, %d failed\n", filepath.Base(name), r.passed, r.failed)
		}
		passed, failed, empty = passed+r.passed, failed+r.failed, empty || r.passed == 0
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if empty || failed > 0 {
		os.Exit(1)
	}
}

// summarize prints what failed and what was skipped in a file.
func summarize(name string) (*report, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	r := &report{output: make(map[string][]string), failedIn: make(map[string]bool)}
	err = r.read(file)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	slices.Sort(r.skipped)
	for _, s := range r.skipped {
		fmt.Println("skipped:", s)
	}
	return r, nil
}

func (r *report) read(from io.Reader) error {
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Println(lines.Text()) // not from go test
			continue
		}
		r.take(e)
	}
	return lines.Err()
}

func (r *report) take(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output":
		r.output[key] = append(r.output[key], e.Output)
	case "build-output":
		fmt.Print(e.Output)
	case "pass":
		if e.Test != "" {
			r.passed++
		}
		delete(r.output, key)
	case "skip":
		if e.Test != "" {
			r.skipped = append(r.skipped, e.Package+" "+e.Test+": "+why(r.output[key]))
		}
		delete(r.output, key)
	case "fail":
		r.fail(e, key)
	}
}

// fail counts a test; a package counts only if no test of it failed, for then
// it did not build, or ended otherwise.
func (r *report) fail(e event, key string) {
	if e.Test == "" && r.failedIn[e.Package] {
		return
	}
	r.failed++
	r.failedIn[e.Package] = true
	fmt.Printf("FAILED %s\n%s\n", strings.TrimSpace(key), strings.Join(r.output[key], ""))
	delete(r.output, key)
}

// why is the last line that a skipped test said itself.
func why(output []string) string {
	reason := "no reason given"
	for _, line := range output {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "===") && !strings.HasPrefix(line, "---") {
			reason = line
		}
	}
	return reason
}
