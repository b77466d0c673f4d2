package target_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/linkerhq/linker/standalone/internal/bench/figures"
	"github.com/linkerhq/linker/standalone/internal/bench/target"
)

// asServer is the first argument that makes a test a server; the second says how it behaves.
const asServer = "as-server"

// TestMain is a server if it is called as one.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == asServer {
		os.Exit(serve(os.Args[2]))
	}
	os.Exit(m.Run())
}

func serve(how string) int {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	fmt.Fprintln(os.Stderr, "I am", how)
	if how == "fails" {
		return 3
	}
	fmt.Print("A server\n  domain-01  ws://127.0.0.1:1/ws  tcp://127.0.0.1:2  http://127.0.0.1:3\n  domain-02  ws://127.0.0.1:4/ws\n  console  http://127.0.0.1:5/\n")
	if how != "never" {
		fmt.Println("ready after 1 ms")
		fmt.Println("ws://127.0.0.1:9/late")
	}
	<-ended
	if how == "ends badly" {
		return 4
	}
	return 0
}

func command(t *testing.T, how string) target.Command {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return target.Command{Name: "it", Path: self, Args: []string{asServer, how}, Log: filepath.Join(t.TempDir(), "log")}
}

func TestAServerIsStartedAndEnded(t *testing.T) {
	t.Parallel()
	p, err := target.Start(t.Context(), command(t, "well"))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"ws://127.0.0.1:1/ws", "ws://127.0.0.1:4/ws"}; !slices.Equal(p.URLs, want) || p.HTTP != "http://127.0.0.1:3" || len(p.PIDs) != 1 {
		t.Errorf("got %+v", p.Target)
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
}

func TestAServerThatIsKilledEnds(t *testing.T) {
	t.Parallel()
	p, err := target.Start(t.Context(), command(t, "well"))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Error(err)
	}
}

func TestWhatIsWrongWithAServerIsSaid(t *testing.T) {
	t.Parallel()
	if _, err := target.Start(t.Context(), command(t, "fails")); err == nil || !strings.Contains(err.Error(), "it does not serve; the end of its log: I am fails") {
		t.Errorf("got %v", err)
	}
	p, err := target.Start(t.Context(), command(t, "ends badly"))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(); err == nil || !strings.Contains(err.Error(), "exit status 4; the end of its log: I am ends badly") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := target.Start(ctx, command(t, "never")); err == nil || !strings.Contains(err.Error(), "deadline exceeded") {
		t.Errorf("got %v", err)
	}
	missing := command(t, "well")
	missing.Path += "-missing"
	if _, err := target.Start(t.Context(), missing); err == nil || !strings.Contains(err.Error(), "start ") {
		t.Errorf("got %v", err)
	}
}

func TestWhatProcessesUse(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("/proc is that of Linux")
	}
	own := []int{os.Getpid()}
	memory := make([]byte, 32<<20)
	before, err := target.Resident(own)
	if err != nil {
		t.Fatal(err)
	}
	for i := range memory {
		memory[i] = byte(i)
	}
	after, err := target.Resident(own)
	if err != nil || after-before < 20<<20 || bytes.Count(memory[:256], []byte{7}) != 1 {
		t.Errorf("32 MiB more are %d bytes, %v", after-before, err)
	}
	used, err := target.CPU(own)
	if err != nil || used < 0 {
		t.Errorf("got %s, %v", used, err)
	}
	if _, err := target.CPU([]int{1 << 30}); err == nil {
		t.Error("a process that is not there uses something")
	}
	if _, err := target.Resident([]int{1 << 30}); err == nil {
		t.Error("a process that is not there has memory")
	}
}

func TestFilesOfTheKernelAreRead(t *testing.T) {
	t.Parallel()
	stat := "7 (a ) b) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 9 9 20 0 5 0 100"
	if got, err := target.ParseStat([]byte(stat)); err != nil || got != 2*time.Second {
		t.Errorf("got %s, %v", got, err)
	}
	if got, err := target.ParseRollup([]byte("5 6 [rollup]\nRss:  12 kB\nPss: 3 kB\n")); err != nil || got != 12<<10 {
		t.Errorf("got %d, %v", got, err)
	}
	for _, bad := range []string{"", "7 (a) S 1", ") ", "7 (a) S 1 7 7 0 -1 4194560 1 2 3 4 x y 9"} {
		if got, err := target.ParseStat([]byte(bad)); err == nil {
			t.Errorf("%q: got %s", bad, got)
		}
	}
	for _, bad := range []string{"", "Rss: x kB\n", "Rss: 5 MB\n"} {
		if got, err := target.ParseRollup([]byte(bad)); err == nil {
			t.Errorf("%q: got %d", bad, got)
		}
	}
}

