package settings_test

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linkerhq/linker/pkg/settings"
)

// needed is what a processor cannot do without.
func needed() []string {
	return []string{
		"LINKER_DOMAIN=domain-01", "LINKER_KAFKA_HOSTS=kafka:9092", "LINKER_NATS_URL=nats://nats:4222", "LINKER_REDIS_URL=redis://redis:6379",
		"LINKER_MAILBOX_URL=file:data", "LINKER_META_URL=http://meta:9000", "LINKER_META_TOKEN=0123456789abcdef",
	}
}

func write(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// value reads any key of a program.
func value(t *testing.T, p settings.Program, v *settings.Values, name string) any {
	t.Helper()
	for _, k := range p.Keys {
		if k.Name != name {
			continue
		}
		switch k.Kind {
		case settings.Text:
			return v.Text(name)
		case settings.Switch:
			return v.Switch(name)
		case settings.Number:
			return v.Number(name)
		case settings.Duration:
			return v.Duration(name)
		case settings.List:
			return v.List(name)
		}
	}
	t.Fatalf("%s has no %s", p.Name, name)
	return nil
}

func TestAFlagCountsBeforeAVariableThatBeforeTheFileThatBeforeTheDefault(t *testing.T) {
	t.Parallel()
	connector, processor := settings.Connector(), settings.Processor()
	for _, c := range []struct {
		program              settings.Program
		key                  string
		flag, variable, file string // as they are written there
		want                 [4]any // from the flag, the variable, the file, the default
	}{
		{connector, "listen", ":1", ":2", `":3"`, [4]any{":1", ":2", ":3", ":8088"}},
		{connector, "name", "c-1", "c-2", "c-3", [4]any{"c-1", "c-2", "c-3", ""}},
		{connector, "kafka-tls", "true", "false", "true", [4]any{true, false, true, false}},
		{connector, "lanes", "1", "2", "3", [4]any{int64(1), int64(2), int64(3), int64(24)}},
		{connector, "drain-for", "1s", "2m", "3h", [4]any{time.Second, 2 * time.Minute, 3 * time.Hour, 25 * time.Second}},
		{connector, "drain-spread", "0", "2m", "3h", [4]any{time.Duration(0), 2 * time.Minute, 3 * time.Hour, 10 * time.Second}},
		{connector, "max-sockets", "1", "2", "0", [4]any{int64(1), int64(2), int64(0), int64(0)}},
		{connector, "allowed-origins", "a, b", "c", "[d, e]", [4]any{[]string{"a", "b"}, []string{"c"}, []string{"d", "e"}, []string(nil)}},
		{connector, "allowed-origins", "", "a", "'b, c'", [4]any{[]string{}, []string{"a"}, []string{"b", "c"}, []string(nil)}},
		{processor, "mailbox-quota-rows", "1", "2", "0", [4]any{int64(1), int64(2), int64(0), int64(100000)}},
		{processor, "mailbox-expire-after", "1h", "2h", "0", [4]any{time.Hour, 2 * time.Hour, time.Duration(0), 720 * time.Hour}},
	} {
		for i, want := range c.want {
			var args []string
			environ := needed()
			if i < 3 {
				args = append(args, "--config", write(t, "settings.yaml", c.key+": "+c.file+"\n"))
			}
			if i < 2 {
				environ = append(environ, variable(c.key)+"="+c.variable)
			}
			if i < 1 {
				args = append(args, "--"+c.key+"="+c.flag)
			}
			v, err := settings.Read(c.program, args, environ)
			if err != nil {
				t.Errorf("%s, %d: %v", c.key, i, err)
				continue
			}
			if got := value(t, c.program, v, c.key); !reflect.DeepEqual(got, want) {
				t.Errorf("%s, %d: got %#v, want %#v", c.key, i, got, want)
			}
		}
	}
}

func variable(key string) string { return settings.Key{Name: key}.Environment() }

func TestTheFormsOfFlags(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"--kafka-tls", "--lanes", "7"},
		{"--kafka-tls=true", "--lanes=7"},
		{"--lanes", "5", "--kafka-tls=1", "--lanes", "7"}, // the last one counts
	} {
		v, err := settings.Read(settings.Processor(), args, needed())
		if err != nil {
			t.Errorf("%v: %v", args, err)
			continue
		}
		if !v.Switch("kafka-tls") || v.Number("lanes") != 7 {
			t.Errorf("%v: got %v, %d", args, v.Switch("kafka-tls"), v.Number("lanes"))
		}
	}
}

