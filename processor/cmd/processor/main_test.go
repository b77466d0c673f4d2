package main

import (
	"reflect"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/settings"
	"github.com/linkerhq/linker/processor"
)

func TestEverySettingReachesItsField(t *testing.T) {
	t.Parallel()
	v, err := settings.Read(settings.Processor(), []string{
		"--domain=domain-01", "--http-listen=:3",
		"--lanes=4", "--kafka-hosts=a:1,b:2", "--kafka-generation=5", "--kafka-tls", "--kafka-tls-ca=ca", "--kafka-tls-cert=kc", "--kafka-tls-key=kk",
		"--kafka-sasl=scram-sha-256", "--kafka-user=u", "--kafka-password=p", "--nats-url=nats://n:1", "--nats-tls-ca=nca", "--nats-credentials=nc",
		"--link-cert=lc", "--link-key=lk", "--link-ca=lca", "--redis-url=redis://r:1", "--redis-tls-ca=rca", "--meta-url=http://m:1", "--meta-token=mt", "--meta-cache=mc",
		"--mailbox-url=file:d", "--mailbox-quota-rows=6", "--mailbox-quota-bytes=7", "--mailbox-expire-after=8s", "--backlog-bytes=9",
		"--http-token=ht", "--link-quota-rows=10", "--link-quota-bytes=11", "--dead-retain=13s", "--trace-events=12", "--otel-endpoint=http://o:1", "--otel-ratio=0.25",
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := processor.Config{
		Domain: "domain-01", HTTP: ":3", KafkaGeneration: 5, Lanes: 4, MetaURL: "http://m:1", MetaToken: "mt", MetaCache: "mc",
		MailboxURL: "file:d", QuotaRows: 6, QuotaBytes: 7, ExpireAfter: 8 * time.Second, BacklogBytes: 9,
		HTTPToken: "ht", LinkRows: 10, LinkBytes: 11, DeadRetain: 13 * time.Second, TraceEvents: 12, OtelEndpoint: "http://o:1", OtelRatio: 0.25,
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