func FuzzFilesOfTheKernel(f *testing.F) {
	f.Add([]byte("7 (a) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 9\n"))
	f.Add([]byte("Rss: 12 kB\n"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = target.ParseStat(b)
		_, _ = target.ParseRollup(b)
	})
}

func TestAMeterMeasuresWhatIsBetween(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("/proc is that of Linux")
	}
	m, err := target.NewMeter([]int{os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	m.Connected()
	m.Begin()
	for begun := time.Now(); time.Since(begun) < 50*time.Millisecond; {
	}
	m.End()
	r := figures.Run{Seconds: 2, Connections: 10, DeliveryRate: figures.Of(500)}
	if err := m.Fill(&r); err != nil {
		t.Fatal(err)
	}
	if *r.ServerCPU <= 0 || *r.ServerCPUPercent <= 0 || *r.ServerBytes < 1<<20 || *r.GeneratorMicros <= 0 || *r.GeneratorPercent <= 0 || r.BytesPerClient == nil {
		t.Errorf("got %+v", r)
	}
	if got, want := *r.ServerCPUPer1000, *r.ServerCPU; got != want { // 2 s at 500/s are 1000
		t.Errorf("got %v for 1000 messages, expected %v", got, want)
	}
	unknown, err := target.NewMeter(nil)
	if err != nil {
		t.Fatal(err)
	}
	unknown.Begin()
	unknown.End()
	r = figures.Run{Seconds: 1}
	if err := unknown.Fill(&r); err != nil || r.ServerCPU != nil || r.ServerBytes != nil || r.GeneratorMicros != nil {
		t.Errorf("of no process: got %+v, %v", r, err)
	}
	if _, err := target.NewMeter([]int{1 << 30}); err == nil {
		t.Error("a process that is not there is measured")
	}
}

// profiles is what shows profiles, and notes which were asked for.
type profiles struct{ asked []string }

func (p *profiles) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.asked = append(p.asked, r.URL.String())
	if r.URL.Path == "/debug/pprof/heap" || r.URL.Path == "/debug/pprof/profile" {
		_, _ = io.WriteString(w, "profile")
		return
	}
	http.NotFound(w, r)
}

func TestProfilesAreFetched(t *testing.T) {
	t.Parallel()
	p := &profiles{}
	server := httptest.NewServer(p)
	defer server.Close()
	file := filepath.Join(t.TempDir(), "profile")
	for _, kind := range []target.Kind{target.KindCPU, target.KindHeap} {
		if err := target.Profile(t.Context(), server.URL, kind, 2*time.Second/1000, file); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(file); string(b) != "profile" {
			t.Errorf("got %q, %v", b, err)
		}
	}
	if want := []string{"/debug/pprof/profile?seconds=1", "/debug/pprof/heap"}; !slices.Equal(p.asked, want) {
		t.Errorf("got %v", p.asked)
	}
	err := target.Profile(t.Context(), server.URL, target.KindMutex, 0, file)
	if err == nil || !strings.Contains(err.Error(), "404 Not Found; does this server show profiles?") {
		t.Errorf("got %v", err)
	}
}

func TestAProfileIsGivenUpWithItsRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begun := time.Now()
		if err := target.Profile(ctx, "http://127.0.0.1:1", target.KindHeap, time.Hour, filepath.Join(t.TempDir(), "x")); err == nil || time.Since(begun) != time.Second {
			t.Errorf("got %v after %s", err, time.Since(begun))
		}
	})
}

func TestTheMachineIsDescribed(t *testing.T) {
	t.Parallel()
	if target.CPUModel() == "" || target.Kernel() == "" || runtime.GOOS == "linux" && target.Memory() < 1<<20 {
		t.Errorf("got %q, %q, %d", target.CPUModel(), target.Kernel(), target.Memory())
	}
}

func TestStandaloneGetsFreePortsAndADirectoryOfItsOwn(t *testing.T) {
	t.Parallel()
	c := target.Standalone("/bin/standalone", "/dir", []string{"--domains", "2"})
	args := strings.Join(c.Args, " ")
	for _, want := range []string{"--data /dir/data", "--host 127.0.0.1", "--websocket-port 0", "--console-port 0", "--domains 2"} {
		if !strings.Contains(args, want) {
			t.Errorf("nothing says %s in %s", want, args)
		}
	}
}