func TestAFlagThatIsEmptyTakesAValueAway(t *testing.T) {
	t.Parallel()
	v, err := settings.Read(settings.Processor(), []string{"--meta-cache", ""}, append(needed(), "LINKER_META_CACHE=cache.json"))
	if err != nil || v.Text("meta-cache") != "" {
		t.Errorf("got %v, %v", v, err)
	}
	_, err = settings.Read(settings.Processor(), []string{"--domain="}, needed())
	if err == nil || !strings.Contains(err.Error(), "domain is missing") {
		t.Errorf("a domain that was taken away: %v", err)
	}
	_, err = settings.Read(settings.Processor(), []string{"--kafka-hosts="}, needed())
	if err == nil || !strings.Contains(err.Error(), "kafka-hosts is missing") {
		t.Errorf("hosts that were taken away: %v", err)
	}
	v, err = settings.Read(settings.Processor(), []string{"--log-level="}, append(needed(), "LINKER_LOG_LEVEL=debug"))
	if err != nil || v.Text("log-level") != "info" {
		t.Errorf("a level that was taken away: %v, %v", v, err)
	}
}

func TestASecretCanComeFromAFile(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"s3cr3t": "s3cr3t", "s3cr3t\n": "s3cr3t", "s3cr3t\r\n": "s3cr3t", "two\nlines": "", "s3cr3t\n\n": ""} {
		path := write(t, "token", text)
		yaml := write(t, "settings.yaml", "meta-token-file: "+path)
		environ := slices.DeleteFunc(needed(), func(v string) bool { return strings.HasPrefix(v, "LINKER_META_TOKEN") })
		for _, c := range []struct{ args, environ []string }{
			{[]string{"--meta-token-file", path}, environ},
			{nil, append(environ, "LINKER_META_TOKEN_FILE="+path)},
			{[]string{"--config", yaml}, environ},
		} {
			v, err := settings.Read(settings.Processor(), c.args, c.environ)
			if want == "" {
				if err == nil || !strings.Contains(err.Error(), "printable characters") || strings.Contains(err.Error(), "s3cr3t") {
					t.Errorf("%q: got %v", text, err)
				}
				continue
			}
			if err != nil {
				t.Errorf("%q: %v", text, err)
				continue
			}
			if got := v.Text("meta-token"); got != want {
				t.Errorf("%q: got %q, want %q", text, got, want)
			}
		}
	}
}

