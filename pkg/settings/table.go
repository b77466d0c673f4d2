package settings

import (
	"slices"
	"time"
)

// Programs lists all programs that read their settings here.
func Programs() []Program {
	return []Program{Connector(), Processor(), Metaserver(), Console()}
}

// Connector is the program that clients connect to.
func Connector() Program {
	return Program{
		Name: "connector",
		About: `Takes the websockets of clients, logs users in, and carries messages between
them and the log and the live plane of its domain. Any number of connectors
serve a domain. It starts while brokers, stores and the meta server are away,
and is ready when they are there.`,
		Example: `connector --domain domain-01 --kafka-hosts kafka:9092 \
      --nats-url nats://nats:4222 --redis-url redis://redis:6379 \
      --meta-url http://metaserver:9000 --meta-token-file /run/secrets/meta-token`,
		Keys: slices.Concat([]Key{
			domain(),
			Key{Name: "name", Group: "The domain", Kind: Text, Stands: "connector- and 8 random digits", Value: "NAME", Meaning: "the connector's name; no two that run may share one"}.named(),
			listen(":8088", "websockets of clients"),
			Key{Name: "link-listen", Group: "Ports", Kind: Text, Default: ":9089", Value: "HOST:PORT", Meaning: "links of neighbouring domains"}.address(true),
			health(":8080"),
			{Name: "tls-cert", Group: "Clients", Kind: Text, Value: "FILE", Meaning: "certificate for wss in place of ws; read again when it changes", with: []string{"tls-key"}},
			{Name: "tls-key", Group: "Clients", Kind: Text, Value: "FILE", Meaning: "its key", with: []string{"tls-cert"}},
			Key{Name: "frame-limit", Group: "Clients", Kind: Number, Default: "65536", Value: "BYTES", Meaning: "the largest message of a client"}.within(1024, 128<<10),
			Key{Name: "allowed-origins", Group: "Clients", Kind: List, Stands: "any", Value: "HOST,...", Meaning: "hosts of pages that may connect; * and ? stand for any characters and any one"}.origins(),
			Key{Name: "max-sockets", Group: "Clients", Kind: Number, Default: "0", Value: "COUNT", Meaning: "open at once, a tenth of them without a login; 0: any number"}.within(0, 0),
			Key{Name: "max-sockets-per-user", Group: "Clients", Kind: Number, Default: "0", Value: "COUNT", Meaning: "of one user at this connector; 0: any number"}.within(0, 0),
			Key{Name: "max-sockets-per-address", Group: "Clients", Kind: Number, Default: "0", Value: "COUNT", Meaning: "from one IP address; 0: any number"}.within(0, 0),
			Key{Name: "drain-for", Group: "Clients", Kind: Duration, Default: "25s", Value: "TIME", Meaning: "how long the end may take at most"}.within(int64(time.Millisecond), 0),
			Key{Name: "drain-spread", Group: "Clients", Kind: Duration, Default: "10s", Value: "TIME", Meaning: "over which clients are sent away at the end, at most half of drain-for; 0: at once"}.within(0, 0),
		}, links(), log(), livePlane(), leases(), network(), traces(), common()),
	}
}

// Processor is the program that owns lanes.
func Processor() Program {
	return Program{
		Name: "processor",
		About: `Owns lanes of its domain: decides whether a message goes to sockets or into the
mailbox, serves fetches, tells masters who comes and goes. Any number of
processors share the lanes of a domain. It starts while brokers, stores and the
meta server are away, and is ready when they are there.`,
		Example: `processor --domain domain-01 --kafka-hosts kafka:9092 \
      --nats-url nats://nats:4222 --redis-url redis://redis:6379 \
      --mailbox-url mongodb://mongodb:27017 \
      --meta-url http://metaserver:9000 --meta-token-file /run/secrets/meta-token`,
		Keys: slices.Concat([]Key{
			domain(),
			health(":8081"),
			{Name: "http-token", Group: "Ports", Kind: Text, Secret: true, Value: "TOKEN", Meaning: "whoever shows it may ask for /v1/…: links, routes, network, users, messages, profiles, and dead letters, which it may replay and purge; without it only this machine may"},
			Key{Name: "mailbox-url", Group: "The mailbox", Kind: Text, Required: true, Secret: true, Value: "URL", Meaning: "MongoDB or a directory; the database is the one in the URL's path, else linker_DOMAIN"}.mailbox(),
			Key{Name: "mailbox-quota-rows", Group: "The mailbox", Kind: Number, Default: "100000", Value: "COUNT", Meaning: "messages that may wait for one user; 0: any number"}.within(0, 0),
			Key{Name: "mailbox-quota-bytes", Group: "The mailbox", Kind: Number, Default: "268435456", Value: "BYTES", Meaning: "what waits for one user may have that many; 0: any number"}.within(0, 0),
			Key{Name: "mailbox-expire-after", Group: "The mailbox", Kind: Duration, Default: "720h", Value: "TIME", Meaning: "how long a message waits at most; 0: for ever"}.within(0, 0),
			Key{Name: "dead-retain", Group: "The mailbox", Kind: Duration, Default: "720h", Value: "TIME", Meaning: "how long a dead letter is kept for operators; 0: for ever"}.within(0, 0),
			Key{Name: "link-quota-rows", Group: "The mailbox", Kind: Number, Default: "1000000", Value: "COUNT", Meaning: "messages that may wait for the road to one other domain; 0: any number"}.within(0, 0),
			Key{Name: "link-quota-bytes", Group: "The mailbox", Kind: Number, Default: "4294967296", Value: "BYTES", Meaning: "what waits for the road to one other domain may have that many; 0: any number"}.within(0, 0),
		}, links(), log(), []Key{
			Key{Name: "backlog-bytes", Group: "The log", Kind: Number, Default: "0", Value: "BYTES", Meaning: "of one lane, from which on connectors accept nothing for it; 0: half of what the topic retains (retention.bytes), none if that is unlimited"}.within(0, 0),
		}, livePlane(), leases(), network(), traces(), common()),
	}
}

