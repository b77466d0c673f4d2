package main

import (
	"log/slog"
	"slices"
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