func TestEachMistakeIsNamedWithItsPlaceItsValueAndWhatWasExpected(t *testing.T) {
	t.Parallel()
	short := write(t, "empty", "\n")
	for name, c := range map[string]struct {
		args    []string
		environ []string
		file    string
		want    []string // parts of what is said
	}{
		"text":                   {args: []string{"--domain", "Domain 1"}, want: []string{`--domain: "Domain 1"`, "lower-case letters"}},
		"a choice":               {environ: []string{"LINKER_LOG_LEVEL=loud"}, want: []string{`LINKER_LOG_LEVEL: "loud"`, "debug, info, warn or error"}},
		"a mechanism":            {args: []string{"--kafka-sasl=md5", "--kafka-user=u", "--kafka-password=p"}, want: []string{`--kafka-sasl: "md5"`, "plain, scram-sha-256 or scram-sha-512"}},
		"a switch":               {args: []string{"--kafka-tls=perhaps"}, want: []string{`--kafka-tls: "perhaps"`, "true or false"}},
		"a switch in YAML":       {file: "kafka-tls: yes\n", want: []string{`settings.yaml:1: kafka-tls: "yes"`, "true or false"}},
		"a number":               {file: "\n# lanes\nlanes: many\n", want: []string{`settings.yaml:3: lanes: "many"`, "a whole number from 1 to 10000"}},
		"a number that is small": {environ: []string{"LINKER_LANES=0"}, want: []string{`LINKER_LANES: "0"`, "from 1"}},
		"a number that is huge":  {args: []string{"--mailbox-quota-bytes=99999999999999999999"}, want: []string{"--mailbox-quota-bytes", "a whole number of at least 0"}},
		"a time":                 {args: []string{"--mailbox-expire-after=30d"}, want: []string{`--mailbox-expire-after: "30d"`, "a duration such as 25s or 720h"}},
		"a time without unit":    {args: []string{"--mailbox-expire-after=30"}, want: []string{`"30"`, "a duration"}},
		"a negative time":        {args: []string{"--mailbox-expire-after=-1s"}, want: []string{`"-1s"`, "a duration"}},
		"a host without port":    {environ: []string{"LINKER_KAFKA_HOSTS=kafka:9092,kafka-2"}, want: []string{`"kafka:9092,kafka-2"`, "a list of HOST:PORT"}},
		"a list with a hole":     {file: "kafka-hosts: [a:1, '', b:2]\n", want: []string{"settings.yaml:1: kafka-hosts: "}},
		"a list with a null":     {file: "kafka-hosts: [a:1, null]\n", want: []string{"settings.yaml:1: kafka-hosts: [a:1, ]", "a list of HOST:PORT"}},
		"a list of lists":        {file: "kafka-hosts: [[a:1]]\n", want: []string{"settings.yaml:1: kafka-hosts: "}},
		"an address":             {args: []string{"--http-listen=8081"}, want: []string{`--http-listen: "8081"`, "HOST:PORT or :PORT"}},
		"a port":                 {args: []string{"--http-listen=:80810"}, want: []string{`":80810"`}},
		"a URL":                  {args: []string{"--meta-url=meta:9000"}, want: []string{`--meta-url: "meta:9000"`, "http://HOST:PORT"}},
		"a secret URL":           {args: []string{"--nats-url=ws://u:hidden@nats"}, want: []string{"--nats-url: a value that does not fit, expected nats://HOST:PORT or tls://"}},
		"a mailbox":              {args: []string{"--mailbox-url=sqlite:hidden"}, want: []string{"--mailbox-url: a value", "mongodb://…, mongodb+srv://…, file:DIR"}},
		"text that is a list":    {file: "domain: [a, b]\n", want: []string{"settings.yaml:1: domain: a list"}},
		"a number that is a map": {file: "lanes: {a: 1}\n", want: []string{"settings.yaml:1: lanes: a group of keys"}},
		"a secret list":          {file: "meta-token: [hidden]\n", want: []string{"settings.yaml:1: meta-token: a value that does not fit"}},

		"an unknown flag":             {args: []string{"--kafka-host=a:1"}, want: []string{"no flag --kafka-host; did you mean --kafka-hosts?"}},
		"an unknown flag and a value": {args: []string{"--colour", "red"}, want: []string{"no flag --colour"}},
		"two unknown flags":           {args: []string{"--aaaaaaaaaa", "--bbbbbbbbbb=1"}, want: []string{"--aaaaaaaaaa", "--bbbbbbbbbb"}},
		"one dash":                    {args: []string{"-domain=a"}, want: []string{"no flag -d", "two dashes"}},
		"one dash after another":      {args: []string{"-xyz", "-xyz", "-x"}, want: []string{"no flag -x"}},
		"a flag without value":        {args: []string{"--lanes"}, want: []string{"--lanes: nothing given"}},
		"three dashes":                {args: []string{"---lanes=1"}, want: []string{"command line"}},
		"an argument":                 {args: []string{"--lanes", "1", "start"}, want: []string{"argument 3 belongs to no flag"}},
		"an unknown variable":         {environ: []string{"LINKER_KAFKA_HOST=hidden"}, want: []string{"LINKER_KAFKA_HOST: no program has such a setting; did you mean LINKER_KAFKA_HOSTS?"}},
		"a variable in lower case":    {environ: []string{"LINKER_lanes=hidden"}, want: []string{"LINKER_lanes", "LINKER_LANES"}},
		"an unknown key":              {file: "domain: a\nkafka_hosts: hidden\n", want: []string{"settings.yaml:2: kafka_hosts: processor has no such setting; did you mean kafka-hosts?"}},
		"a key of others":             {file: "allowed-origins: [hidden]\n", want: []string{"settings.yaml:1: allowed-origins: processor has no such setting, which is one of connector"}},
		"a group of keys":             {file: "kafka:\n  hosts: hidden\n", want: []string{"settings.yaml:1: kafka: processor has no such setting"}},
		"a key twice":                 {file: "lanes: 4\ndomain: a\nlanes: 5\n", want: []string{"settings.yaml:3: lanes: stands in line 1 already"}},
		"a file that names a file":    {file: "config: other.yaml\n", want: []string{"settings.yaml:1: config: the file cannot name another one"}},
		"no YAML":                     {file: "lanes: [1\n", want: []string{"settings.yaml: not YAML: line "}},
		"no YAML that quotes":         {file: "meta-token: *hidden\n", want: []string{"settings.yaml: not YAML"}},
		"a list of settings":          {file: "- lanes: 4\n", want: []string{"settings.yaml:1: expected lines KEY: VALUE"}},
		"a text of settings":          {file: "hidden\n", want: []string{"settings.yaml:1: expected lines KEY: VALUE"}},
		"two documents":               {file: "lanes: 4\n---\nlanes: 5\n", want: []string{"settings.yaml: expected one document"}},
		"no such file":                {args: []string{"--config", "/nowhere/s.yaml"}, want: []string{"--config: ", "/nowhere/s.yaml"}},
		"a directory for a file":      {environ: []string{"LINKER_CONFIG=/"}, want: []string{"LINKER_CONFIG: "}},

		"a secret twice":                           {args: []string{"--meta-token-file=" + short}, want: []string{"--meta-token-file: LINKER_META_TOKEN is given too, expected one of both"}},
		"a secret's file is away":                  {args: []string{"--kafka-password-file=/nowhere/p", "--kafka-user=u", "--kafka-sasl=plain"}, want: []string{"--kafka-password-file: ", "/nowhere/p"}},
		"a secret's file is empty":                 {args: []string{"--kafka-password-file=" + short, "--kafka-user=u", "--kafka-sasl=plain"}, want: []string{"--kafka-password-file: ", "is empty"}},
		"a user without mechanism":                 {args: []string{"--kafka-user=u"}, want: []string{"--kafka-user needs kafka-sasl as well"}},
		"a mechanism without user":                 {environ: []string{"LINKER_KAFKA_SASL=plain"}, want: []string{"LINKER_KAFKA_SASL needs kafka-user as well", "needs kafka-password as well"}},
		"a certificate of links, but no authority": {file: "link-cert: c.pem\nlink-key: k.pem\n", want: []string{"settings.yaml:1: link-cert needs link-ca as well", "settings.yaml:2: link-key needs link-ca as well"}},
		"an authority of links alone":              {file: "link-ca: ca.pem\n", want: []string{"settings.yaml:1: link-ca needs link-cert as well", "settings.yaml:1: link-ca needs link-key as well"}},
		"a certificate, but no key":                {file: "kafka-tls-cert: c.pem\n", want: []string{"settings.yaml:1: kafka-tls-cert needs kafka-tls-key as well"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := c.args
			if c.file != "" {
				args = append(args, "--config", write(t, "settings.yaml", c.file))
			}
			_, err := settings.Read(settings.Processor(), args, append(needed(), c.environ...))
			if err == nil {
				t.Fatal("it was taken")
			}
			for _, part := range c.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("it said %q, which lacks %q", err, part)
				}
			}
			if strings.Contains(err.Error(), "hidden") {
				t.Errorf("it said %q, which tells a value", err)
			}
			if n := strings.Count(err.Error(), "\n"); n > 1 {
				t.Errorf("it said %q", err)
			}
		})
	}
}

