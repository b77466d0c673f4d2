package main

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/linkerhq/linker/pkg/program"
	"github.com/linkerhq/linker/pkg/settings"
	"github.com/linkerhq/linker/standalone/internal/console"
)

func TestTheDomainsAreThoseThatAreSetElseThoseOfTheMetaServer(t *testing.T) {
	t.Parallel()
	deps := program.Deps{Log: slog.New(slog.DiscardHandler)}
	v, err := settings.Read(settings.Console(), []string{"--meta-url=http://m:1", "--websocket-url=domain-01=ws://a/ws,domain-02=wss://b/ws?a=b"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg := config(v, deps)
	want := []console.Domain{{Name: "domain-01", URL: "ws://a/ws"}, {Name: "domain-02", URL: "wss://b/ws?a=b"}}
	if !slices.Equal(cfg.Domains, want) || cfg.Find != nil || cfg.Apps == nil {
		t.Errorf("got %+v", cfg)
	}
	v, err = settings.Read(settings.Console(), []string{"--meta-url=http://m:1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if cfg := config(v, deps); len(cfg.Domains) > 0 || cfg.Find == nil {
		t.Errorf("got %+v", cfg)
	}
}

func TestEachDomainIsToldWhereItsProcessorsAre(t *testing.T) {
	t.Parallel()
	deps := program.Deps{Log: slog.New(slog.DiscardHandler)}
	meta := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `[{"name":"domain-01","urls":["ws://a/ws"]},{"name":"domain-02","urls":["ws://b/ws"]}]`)
	}))
	t.Cleanup(meta.Close)
	processors := "--processor-url=domain-03=https://c:1,domain-01=http://a:1,domain-01=http://a:2"
	v, err := settings.Read(settings.Console(), []string{"--meta-url=" + meta.URL, processors, "--processor-token=secret"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg := config(v, deps)
	want := []console.Domain{
		{Name: "domain-01", URL: "ws://a/ws", Processor: "http://a:1,http://a:2"},
		{Name: "domain-02", URL: "ws://b/ws"},
		{Name: "domain-03", Processor: "https://c:1"},
	}
	for range 2 { // it is asked again and again
		if got := cfg.Find(); !slices.Equal(got, want) || cfg.Token != "secret" {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	v, err = settings.Read(settings.Console(), []string{"--meta-url=" + meta.URL, processors, "--websocket-url=domain-01=ws://d/ws"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want = []console.Domain{{Name: "domain-01", URL: "ws://d/ws", Processor: "http://a:1,http://a:2"}, {Name: "domain-03", Processor: "https://c:1"}}
	if got := config(v, deps).Domains; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestAProcessorNeedsItsDomainAndAnAddressOfHTTP(t *testing.T) {
	t.Parallel()
	for _, value := range []string{"http://a:1", "domain-01=ws://a:1", "Domain=http://a:1", "domain-01="} {
		_, err := settings.Read(settings.Console(), []string{"--meta-url=http://m:1", "--processor-url=" + value}, nil)
		if err == nil || !strings.Contains(err.Error(), "expected a list of DOMAIN=http://… or DOMAIN=https://…") {
			t.Errorf("%s: got %v", value, err)
		}
	}
}
