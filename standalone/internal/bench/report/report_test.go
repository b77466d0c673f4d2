package report_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/linkerhq/linker/standalone/internal/bench/figures"
	"github.com/linkerhq/linker/standalone/internal/bench/message"
	"github.com/linkerhq/linker/standalone/internal/bench/report"
	"github.com/linkerhq/linker/standalone/internal/bench/workload"
)

var update = flag.Bool("update", false, "writes the files in testdata anew")

// golden compares a text with a file.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got\n%s\nexpected\n%s", name, got, want)
	}
}

func machine() report.Machine {
	return report.Machine{CPU: "A Processor", CPUs: 2, MemoryBytes: 24 << 30, Kernel: "linux 6.1", Platform: "go1.26 linux/amd64"}
}

// results are those of two servers, of which one has faults.
func results() []report.Result {
	o := workload.Defaults()
	o.Feature, o.References = message.Fast, true
	good := figures.Run{
		Seconds: 10, Connections: 1000, Sent: 700_100, Deliveries: 700_100, Confirmed: 700_100,
		SentRate: figures.Of(70_001), DeliveryRate: figures.Of(70_001.6), ConfirmationRate: figures.Of(70_000),
		Latency:      &figures.Quantiles{Count: 700_000, Mean: 2, P50: 1.5, P90: 4.25, P99: 8.125, P999: 120.4, Max: 1234},
		Confirmation: &figures.Quantiles{Count: 700_000, Mean: 2, P50: 0.1254, P90: 4, P99: 8, P999: 100, Max: 200},
		Login:        &figures.Quantiles{Count: 1000, P50: 10, P90: 20, P99: 30, P999: 40, Max: 50}, LoginSeconds: 0.44,
		ServerCPU: figures.Of(14), ServerCPUPer1000: figures.Of(0.02), ServerCPUPercent: figures.Of(140.4), ServerBytes: figures.Of(200 << 20),
		BytesPerClient: figures.Of(9 << 10), GeneratorMicros: figures.Of(8.04), GeneratorPercent: figures.Of(56),
	}
	bad := good
	bad.DeliveryRate, bad.Latency = figures.Of(35_000), &figures.Quantiles{Count: 1, P50: 3, P90: 8.5, P99: 16.25, P999: 120.4, Max: 617}
	bad.Lost, bad.Duplicates, bad.Disordered, bad.Refused, bad.GivenUp, bad.Unconfirmed = 12_345, 2, 3, 4, 5, 6
	bad.ConnectionsClosed, bad.LoginRetries, bad.LoginFailures = 7, 8, 9
	bad.ServerCPU, bad.ServerCPUPer1000, bad.ServerCPUPercent, bad.ServerBytes, bad.BytesPerClient = nil, nil, nil, nil, nil
	bad.Errors = map[string]int64{"RATE_LIMITED": 4, "closed-4408": 7000}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	common := report.Result{
		Time: at, Version: "v1.2.3", Machine: machine(), Command: []string{"closed", "--feature", "FAST"}, Workload: "closed", Runs: 3, Parameters: o,
	}
	one, other := common, common
	one.Server, one.Figures, one.ServerArgs = "linker", good, []string{"--domains", "1"}
	other.Server, other.Figures, other.Run = "relay", bad, 2
	return []report.Result{one, other}
}

func TestATableHasAColumnForEachServerAndTheirRatio(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := report.WriteTable(&out, results()); err != nil {
		t.Fatal(err)
	}
	golden(t, "two.txt", out.Bytes())
	out.Reset()
	if err := report.WriteTable(&out, results()[:1]); err != nil {
		t.Fatal(err)
	}
	golden(t, "one.txt", out.Bytes())
	out.Reset()
	if err := report.WriteTable(&out, nil); err != nil || out.Len() > 0 {
		t.Errorf("of nothing: got %q, %v", out.String(), err)
	}
}

func TestASummaryHasALineForEachServer(t *testing.T) {
	t.Parallel()
	quiet := results()[:1]
	quiet[0].Workload, quiet[0].Figures = "idle", figures.Run{Connections: 10_000, BytesPerClient: figures.Of(9 << 10), LoginSeconds: 2, Seconds: 5}
	var out bytes.Buffer
	away, crash := results()[:1], results()[:1]
	away[0].Workload, away[0].Figures = "fetch", figures.Run{
		Connections: 100, Sent: 5000, Stored: 5000, Lost: 1, StoredRate: figures.Of(9000), Fetch: &figures.Quantiles{Count: 5, P50: 80, P99: 120}, Seconds: 1,
	}
	crash[0].Workload, crash[0].Figures.Crashes, crash[0].Figures.Recovery = "recover", 3, &figures.Quantiles{Count: 300, P50: 110, P99: 6400}
	if err := report.WriteSummary(&out, [][]report.Result{results(), quiet, away, crash}); err != nil {
		t.Fatal(err)
	}
	golden(t, "summary.txt", out.Bytes())
}

func TestResultsAreLinesOfJSON(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := report.WriteJSON(&out, results()...); err != nil {
		t.Fatal(err)
	}
	golden(t, "results.jsonl", out.Bytes())
	for n, line := range strings.Split(strings.TrimSpace(out.String()), "\n") {
		want := results()[n]
		want.Parameters.Token = "" // nobody needs to know
		var got report.Result
		if err := json.Unmarshal([]byte(line), &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v", got, err)
		}
	}
	if strings.Contains(out.String(), workload.Defaults().Token+`"`) {
		t.Error("the token is in the results")
	}
}

func TestTitlesSayWhatWasRun(t *testing.T) {
	t.Parallel()
	r := results()[0]
	r.Runs, r.Parameters.Rate, r.Parameters.Features, r.Parameters.Confirm = 1, 5000, []string{}, false
	if got, want := report.Title(r), "closed · FAST · 1,000 connections · 1,000 characters · 5,000/s · references · no confirmations · features [] · 10.0 s"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got, want := machine().String(), "2 × A Processor, 24 GiB, linux 6.1, go1.26 linux/amd64"; got != want {
		t.Errorf("got %s", got)
	}
}

func TestDistancesAndAxesHaveALineForEachStep(t *testing.T) {
	t.Parallel()
	near := results()[0]
	near.Workload, near.Parameters.References, near.Parameters.Rate = "hops", false, 200
	near.Figures.Hops = []figures.Hop{
		{Hops: 0, Deliveries: 100, Rate: figures.Of(200), Latency: &figures.Quantiles{Count: 100, P50: 0.25, P99: 1.5, Max: 3}},
		{Hops: 1, Lost: 100},
	}
	var out bytes.Buffer
	if err := report.WriteTable(&out, []report.Result{near}); err != nil {
		t.Fatal(err)
	}
	golden(t, "hops.txt", out.Bytes())
	out.Reset()
	away := results()[1]
	away.Figures = figures.Run{Sent: 5, Stored: 5, StoredRate: figures.Of(9000), Fetch: &figures.Quantiles{Count: 5, P50: 80, Max: 120}, Crashes: 2}
	if err := report.WriteAxis(&out, "stored", []report.Step{{Label: "100", Result: near}, {Label: "1000", Result: away}}); err != nil {
		t.Fatal(err)
	}
	golden(t, "axis.txt", out.Bytes())
	if got := report.Title(away); !strings.Contains(got, " · crashes: 2 · 5 stored · ") {
		t.Errorf("got %s", got)
	}
}