func TestAllMistakesAreReportedTogether(t *testing.T) {
	t.Parallel()
	file := write(t, "settings.yaml", "lanes: 0\ncolour: red\nhttp-listen: x\n")
	_, err := settings.Read(settings.Processor(), []string{"--config", file, "--size=1", "--log-level=loud"}, []string{"LINKER_LANES=many", "LINKER_COLOUR=red"})
	if err == nil {
		t.Fatal("it was taken")
	}
	for _, part := range []string{
		"--size", "--log-level", "LINKER_LANES", "LINKER_COLOUR", "settings.yaml:1: lanes", "settings.yaml:2: colour", "settings.yaml:3: http-listen",
		"domain is missing: set --domain or LINKER_DOMAIN", "kafka-hosts is missing", "nats-url is missing", "redis-url is missing",
		"mailbox-url is missing", "meta-url is missing", "meta-token is missing",
	} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("it said %q, which lacks %q", err, part)
		}
	}
	if n := strings.Count(err.Error(), "\n") + 1; n != 14 {
		t.Errorf("it said %d things, want 14: %v", n, err)
	}
}

func TestAValueThatCannotBeUsedIsNotMissingAsWell(t *testing.T) {
	t.Parallel()
	environ := append(needed(), "LINKER_DOMAIN=Not A Name", "LINKER_NATS_URL=nats")
	_, err := settings.Read(settings.Processor(), nil, environ)
	if err == nil || strings.Contains(err.Error(), "missing") || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("got %v", err)
	}
}

