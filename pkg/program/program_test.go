package program_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/linkerhq/linker/pkg/program"
	"github.com/linkerhq/linker/pkg/run"
	"github.com/linkerhq/linker/pkg/settings"
)

func TestAProgramReadsItsSettingsAnnouncesThemAndRuns(t *testing.T) {
	t.Parallel()
	var stdout, stderr bytes.Buffer
	process := run.Process{
		Args:    []string{"--listen=:7", "--log-format", "json"},
		Environ: []string{"LINKER_TOKEN=hidden", "GOMEMLIMIT=off"}, Stdout: &stdout, Stderr: &stderr,
	}
	failure := errors.New("the disk is full")
	err := program.Serve(t.Context(), settings.Metaserver(), "v9", process, func(_ context.Context, v *settings.Values, deps program.Deps) error {
		if v.Text("listen") != ":7" || v.Text("token") != "hidden" {
			t.Errorf("listen %q, token %q", v.Text("listen"), v.Text("token"))
		}
		if families, err := deps.Metrics.Gather(); err != nil || len(families) < 10 {
			t.Errorf("%d metrics, %v", len(families), err)
		}
		return failure
	})
	if !errors.Is(err, failure) {
		t.Errorf("got %v", err)
	}
	said := stderr.String()
	for _, part := range []string{`"msg":"begins"`, `"program":"metaserver"`, `"version":"v9"`, `"listen":":7"`, "token is short"} {
		if !strings.Contains(said, part) {
			t.Errorf("the log is %q, which lacks %s", said, part)
		}
	}
	if strings.Contains(said, "hidden") || stdout.Len() > 0 {
		t.Errorf("it said %q and %q", said, stdout.String())
	}
}

func TestMistakesEndAProgramBeforeItBegins(t *testing.T) {
	t.Parallel()
	var stderr bytes.Buffer
	process := run.Process{Args: []string{"--listen=x"}, Stderr: &stderr}
	code := program.Run(settings.Metaserver(), "", process, func(context.Context, *settings.Values, program.Deps) error {
		t.Error("it runs")
		return nil
	})
	want := "metaserver: --listen: \"x\", expected HOST:PORT or :PORT; token is missing: set --token or LINKER_TOKEN\n"
	if code != 1 || stderr.String() != want {
		t.Errorf("got %d, %q, want %q", code, stderr.String(), want)
	}
}

func TestQuestionsAreAnsweredOnStandardOutput(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--help"}, 0, "Exit codes"},
		{[]string{"--version"}, 0, "console v9 go"},
		{[]string{"--probe", server.URL}, 1, ""},
	} {
		var stdout, stderr bytes.Buffer
		process := run.Process{Args: c.args, Stdout: &stdout, Stderr: &stderr}
		code := program.Run(settings.Console(), "v9", process, func(context.Context, *settings.Values, program.Deps) error {
			t.Errorf("%v: it runs", c.args)
			return nil
		})
		if code != c.code || !strings.Contains(stdout.String(), c.want) || (code == 1) != (stderr.Len() > 0) {
			t.Errorf("%v: got %d, %q, %q", c.args, code, stdout.String(), stderr.String())
		}
	}
}
