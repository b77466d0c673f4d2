package run_test

import (
	"bytes"
	"context"
	"errors"
	"math"
	"net/http"
	"net/http/httptest"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/linkerhq/linker/pkg/run"
)

func TestAnErrorIsOneLineAndExitCodeOne(t *testing.T) {
	t.Parallel()
	var stderr bytes.Buffer
	process := run.Process{Args: []string{"a"}, Environ: []string{"b=c"}, Stderr: &stderr}
	code := run.Main("service", process, func(_ context.Context, p run.Process) error {
		if len(p.Args) != 1 || len(p.Environ) != 1 {
			t.Errorf("got %+v", p)
		}
		return errors.Join(errors.New("open:\nthis"), errors.New("and that"))
	})
	if code != 1 || stderr.String() != "service: open: this; and that\n" {
		t.Errorf("got %d, %q", code, stderr.String())
	}
}

// It sends signals to this process, so it is not parallel to others.
func TestTheFirstSignalEndsTheContext(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		var stderr bytes.Buffer
		code := run.Main("service", run.Process{Stderr: &stderr}, func(ctx context.Context, _ run.Process) error {
			if err := syscall.Kill(syscall.Getpid(), signal); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		})
		if code != 0 || stderr.Len() > 0 {
			t.Errorf("%s: got %d, %q", signal, code, stderr.String())
		}
	}
}

func TestTheLogHasItsLevelAndItsForm(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ level, format, want string }{
		{"info", "json", `"level":"INFO","msg":"two"`},
		{"info", "text", "level=INFO msg=two"},
		{"debug", "text", "level=DEBUG msg=one"},
		{"error", "text", ""},
	} {
		var out bytes.Buffer
		log, err := run.NewLog(&out, c.level, c.format)
		if err != nil {
			t.Fatal(err)
		}
		log.Debug("one")
		log.Info("two")
		if got := out.String(); !strings.Contains(got, c.want) || c.want == "" && got != "" || c.level != "debug" && strings.Contains(got, "one") {
			t.Errorf("%+v: got %q", c, got)
		}
	}
	if _, err := run.NewLog(new(bytes.Buffer), "loud", "text"); err == nil {
		t.Error("a level that there is not was taken")
	}
}

func TestTheVersionIsTheOneLinkedInOrOneThatIsFound(t *testing.T) {
	t.Parallel()
	if got := run.Version("v1.2.3"); got != "v1.2.3" {
		t.Errorf("got %q", got)
	}
	if got := run.Version(""); got == "" || strings.ContainsAny(got, "() ") {
		t.Errorf("got %q", got)
	}
	if got := run.Platform(); !strings.HasPrefix(got, "go") || !strings.Contains(got, "/") {
		t.Errorf("got %q", got)
	}
}

func TestAProbeTellsWhetherAURLAnswers200(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			http.Error(w, "not ready: the cat sleeps", http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	if err := run.Probe(t.Context(), server.URL+"/readyz"); err != nil {
		t.Error(err)
	}
	for url, want := range map[string]string{
		server.URL + "/":               "503 Service Unavailable: not ready: the cat sleeps",
		"http://u:hidden@127.0.0.1:1/": "refused",
		"no url at all":                "probe",
		"http://[::1":                  "probe",
	} {
		err := run.Probe(t.Context(), url)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: got %v, want %q", url, err, want)
		}
	}
}

// It changes the limit of this process, so it is not parallel to others.
func TestTheHeapStaysBelowTheLimitOfTheControlGroup(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	for name, c := range map[string]struct {
		root    fstest.MapFS
		environ []string
		want    int64
	}{
		"in a container": {
			root: fstest.MapFS{"proc/self/cgroup": file("0::/\n"), "sys/fs/cgroup/memory.max": file("1000000000\n")},
			want: 900000000,
		},
		"the least of a group and those above": {
			root: fstest.MapFS{
				"proc/self/cgroup": file("0::/a.slice/b.service\n"), "sys/fs/cgroup/a.slice/b.service/memory.max": file("max\n"),
				"sys/fs/cgroup/a.slice/memory.max": file("500000000\n"), "sys/fs/cgroup/memory.max": file("1000000000\n"),
			},
			want: 450000000,
		},
		"groups of the first version": {
			root: fstest.MapFS{
				"proc/self/cgroup":                           file("5:cpu:/x\n4:memory:/docker/1\n1:name=systemd:/x\n"),
				"sys/fs/cgroup/memory/memory.limit_in_bytes": file("200000000\n"),
			},
			want: 180000000,
		},
		"no limit of the first version": {
			root: fstest.MapFS{"proc/self/cgroup": file("4:memory:/\n"), "sys/fs/cgroup/memory/memory.limit_in_bytes": file("9223372036854771712\n")},
		},
		"a limit of the operator's": {
			root:    fstest.MapFS{"proc/self/cgroup": file("0::/\n"), "sys/fs/cgroup/memory.max": file("1000000000\n")},
			environ: []string{"GOMEMLIMIT=off"},
		},
		"no groups":      {root: fstest.MapFS{}},
		"nothing to see": {root: fstest.MapFS{"proc/self/cgroup": file("0::/gone\nnonsense\n")}},
	} {
		debug.SetMemoryLimit(math.MaxInt64)
		if got := run.LimitMemory(c.root, c.environ); got != c.want {
			t.Errorf("%s: got %d, want %d", name, got, c.want)
		}
		want := int64(math.MaxInt64)
		if c.want > 0 {
			want = c.want
		}
		if got := debug.SetMemoryLimit(-1); got != want {
			t.Errorf("%s: the limit is %d, want %d", name, got, want)
		}
	}
}