func TestVariablesOfOthersArePassedOver(t *testing.T) {
	t.Parallel()
	for _, entry := range []string{
		"PATH=/bin", "linker_lanes=x", "LINKER=1",
		"LINKER_ALLOWED_ORIGINS=a", "LINKER_FILE=network.yaml", "LINKER_TOKEN_FILE=/x", "LINKER_WEBSOCKET_URL=whatever",
		"LINKER_TEST_REDIS=redis://h", "LINKER_FAILPOINTS=lane-before-commit:exit", "LINKER_NATIVE=1", "LINKER_NATIVE_DIR=/x",
		"LINKER_LANES=", "LINKER_COLOUR=",
		"LINKER_SERVICE_HOST=10.0.0.7", "LINKER_SERVICE_PORT=80", "LINKER_PORT=tcp://10.0.0.7:80", "LINKER_PORT_80_TCP=tcp://10.0.0.7:80",
		"LINKER_CONNECTOR_SERVICE_HOST=fd00::7", "LINKER_CONNECTOR_SERVICE_PORT=8088", "LINKER_CONNECTOR_SERVICE_PORT_WEBSOCKET=8088",
		"LINKER_CONNECTOR_PORT=tcp://10.0.0.7:8088", "LINKER_CONNECTOR_PORT_8088_TCP=tcp://[fd00::7]:8088",
		"LINKER_CONNECTOR_PORT_8088_TCP_PROTO=tcp", "LINKER_CONNECTOR_PORT_8088_TCP_PORT=8088", "LINKER_CONNECTOR_PORT_8088_TCP_ADDR=10.0.0.7",
	} {
		if v, err := settings.Read(settings.Processor(), nil, append(needed(), entry)); err != nil || v.Number("lanes") != 24 {
			t.Errorf("%s: %v", entry, err)
		}
	}
	for _, entry := range []string{"LINKER_PORT=80", "LINKER_LISTEN_PORT=8088", "LINKER_A_SERVICE_HOST=a b", "LINKER_X_PORT_80_TCP_PROTO=x", "LINKER_=1"} {
		if _, err := settings.Read(settings.Processor(), nil, append(needed(), entry)); err == nil {
			t.Errorf("%s was passed over", entry)
		}
	}
}

