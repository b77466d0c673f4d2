package main

import (
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/linkerhq/linker/standalone/internal/bench/figures"
	"github.com/linkerhq/linker/standalone/internal/bench/report"
)

// program is the standalone that tests measure; the others are beside it.
func program(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("builds and starts all programs")
	}
	if runtime.GOOS != "linux" {
		t.Skip("the load generator needs Linux")
	}
	if err := built.once(); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(built.dir, "standalone")
}

// alone runs a workload once on servers that it starts.
func alone(t *testing.T, args ...string) (figures.Run, string) {
	t.Helper()
	results, text := measure(t, append(args, "--server", program(t), "--data", t.TempDir(), "--json", "-")...)
	if len(results) != 1 {
		t.Fatalf("got %d results in\n%s", len(results), text)
	}
	f := results[0].Figures
	if f.Lost+f.Disordered+f.Damaged+f.Refused+f.Unsent+f.Stuck+f.ConnectionsClosed > 0 {
		t.Errorf("there are faults: %s", text)
	}
	return f, text
}

func TestWhatUsersHaveMissedIsFetched(t *testing.T) {
	t.Parallel()
	f, text := alone(t, "fetch", "--stored", "300", "--others", "1500", "--users", "2", "--connections", "10")
	if f.Stored != 2100 || f.Accepted != 2100 || f.Deliveries != 600 || f.Duplicates > 0 || f.Fetch == nil || f.Fetch.Count != 2 || f.Fetch.Max <= 0 {
		t.Errorf("got %+v", f)
	}
	if f.StoredRate == nil || *f.StoredRate <= 0 || f.Acceptance == nil || f.Acceptance.Count != 2100 || f.ServerCPUPer1000 == nil {
		t.Errorf("got %+v", f)
	}
	for _, want := range []string{"fetch p50, ms", "stored/s", "2,100 stored"} {
		if !strings.Contains(text, want) {
			t.Errorf("nothing says %s in\n%s", want, text)
		}
	}
}

func TestWhatIsSentToUsersWhoAreAwayIsStored(t *testing.T) {
	t.Parallel()
	f, _ := alone(t, "store", "--duration", "500ms", "--users", "30", "--connections", "10")
	if f.Stored < 1 || f.Stored != f.Accepted || f.Deliveries < 1 || f.Duplicates > 0 || f.StoredRate == nil || f.AcceptedRate == nil || *f.AcceptedRate < *f.StoredRate {
		t.Errorf("got %+v", f)
	}
}

func TestMessagesAreMeasuredOverSeveralDomains(t *testing.T) {
	t.Parallel()
	f, text := alone(t, "hops", "--domains", "3", "--connections", "4", "--rate", "100", "--warmup", "100ms", "--duration", "500ms")
	if len(f.Hops) != 3 || f.Deliveries != f.Sent || f.Duplicates > 0 {
		t.Fatalf("got %+v", f)
	}
	for n, h := range f.Hops {
		if h.Hops != n || h.Deliveries == 0 || h.Latency == nil || h.Latency.P50 <= 0 {
			t.Errorf("got %+v", h)
		}
	}
	if !strings.Contains(text, "domains further") || !strings.Contains(text, "3 domains") {
		t.Errorf("got\n%s", text)
	}
}

func TestNothingIsLostInACrash(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"standalone": nil,
		"connector":  {"--apart"},
		"processor":  {"--apart", "--victim", "processor"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, text := alone(t, append([]string{"recover", "--crashes", "1", "--connections", "10", "--rate", "100"}, args...)...)
			if f.Crashes != 1 || f.Recovery == nil || f.Recovery.Count != 10 || f.Deliveries != f.Sent || f.Accepted != f.Sent || f.Sent == 0 {
				t.Errorf("got %+v", f)
			}
			if f.ServerCPU != nil || !strings.Contains(text, "recovery max, ms") {
				t.Errorf("got %+v\n%s", f, text)
			}
		})
	}
}

