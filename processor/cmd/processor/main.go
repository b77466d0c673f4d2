// Command processor runs one processor of a domain: it owns lanes.
package main

import (
	"context"
	"os"

	"github.com/linkerhq/linker/pkg/program"
	"github.com/linkerhq/linker/pkg/run"
	"github.com/linkerhq/linker/pkg/settings"
	"github.com/linkerhq/linker/processor"
)

// version is set where it is built: -ldflags "-X main.version=v1.2.3".
var version string

func main() {
	process := run.Process{Args: os.Args[1:], Environ: os.Environ(), Stdout: os.Stdout, Stderr: os.Stderr}
	os.Exit(program.Run(settings.Processor(), version, process, serve))
}

func serve(ctx context.Context, v *settings.Values, deps program.Deps) error {
	p, err := processor.New(config(v), processor.Deps{Log: deps.Log, Metrics: deps.Metrics})
	if err != nil {
		return err
	}
	deps.Log.Info("processor serves", "domain", v.Text("domain"), "http", p.Addr().String())
	return p.Run(ctx)
}

// config is what is set, as the processor wants it.
func config(v *settings.Values) processor.Config {
	cfg := processor.Config{
		Domain: v.Text("domain"),
		HTTP:   v.Text("http-listen"),

		HTTPToken: v.Text("http-token"),

		KafkaGeneration: uint32(v.Number("kafka-generation")),
		Lanes:           int(v.Number("lanes")),
		MetaURL:         v.Text("meta-url"),
		MetaToken:       v.Text("meta-token"),
		MetaCache:       v.Text("meta-cache"),

		MailboxURL:   v.Text("mailbox-url"),
		QuotaRows:    int(v.Number("mailbox-quota-rows")),
		QuotaBytes:   v.Number("mailbox-quota-bytes"),
		ExpireAfter:  v.Duration("mailbox-expire-after"),
		LinkRows:     int(v.Number("link-quota-rows")),
		LinkBytes:    v.Number("link-quota-bytes"),
		DeadRetain:   v.Duration("dead-retain"),
		TraceEvents:  int(v.Number("trace-events")),
		OtelEndpoint: v.Text("otel-endpoint"),
		OtelRatio:    v.Share("otel-ratio"),
		BacklogBytes: v.Number("backlog-bytes"),
	}
	cfg.Kafka.Brokers = v.List("kafka-hosts")
	cfg.Kafka.TLS = v.Switch("kafka-tls")
	cfg.Kafka.CAFile = v.Text("kafka-tls-ca")
	cfg.Kafka.CertFile = v.Text("kafka-tls-cert")
	cfg.Kafka.KeyFile = v.Text("kafka-tls-key")
	cfg.Kafka.SASL = v.Text("kafka-sasl")
	cfg.Kafka.User = v.Text("kafka-user")
	cfg.Kafka.Password = v.Text("kafka-password")
	cfg.NATS.URL = v.Text("nats-url")
	cfg.NATS.CAFile = v.Text("nats-tls-ca")
	cfg.NATS.CredentialsFile = v.Text("nats-credentials")
	cfg.Redis.URL = v.Text("redis-url")
	cfg.Redis.CAFile = v.Text("redis-tls-ca")
	cfg.LinkTLS.CertFile = v.Text("link-cert")
	cfg.LinkTLS.KeyFile = v.Text("link-key")
	cfg.LinkTLS.CAFile = v.Text("link-ca")
	return cfg
}
