package settings_test

import (
	"strings"
	"testing"

	"github.com/linkerhq/linker/pkg/settings"
)

func TestAShareIsANumberFromZeroToOne(t *testing.T) {
	t.Parallel()
	needed := []string{"--domain=d", "--kafka-hosts=k:1", "--nats-url=nats://n:1", "--redis-url=redis://r:1", "--meta-url=http://m:1", "--meta-token=t"}
	read := func(args ...string) (*settings.Values, error) {
		return settings.Read(settings.Connector(), append(args, needed...), nil)
	}
	for text, want := range map[string]float64{"0": 0, "1": 1, "0.25": 0.25, "1e-3": 0.001} {
		v, err := read("--otel-ratio=" + text)
		if err != nil {
			t.Fatal(err)
		}
		if got := v.Share("otel-ratio"); got != want {
			t.Errorf("%s is read as %v", text, got)
		}
	}
	v, err := read()
	if err != nil || v.Share("otel-ratio") != 0.01 {
		t.Errorf("without it: %v, %v", v, err)
	}
	for _, text := range []string{"1.1", "-0.1", "NaN", "Inf", "half", "10%"} {
		if _, err := read("--otel-ratio=" + text); err == nil || !strings.Contains(err.Error(), "expected a number from 0 to 1") {
			t.Errorf("%s: %v", text, err)
		}
	}
}
