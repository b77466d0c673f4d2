// Command connector runs one connector of a domain: clients connect to it.
package main

import (
	"context"
	"os"

	"github.com/linkerhq/linker/connector"
	"github.com/linkerhq/linker/pkg/program"
	"github.com/linkerhq/linker/pkg/run"
	"github.com/linkerhq/linker/pkg/settings"
)

// version is set where it is built: -ldflags "-X main.version=v1.2.3".
var version string

func main() {
	process := run.Process{Args: os.Args[1:], Environ: os.Environ(), Stdout: os.Stdout, Stderr: os.Stderr}
	os.Exit(program.Run(settings.Connector(), version, process, serve))
}

func serve(ctx context.Context, v *settings.Values, deps program.Deps) error {
	c, err := connector.New(config(v), connector.Deps{Log: deps.Log, Metrics: deps.Metrics})
	if err != nil {
		return err
	}
	return c.Run(ctx)
}

// config is what is set, as the connector wants it.
func config(v *settings.Values) connector.Config {
	cfg := connector.Config{
		Domain: v.Text("domain"),
		Name:   v.Text("name"),
		Listen: v.Text("listen"),
		Link:   v.Text("link-listen"),
		HTTP:   v.Text("http-listen"),

		TLSCert: v.Text("tls-cert"),
		TLSKey:  v.Text("tls-key"),

		KafkaGeneration: uint32(v.Number("kafka-generation")),
		Lanes:           int(v.Number("lanes")),
		MetaURL:         v.Text("meta-url"),
		MetaToken:       v.Text("meta-token"),
		MetaCache:       v.Text("meta-cache"),

		FrameLimit:     int(v.Number("frame-limit")),
		AllowedOrigins: v.List("allowed-origins"),

		MaxSockets:           int(v.Number("max-sockets")),
		MaxSocketsPerUser:    int(v.Number("max-sockets-per-user")),
		MaxSocketsPerAddress: int(v.Number("max-sockets-per-address")),

		TraceEvents:  int(v.Number("trace-events")),
		OtelEndpoint: v.Text("otel-endpoint"),
		OtelRatio:    v.Share("otel-ratio"),
		DrainFor:     v.Duration("drain-for"),
		DrainSpread:  v.Duration("drain-spread"),
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