func TestScalarsOfYAMLAreTakenAsTheyAreWritten(t *testing.T) {
	t.Parallel()
	file := write(t, "settings.yaml", `
# what YAML would make a number, a truth or a date of
kafka-user: 0123
kafka-password: 1e3
kafka-sasl: plain
domain: "2024-01-02"
meta-cache: true
lanes: "5"
http-listen: # nothing: the default
meta-url: &url http://meta:9000
redis-tls-ca: *url
`)
	environ := slices.DeleteFunc(needed(), func(v string) bool {
		return strings.HasPrefix(v, "LINKER_DOMAIN") || strings.HasPrefix(v, "LINKER_META_URL")
	})
	v, err := settings.Read(settings.Processor(), []string{"--config=" + file}, environ)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"kafka-user": "0123", "kafka-password": "1e3", "domain": "2024-01-02", "meta-cache": "true", "http-listen": ":8081", "redis-tls-ca": "http://meta:9000",
	} {
		if got := v.Text(key); got != want {
			t.Errorf("%s: got %q, want %q", key, got, want)
		}
	}
	if v.Number("lanes") != 5 {
		t.Errorf("lanes: got %d", v.Number("lanes"))
	}
	for _, text := range []string{"", "# nothing\n", "---\n", "null\n", "{}\n"} {
		if _, err := settings.Read(settings.Processor(), []string{"--config=" + write(t, "settings.yaml", text)}, needed()); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestAQuestionIsAnsweredWhateverElseIsWrong(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		want settings.Asked
	}{
		{[]string{"--help"}, settings.Asked{Question: settings.Help}},
		{[]string{"-h"}, settings.Asked{Question: settings.Help}},
		{[]string{"--version"}, settings.Asked{Question: settings.Version}},
		{[]string{"--probe", "http://h/"}, settings.Asked{Question: settings.Probe, URL: "http://h/"}},
		{[]string{"--version", "--help", "--probe=x"}, settings.Asked{Question: settings.Help}},
	} {
		v, err := settings.Read(settings.Connector(), c.args, []string{"LINKER_COLOUR=red", "LINKER_LANES=x"})
		if err != nil || v.Asked != c.want {
			t.Errorf("%v: got %+v, %v", c.args, v, err)
		}
	}
}

func TestAttributesTellWhatIsSetAndNoSecret(t *testing.T) {
	t.Parallel()
	environ := append(needed(), "LINKER_META_URL=http://user:hidden@meta:9000", "LINKER_KAFKA_SASL=plain", "LINKER_KAFKA_USER=u", "LINKER_KAFKA_PASSWORD=hidden")
	v, err := settings.Read(settings.Processor(), []string{"--nats-url=nats://u:hidden@h:1"}, environ)
	if err != nil {
		t.Fatal(err)
	}
	said := fmt.Sprintln(v.Attributes()...)
	if strings.Contains(said, "hidden") || strings.Contains(said, "0123456789abcdef") {
		t.Errorf("a secret is in %s", said)
	}
	for _, part := range []string{"domain domain-01", "kafka_hosts", "http://meta:9000", "kafka_user", "mailbox_expire_after", "lanes"} {
		if !strings.Contains(said, part) {
			t.Errorf("%q lacks %s", said, part)
		}
	}
}

