package processor_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/processor"
)

func TestAMailboxThatCannotBeOpenedIsAnErrorWithoutItsPassword(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, url := range []string{
		"", "mysql://u:s3cret@h", "file:", "file:" + file, "mongodb://u:s3cret@h:99999", "mongodb://u:s3/cret@h", "mongodb://u:s3cret@h/?w=-1",
	} {
		cfg := processor.Config{Domain: "d", HTTP: "127.0.0.1:0", MailboxURL: url, MetaURL: "http://127.0.0.1:1", MetaToken: "t"}
		cfg.Kafka.Brokers, cfg.NATS.URL, cfg.Redis.URL = []string{"127.0.0.1:1"}, "nats://127.0.0.1:1", "redis://127.0.0.1:1"
		p, err := processor.New(cfg, processor.Deps{Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
		if err == nil {
			p.Close()
			t.Errorf("%q is accepted", url)
			continue
		}
		if strings.Contains(err.Error(), "s3") {
			t.Errorf("%q: the error quotes the password: %v", url, err)
		}
	}
}
