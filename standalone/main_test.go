package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// page takes what the program prints.
type page struct {
	mu   sync.Mutex
	text strings.Builder // guarded by mu
	said chan struct{}   // capacity 1
}

func (p *page) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case p.said <- struct{}{}:
	default:
	}
	return p.text.Write(b)
}

func (p *page) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// onFreePorts are the arguments of a program that disturbs nobody.
func onFreePorts(data string, more ...string) []string {
	return append(more, "--data", data, "--host", "127.0.0.1", "--websocket-port", "0", "--link-port", "0",
		"--connector-http-port", "0", "--processor-http-port", "0", "--meta-port", "0", "--console-port", "0", "--log-level", "ERROR")
}

func TestTheProgramRunsAsManyDomainsAsItIsTold(t *testing.T) {
	t.Parallel()
	for asked, want := range map[string][]string{
		"1": {"one domain, domain-01", "websocket    ws://", "link         tcp://", "console      http://"},
		"3": {"3 domains", "domain     websocket", "domain-01  ws://", "domain-02  ws://", "domain-03  ws://", "console      http://"},
	} {
		t.Run(asked, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			stdout := &page{said: make(chan struct{}, 1)}
			ended := make(chan error, 1)
			data := t.TempDir()
			go func() { ended <- runStandalone(ctx, onFreePorts(data, "--domains", asked), stdout, io.Discard) }()
			for !strings.Contains(stdout.String(), "\nready after ") {
				select {
				case <-stdout.said:
				case err := <-ended:
					t.Fatalf("it ended: %v", err)
				}
			}
			for _, text := range append(want, "data         "+data, "network      "+filepath.Join(data, "network.yaml")) {
				if !strings.Contains(stdout.String(), text) {
					t.Errorf("it does not say %q:\n%s", text, stdout)
				}
			}
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestArgumentsThatMakeNoSenseAreNamed(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"--domains 0":                    `invalid value "0" for flag -domains: expected 1 to 16`,
		"--domains 17":                   `invalid value "17" for flag -domains: expected 1 to 16`,
		"--domains four":                 `invalid value "four" for flag -domains: expected 1 to 16`,
		"--link-port 70000":              "--link-port 70000: expected 0 to 65535",
		"--domains 3 four":               `unexpected argument "four"`,
		"--domain 3":                     "not defined: -domain",
		"--meta nowhere.yaml":            "nowhere.yaml",
		"--domains 16 --link-port 65000": "--link-port 65000: the port of domain 16 would be 66500",
	} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			data := filepath.Join(t.TempDir(), "data")
			err := runStandalone(t.Context(), append([]string{"--data", data}, strings.Fields(args)...), io.Discard, io.Discard)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %s", err, want)
			}
			if _, err := os.Stat(filepath.Join(data, "network.yaml")); err == nil {
				t.Error("a network was written")
			}
		})
	}
}