func TestWarningsNameWhatIsInsecure(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args []string
		want []string // one part of each
	}{
		"everything is here": {[]string{"--meta-url=http://127.0.0.1:9000", "--listen=127.0.0.1:0"}, nil},
		"as it comes":        {nil, []string{"without TLS", "meta-token is sent in the clear"}},
		"with a certificate": {[]string{"--tls-cert=c", "--tls-key=k", "--meta-url=https://meta"}, nil},
		"a short token":      {[]string{"--tls-cert=c", "--tls-key=k", "--meta-url=http://[::1]:9000", "--meta-token=short"}, []string{"meta-token is short"}},
		"passwords in the clear": {
			[]string{
				"--listen=localhost:1", "--meta-url=https://meta", "--kafka-sasl=plain", "--kafka-user=u", "--kafka-password=p",
				"--nats-url=tls://u:p@a:1,nats://u:p@a:1", "--redis-url=redis://u:p@h:1",
			},
			[]string{"kafka-password", "nats-url", "redis-url"},
		},
		"passwords under TLS": {
			[]string{
				"--listen=localhost:1", "--meta-url=https://meta", "--kafka-sasl=plain", "--kafka-user=u", "--kafka-password=p", "--kafka-tls-ca=ca",
				"--nats-url=tls://u:p@a:1", "--redis-url=rediss://u:p@h:1",
			}, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v, err := settings.Read(settings.Connector(), c.args, needed())
			if err != nil {
				t.Fatal(err)
			}
			got := v.Warnings()
			if len(got) != len(c.want) {
				t.Fatalf("got %q, want %q", got, c.want)
			}
			for i, part := range c.want {
				if !strings.Contains(got[i], part) {
					t.Errorf("got %q, want %q", got[i], part)
				}
			}
		})
	}
}

func TestHelpNamesEveryKeyItsVariableAndItsDefault(t *testing.T) {
	t.Parallel()
	for _, p := range settings.Programs() {
		var out strings.Builder
		p.WriteHelp(&out)
		help := out.String()
		for _, k := range p.Keys {
			want := []string{"--" + k.Name, k.Environment(), k.Default}
			if k.Secret {
				want = append(want, "--"+k.Name+"-file", k.Environment()+"_FILE")
			}
			if k.Required {
				want = append(want, "(required")
			}
			for _, part := range want {
				if !strings.Contains(help, part) {
					t.Errorf("%s --help lacks %s", p.Name, part)
				}
			}
		}
		for _, part := range []string{"Example:", "--version", "--probe URL", "Exit codes"} {
			if !strings.Contains(help, part) {
				t.Errorf("%s --help lacks %s", p.Name, part)
			}
		}
		for line := range strings.Lines(help) {
			if len([]rune(line)) > 84 {
				t.Errorf("%s --help: a long line: %s", p.Name, line)
			}
		}
	}
}

func TestTheExamplesOfHelpAreCommandLines(t *testing.T) {
	t.Parallel()
	token := write(t, "token", "0123456789abcdef")
	for _, p := range settings.Programs() {
		args := strings.Fields(strings.ReplaceAll(strings.ReplaceAll(p.Example, "\\\n", " "), "/run/secrets/meta-token", token))
		if args[0] != p.Name {
			t.Errorf("the example of %s begins with %s", p.Name, args[0])
		}
		if _, err := settings.Read(p, args[1:], nil); err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}
	}
}

func TestTheTableOfKeysIsSound(t *testing.T) {
	t.Parallel()
	kinds := map[string]settings.Kind{}
	for _, p := range settings.Programs() {
		seen := map[string]bool{}
		groups := []string{}
		for _, k := range p.Keys {
			if seen[k.Name] {
				t.Errorf("%s has %s twice", p.Name, k.Name)
			}
			seen[k.Name] = true
			if k.Meaning == "" || k.Group == "" || k.Kind == 0 || (k.Kind != settings.Switch) != (k.Value != "") {
				t.Errorf("%s: %s is not described", p.Name, k.Name)
			}
			if k.Required && k.Default != "" || k.Secret && k.Default != "" || k.Secret && k.Kind != settings.Text {
				t.Errorf("%s: %s cannot be so", p.Name, k.Name)
			}
			// One variable has one kind of value, whichever program reads it.
			if kind, is := kinds[k.Name]; is && kind != k.Kind {
				t.Errorf("%s: %s is of another kind elsewhere", p.Name, k.Name)
			}
			kinds[k.Name] = k.Kind
			if len(groups) == 0 || groups[len(groups)-1] != k.Group {
				groups = append(groups, k.Group)
			}
		}
		slices.Sort(groups)
		if len(slices.Compact(slices.Clone(groups))) != len(groups) {
			t.Errorf("%s: a group stands in two places: %v", p.Name, groups)
		}
	}
}