func TestProcessesAreMeasuredEachForItself(t *testing.T) {
	t.Parallel()
	f, text := alone(t, "closed", "--apart", "--connectors", "2", "--processors", "1", "--connections", "20", "--warmup", "100ms", "--duration", "1s")
	if f.Sent == 0 || f.Deliveries != f.Sent || !strings.Contains(text, "part of linker-2x1") {
		t.Errorf("got %+v\n%s", f, text)
	}
	processes := map[string]int{}
	for _, p := range f.Parts {
		processes[p.Name] = p.Processes
		if p.CPUPer1000 == nil || p.Bytes == nil || *p.Bytes < 1<<20 || p.BytesPerClient == nil {
			t.Errorf("got %+v", p)
		}
	}
	if want := map[string]int{"metaserver": 1, "servers": 1, "connector": 2, "processor": 1}; !maps.Equal(processes, want) {
		t.Errorf("got %v", processes)
	}
}

func TestRatesGrowUntilTheyAreTooHighAndAreDrawn(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "results.jsonl")
	text, err := call(t, "rates", "--rates", "200,400", "--until", "1ns", "--duration", "300ms", "--warmup", "50ms", "--server", program(t), "--data", t.TempDir(), "--json", file)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(text, "400") || strings.Count(text, "\n") < 5 { // a head, and three lines
		t.Errorf("got\n%s", text)
	}
	if _, err := call(t, "hops", "--domains", "2", "--connections", "2", "--rate", "100", "--warmup", "50ms", "--duration", "200ms", "--server", program(t), "--data", t.TempDir(), "--json", file); err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	if _, err := call(t, "plot", file, "--out", out); err != nil {
		t.Fatal(err)
	}
	for name, words := range map[string][]string{
		"latency-rate.svg":     {">linker FAST p50<", ">linker RELIABLE p99<", ">relay p50<"},
		"latency-hops-p50.svg": {">linker RELIABLE p50<", ">domains further<"},
		"latency-hops-p99.svg": {">linker RELIABLE p99<"},
	} {
		b, err := os.ReadFile(filepath.Join(out, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range words {
			if !strings.Contains(string(b), word) {
				t.Errorf("%s does not say %s", name, word)
			}
		}
	}
}

func TestFiguresAreTakenAlongAxes(t *testing.T) {
	t.Parallel()
	text, err := call(t, "grow", "--axes", "connections,stored,domains", "--most-connections", "20", "--most-stored", "50", "--most-domains", "1", "--duration", "200ms",
		"--server", program(t), "--data", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, head := range []string{"connections", "stored", "domains"} {
		if !slices.ContainsFunc(strings.Split(text, "\n"), func(line string) bool {
			return strings.HasPrefix(strings.TrimSpace(line), head+"   ") && strings.Contains(line, "server")
		}) {
			t.Errorf("no table begins with %s in\n%s", head, text)
		}
	}
}

func TestAxesEndWithWhatIsAskedFor(t *testing.T) {
	t.Parallel()
	g := growth{connections: 5000, stored: 100, domains: 16, duration: 1}
	for axis, want := range map[string][]string{
		axisConnections: {"100", "100", "1000", "1000", "5000", "5000"},
		axisStored:      {"100"},
		axisDomains:     {"1", "1", "2", "2", "4", "4", "8", "8", "16", "16"},
		axisProcesses:   {"1", "1", "2", "2", "4", "4"},
	} {
		var got []string
		for _, p := range g.plan(axis) {
			got = append(got, p.label)
			if p.apart.is != (axis == axisProcesses) {
				t.Errorf("%s: got %+v", axis, p)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %v", axis, got)
		}
	}
}

func TestTheLastResultAtAPlaceIsDrawn(t *testing.T) {
	t.Parallel()
	at := func(rate, p50 float64) report.Result {
		r := report.Result{Workload: "open", Server: "relay", Figures: figures.Run{Latency: &figures.Quantiles{Count: 1, P50: p50, P99: 2 * p50}}}
		r.Parameters.Rate = rate
		return r
	}
	chart := overRates([]report.Result{at(2000, 3), at(1000, 1), at(2000, 5), {Workload: "closed"}})
	if len(chart.Series) != 2 || len(chart.Series[0].Points) != 2 || chart.Series[0].Points[1].Y != 5 || chart.Series[1].Points[0].Y != 2 || !chart.Series[1].Dashed {
		t.Errorf("got %+v", chart.Series)
	}
	for name, text := range map[string]string{"a torn line": `{"workload":`, "nothing of the kind": `{"workload":"idle"}`} {
		file := filepath.Join(t.TempDir(), "x.jsonl")
		if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := drawFiles([]string{file}, os.Stdout); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
