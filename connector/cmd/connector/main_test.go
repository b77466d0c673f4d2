package main

import (
	"context"
	"io"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/linkerhq/linker/connector"
	"github.com/linkerhq/linker/pkg/embedded"
	"github.com/linkerhq/linker/pkg/program"
	"github.com/linkerhq/linker/pkg/run"
	"github.com/linkerhq/linker/pkg/settings"
)

func TestEverySettingReachesItsField(t *testing.T) {
	t.Parallel()
	v, err := settings.Read(settings.Connector(), []string{
		"--domain=domain-01", "--name=c-1", "--listen=:1", "--link-listen=:2", "--http-listen=:3", "--tls-cert=cert", "--tls-key=key",
		"--lanes=4", "--kafka-hosts=a:1,b:2", "--kafka-generation=5", "--kafka-tls", "--kafka-tls-ca=ca", "--kafka-tls-cert=kc", "--kafka-tls-key=kk",
		"--kafka-sasl=scram-sha-256", "--kafka-user=u", "--kafka-password=p", "--nats-url=nats://n:1", "--nats-tls-ca=nca", "--nats-credentials=nc",
		"--link-cert=lc", "--link-key=lk", "--link-ca=lca", "--redis-url=redis://r:1", "--redis-tls-ca=rca", "--meta-url=http://m:1", "--meta-token=mt", "--meta-cache=mc",
		"--frame-limit=2048", "--allowed-origins=o", "--drain-for=6s", "--drain-spread=3s",
		"--trace-events=12", "--otel-endpoint=http://o:1", "--otel-ratio=0.25", "--max-sockets=70", "--max-sockets-per-user=8", "--max-sockets-per-address=9",
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := connector.Config{
		Domain: "domain-01", Name: "c-1", Listen: ":1", Link: ":2", HTTP: ":3", TLSCert: "cert", TLSKey: "key",
		KafkaGeneration: 5, Lanes: 4, MetaURL: "http://m:1", MetaToken: "mt", MetaCache: "mc",
		FrameLimit: 2048, AllowedOrigins: []string{"o"}, DrainFor: 6 * time.Second, DrainSpread: 3 * time.Second,
		TraceEvents: 12, OtelEndpoint: "http://o:1", OtelRatio: 0.25, MaxSockets: 70, MaxSocketsPerUser: 8, MaxSocketsPerAddress: 9,
	}
	want.Kafka.Brokers = []string{"a:1", "b:2"}
	want.Kafka.TLS, want.Kafka.CAFile, want.Kafka.CertFile, want.Kafka.KeyFile = true, "ca", "kc", "kk"
	want.Kafka.SASL, want.Kafka.User, want.Kafka.Password = "scram-sha-256", "u", "p"
	want.NATS.URL, want.NATS.CAFile, want.NATS.CredentialsFile = "nats://n:1", "nca", "nc"
	want.Redis.URL, want.Redis.CAFile = "redis://r:1", "rca"
	want.LinkTLS.CertFile, want.LinkTLS.KeyFile, want.LinkTLS.CAFile = "lc", "lk", "lca"
	got := config(v)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	fields(t, reflect.ValueOf(got))
}

// fields reports what an operator cannot set.
func fields(t *testing.T, v reflect.Value) {
	t.Helper()
	for i := range v.NumField() {
		switch {
		case v.Field(i).Kind() == reflect.Struct:
			fields(t, v.Field(i))
		case v.Field(i).Kind() == reflect.Func: // a way to servers of the same process
		case v.Field(i).IsZero():
			t.Errorf("nothing sets %s", v.Type().Field(i).Name)
		}
	}
}

func TestOfTwoConnectorsWithOneNameOneEndsAndSaysWhy(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	kafka, err := embedded.Kafka("", 0, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(kafka.Close)
	nats, err := embedded.NATS(0, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nats.Close)
	redis, err := embedded.Redis(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(redis.Close)
	process := run.Process{
		Args: []string{
			"--domain=domain-01", "--name=c-1", "--listen=127.0.0.1:0", "--link-listen=127.0.0.1:0", "--http-listen=127.0.0.1:0", "--drain-for=1s",
			"--kafka-hosts=" + kafka.Addr(), "--nats-url=" + nats.URL(), "--redis-url=" + redis.URL(), "--meta-url=http://127.0.0.1:1", "--meta-token=t",
		},
		Stdout: io.Discard, Stderr: io.Discard,
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 2)
	for range 2 {
		go func() { ended <- program.Serve(ctx, settings.Connector(), "", process, serve) }()
	}
	err = <-ended // the other one would run for ever
	if err == nil || !strings.Contains(err.Error(), "c-1") || !strings.Contains(err.Error(), "another process holds the lease of this connector name") {
		t.Errorf("one ended with %v", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("the other one ended with %v", err)
	}
}