func TestAskingForAKeyThatThereIsNotIsAMistakeOfTheProgram(t *testing.T) {
	t.Parallel()
	v, err := settings.Read(settings.Processor(), nil, needed())
	if err != nil {
		t.Fatal(err)
	}
	for name, ask := range map[string]func(){
		"no such key":  func() { v.Text("colour") },
		"another kind": func() { v.Text("lanes") },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: it returned", name)
				}
			}()
			ask()
		}()
	}
}

// FuzzFile looks for YAML that panics, or that makes a message tell a secret.
func FuzzFile(f *testing.F) {
	for _, seed := range []string{
		"lanes: 4\n", "meta-token: SECRET\n", "meta-token: [SECRET]\n", "? [a]\n: SECRET\n", "<<: {a: b}\n", "a: &a SECRET\nb: *a\n", "meta-token: !!binary SECRET\n",
		"kafka-hosts: [a:1, b:2]\n", "kafka-password: |\n  SECRET\n", "--- a\n...\n", "meta-token: \"\\qSECRET\"\n", "meta-token: 'SECRET\n", "meta-token: *SECRET\n",
		"nats-url: nats://u:SECRET@\n", "\x00", "meta-token: {SECRET: 1}\n", "meta-token: @SECRET\n", "meta-token: %SECRET\n", "meta-token: `SECRET\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		v, err := settings.Read(settings.Processor(), []string{"--config", path}, nil)
		if err != nil && isValueOfASecret(text) && strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%q makes it say %q", text, err)
		}
		if err == nil && v.Text("domain") == "" {
			t.Errorf("%q was taken", text)
		}
	})
}

// isValueOfASecret says whether the word stands behind the key of a secret, in
// the same line, and nowhere else.
func isValueOfASecret(text string) bool {
	if strings.Count(text, "SECRET") != 1 {
		return false
	}
	for line := range strings.Lines(text) {
		rest, is := strings.CutPrefix(line, "meta-token: ")
		if is && strings.Contains(rest, "SECRET") {
			return !strings.ContainsAny(rest, "\r\u0085\u2028\u2029")
		}
	}
	return false
}

// FuzzEnvironment looks for variables that panic or that make a message tell
// their value.
func FuzzEnvironment(f *testing.F) {
	f.Add("LINKER_LANES", "4")
	f.Add("LINKER_META_TOKEN_FILE", "/nowhere")
	f.Add("LINKER_X_PORT_1_TCP", "tcp://h:1")
	f.Add("LINKER_NATS_URL", "nats://a:b@c:1,tls://d")
	f.Add("LINKER_REDIS_URL", "redis://%zz@h")
	f.Fuzz(func(t *testing.T, name, value string) {
		if name == "LINKER_CONFIG" || strings.HasSuffix(name, "_FILE") {
			value = filepath.Join(t.TempDir(), "nothing")
		}
		v, err := settings.Read(settings.Processor(), nil, append(needed(), name+"="+value))
		switch {
		case err == nil && v == nil:
			t.Error("no values")
		case err != nil && len(value) > 20 && strings.HasSuffix(name, "_URL") && name != "LINKER_META_URL" && strings.Contains(err.Error(), value):
			t.Errorf("%s=%q makes it say %q", name, value, err)
		}
	})
}

// FuzzFlags looks for command lines that panic or never end.
func FuzzFlags(f *testing.F) {
	f.Add("--lanes\x004\x00-habc\x00--\x00x")
	f.Add("---\x00-\x00--=\x00-=\x00--a=\x00-xyz\x00-yz")
	f.Fuzz(func(t *testing.T, line string) {
		args := slices.DeleteFunc(strings.Split(line, "\x00"), func(arg string) bool { return strings.Contains(arg, "config") || strings.Contains(arg, "file") })
		if v, err := settings.Read(settings.Processor(), args, needed()); err == nil && v == nil {
			t.Error("no values")
		}
	})
}