// Metaserver is the program that serves the description of the network.
func Metaserver() Program {
	return Program{
		Name: "metaserver",
		About: `Serves the description of the network, its domains, links, client apps and user
distributions, from one YAML file. The file may be edited while it runs: a save
takes effect within two seconds.`,
		Example: `metaserver --file /etc/linker/network.yaml --token-file /run/secrets/meta-token`,
		Keys: slices.Concat([]Key{
			listen(":9000", "the network, health and metrics"),
			{Name: "file", Group: "The network", Kind: Text, Default: "network.yaml", Value: "FILE", Meaning: "the YAML file of the network; it must exist"},
			Key{Name: "token", Group: "The network", Kind: Text, Required: true, Secret: true, Value: "TOKEN", Meaning: "what services must show; the meta-token of all of them"}.token(),
		}, common()),
	}
}

// Console is the program that serves the page for people.
func Console() Program {
	return Program{
		Name: "console",
		About: `Serves one page with which a person tries a running system, and which shows the
network as a picture: domains, links, and which users are where. The page speaks
to the connectors itself, as any client does; this program hands out files and
the list of domains and apps, and asks the processors while somebody looks.`,
		Example: `console --meta-url http://metaserver:9000 \
      --processor-url domain-01=http://processor:8081`,
		Keys: slices.Concat([]Key{
			listen(":4400", "the page"),
			metaURL(),
			Key{Name: "websocket-url", Group: "The network", Kind: List, Stands: "the domains of the meta server", Value: "DOMAIN=URL,...", Meaning: "what the page offers to connect to"}.pairs("ws", "wss"),
			Key{Name: "processor-url", Group: "The picture", Kind: List, Value: "DOMAIN=URL,...", Meaning: "processors to ask, best all of a domain; of others the picture shows what those say"}.pairs("http", "https"),
			Key{Name: "processor-token", Group: "The picture", Kind: Text, Secret: true, Value: "TOKEN", Meaning: "the http-token of these processors"}.token(),
		}, common()),
	}
}

func domain() Key {
	return Key{Name: "domain", Group: "The domain", Kind: Text, Required: true, Value: "NAME", Meaning: "the domain's name, as in the description of the network"}.named()
}

func listen(standard, what string) Key {
	return Key{Name: "listen", Group: "Ports", Kind: Text, Default: standard, Value: "HOST:PORT", Meaning: what}.address(true)
}

func health(standard string) Key {
	return Key{Name: "http-listen", Group: "Ports", Kind: Text, Default: standard, Value: "HOST:PORT", Meaning: "/healthz, /readyz and /metrics"}.address(true)
}

// links is what a domain proves to its neighbours that it is itself with.
func links() []Key {
	const group = "Links"
	return []Key{
		{Name: "link-cert", Group: group, Kind: Text, Value: "FILE", Meaning: "certificate for links without a key; the domain's name is a DNS name in it; read again when it changes", with: []string{"link-key", "link-ca"}},
		{Name: "link-key", Group: group, Kind: Text, Value: "FILE", Meaning: "its key", with: []string{"link-cert", "link-ca"}},
		{Name: "link-ca", Group: group, Kind: Text, Value: "FILE", Meaning: "who signs the certificates of neighbouring domains; read again when it changes", with: []string{"link-cert", "link-key"}},
	}
}

// log is Kafka.
func log() []Key {
	const group = "The log"
	return []Key{
		Key{Name: "kafka-hosts", Group: group, Kind: List, Required: true, Value: "HOST:PORT,...", Meaning: "brokers of Kafka; the others are found through them"}.address(false),
		Key{Name: "lanes", Group: group, Kind: Number, Default: "24", Value: "COUNT", Meaning: "partitions of the domain's log; the same for all services, for ever"}.within(1, 10000),
		Key{Name: "kafka-generation", Group: group, Kind: Number, Default: "1", Value: "NUMBER", Meaning: "to be raised when the log's topic was made anew"}.within(1, 1<<31-1),
		{Name: "kafka-tls", Group: group, Kind: Switch, Default: "false", Meaning: "TLS towards the brokers"},
		{Name: "kafka-tls-ca", Group: group, Kind: Text, Stands: "those of the system", Value: "FILE", Meaning: "certificates to trust; implies kafka-tls"},
		{Name: "kafka-tls-cert", Group: group, Kind: Text, Value: "FILE", Meaning: "the client's certificate; implies kafka-tls", with: []string{"kafka-tls-key"}},
		{Name: "kafka-tls-key", Group: group, Kind: Text, Value: "FILE", Meaning: "its key; implies kafka-tls", with: []string{"kafka-tls-cert"}},
		Key{Name: "kafka-sasl", Group: group, Kind: Text, Value: "MECHANISM", Meaning: "plain, scram-sha-256 or scram-sha-512", with: []string{"kafka-user", "kafka-password"}}.oneOf("plain", "scram-sha-256", "scram-sha-512"),
		{Name: "kafka-user", Group: group, Kind: Text, Value: "NAME", Meaning: "who logs in to Kafka", with: []string{"kafka-sasl"}},
		{Name: "kafka-password", Group: group, Kind: Text, Secret: true, Value: "PASSWORD", Meaning: "with that password", with: []string{"kafka-sasl"}},
	}
}

// livePlane is NATS.
func livePlane() []Key {
	const group = "The live plane"
	return []Key{
		Key{Name: "nats-url", Group: group, Kind: Text, Required: true, Secret: true, Value: "URL,...", Meaning: "NATS: nats:// or tls://, with user and password or a token if need be"}.url("nats://HOST:PORT or tls://HOST:PORT, several with commas"+escapes, true, "nats", "tls"),
		{Name: "nats-tls-ca", Group: group, Kind: Text, Stands: "those of the system", Value: "FILE", Meaning: "certificates to trust; implies TLS"},
		{Name: "nats-credentials", Group: group, Kind: Text, Value: "FILE", Meaning: "a .creds file with a user's token and key"},
	}
}

// leases is Redis.
func leases() []Key {
	const group = "The leases"
	return []Key{
		Key{Name: "redis-url", Group: group, Kind: Text, Required: true, Secret: true, Value: "URL", Meaning: "Redis: redis:// or rediss://, with user and password if need be"}.url("redis://HOST:PORT or rediss://HOST:PORT"+escapes, false, "redis", "rediss"),
		{Name: "redis-tls-ca", Group: group, Kind: Text, Stands: "those of the system", Value: "FILE", Meaning: "certificates to trust"},
	}
}

// escapes is said of URLs that may carry a password.
const escapes = ", with %XX for / @ : # ? % in a password"

// network is the meta server, for services.
func network() []Key {
	return []Key{
		metaURL(),
		Key{Name: "meta-token", Group: "The network", Kind: Text, Required: true, Secret: true, Value: "TOKEN", Meaning: "the token of the meta server"}.token(),
		{Name: "meta-cache", Group: "The network", Kind: Text, Value: "FILE", Meaning: "keeps the last good description, for a start while the meta server is away"},
	}
}

// traces is what is remembered of messages.
func traces() []Key {
	return []Key{
		Key{Name: "trace-events", Group: "Traces", Kind: Number, Default: "131072", Value: "COUNT", Meaning: "events of messages that are remembered, for GET /v1/messages/ID of the processors; 64 bytes of memory each, once used; 0: none"}.within(0, 1<<26),
		Key{Name: "otel-endpoint", Group: "Traces", Kind: Text, Value: "URL", Meaning: "collector of OpenTelemetry (OTLP over HTTP) that gets spans of messages"}.url("http://HOST:PORT or https://HOST:PORT", false, "http", "https"),
		Key{Name: "otel-ratio", Group: "Traces", Kind: Text, Default: "0.01", Value: "SHARE", Meaning: "the share of messages that it gets spans of; the same for all services"}.share(),
	}
}

func metaURL() Key {
	return Key{Name: "meta-url", Group: "The network", Kind: Text, Required: true, Value: "URL", Meaning: "the meta server"}.url("http://HOST:PORT or https://HOST:PORT", false, "http", "https")
}

// common is what every program has.
func common() []Key {
	const group = "The program"
	return []Key{
		{Name: configKey, Group: group, Kind: Text, Value: "FILE", Meaning: "YAML file of settings, lines KEY: VALUE"},
		Key{Name: "log-level", Group: group, Kind: Text, Default: "info", Value: "LEVEL", Meaning: "debug, info, warn or error"}.oneOf("debug", "info", "warn", "error"),
		Key{Name: "log-format", Group: group, Kind: Text, Default: "text", Value: "FORMAT", Meaning: "text or json; the log goes to standard error"}.oneOf("text", "json"),
	}
}
