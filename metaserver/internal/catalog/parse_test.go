package catalog_test

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/linkerhq/linker/metaserver/internal/catalog"
	"github.com/linkerhq/linker/pkg/topology"
)

// sound is a file without mistakes, to which a case adds its own from line 15 on.
const sound = `domains:
  - name: domain-01
    urls: [tcp://192.168.56.1:9089, ws://192.168.56.1:8088]
  - name: domain-02
    urls: [ws://192.168.56.2:8088]
clientApps:
  - appName: ANZ
    appId: app-id-343
    masterUserId: ANZ-123223
  - appName: BNZ
    appId: bnz-344
    masterUserId: BNZ-453432
    authEnabled: false

`

func TestEveryMistakeIsNamedWithItsLine(t *testing.T) {
	t.Parallel()
	const (
		userNumber = "must be a whole number from 0 to 999999999999999999, is "
		cost       = "must be a whole number from 1 to 1000000, is "
	)
	more := func(lines ...string) string { return sound + strings.Join(lines, "\n") + "\n" }
	app := func(lines ...string) string {
		return strings.TrimSuffix(sound, "\n") + "  - " + strings.Join(lines, "\n    ") + "\n"
	}
	for _, c := range []struct {
		name, file, want string
	}{
		{"an empty file", "", "line 1: the file is empty"},
		{"only comments", "# nothing\n", "line 1: the file is empty"},
		{"null", "~\n", "line 1: must be a mapping, is empty"},
		{"a list", "- a\n", "line 1: must be a mapping, is a list"},
		{"no domains", "clientApps: []\n", "line 1: domains: at least one domain is needed"},
		{"an empty list of domains", "# c\ndomains: []\nuserDistributions: [{domainName: x}]\n", "line 2: domains: at least one domain is needed"},
		{"domains without a value", "# c\ndomains:\n", "line 2: domains: at least one domain is needed"},
		{"domains that are no list", "domains: domain-01\n", "line 1: domains: must be a list, is text"},
		{"a domain that is no mapping", "domains:\n  - domain-01\n", "line 2: domains[0]: must be a mapping, is text"},

		{"not YAML", more("domainLinks: a: b"), "line 15: is not YAML: mapping values are not allowed in this context"},
		{"a tab", more("domainLinks:", "\t- {}"), "line 16: is not YAML: found character that cannot start any token"},
		{"an anchor that is nowhere", more("domainLinks: *there"), "line 15: is not YAML: unknown anchor 'there' referenced"},
		{"not UTF-8", more("# \xff"), "line 15: is not UTF-8"},
		{"two documents", more("---", "domains: []"), "line 15: a second document begins here: only one is read"},
		{"something after the end", more("...", "]"), "line 16: is not YAML: did not find expected node content"},

		{"an unknown key", more("domainsLinks: []"), `line 15: unknown key "domainsLinks"`},
		{"an unknown key of a domain", "domains:\n  - name: a\n    urls: [ws://h]\n    url: x\n", `line 4: domains[0]: unknown key "url"`},
		{"an unknown key of a link", more("domainLinks:", "  - n1: domain-01", "    n2: domain-02", "    n3: x"), `line 18: domainLinks[0]: unknown key "n3"`},
		{"an unknown key of an app", app("appName: X", "appId: x", "masterUserId: X-1", "authURL: x"), `line 17: clientApps[2]: unknown key "authURL"`},
		{"an unknown key of a distribution", more("userDistributions:", "  - {domainName: domain-01, until: 5}"), `line 16: userDistributions[0]: unknown key "until"`},
		{"a merge key", more("<<: {domainLinks: []}"), `line 15: unknown key "<<"`},
		{"a key that is no text", more("[a]: b"), "line 15: a key must be text"},
		{"a key twice", more("domainLinks: []", "domainLinks: []"), `line 16: key "domainLinks" is here twice, first in line 15`},
		{"a key of an app twice", app("appName: X", "appId: x", "appId: y", "masterUserId: X-1"), `line 16: clientApps[2]: key "appId" is here twice, first in line 15`},

		{"a domain without a name", "domains:\n  - urls: [ws://h]\n", "line 2: domains[0].name: is missing"},
		{"a domain without urls", "domains:\n  - name: a\n", "line 2: domains[0].urls: is missing"},
		{"a domain with an empty list of urls", "domains:\n  - name: a\n    urls: []\n", "line 3: domains[0].urls: is missing"},
		{
			"a domain name in capitals", "domains:\n  - name: Domain_1\n    urls: [ws://h]\n",
			`line 2: domains[0].name: "Domain_1" is not a domain name: 1 to 63 lower-case letters, digits and dashes, beginning with a letter or digit`,
		},
		{"a domain twice", "domains:\n  - {name: a, urls: [ws://h]}\n  - {name: a, urls: [ws://i]}\n", `line 3: domains[1].name: "a" is that of domains[0] already`},
		{"a number for a name", "domains:\n  - name: 7\n    urls: [ws://h]\n", "line 2: domains[0].name: must be text, is a number: put it in quotes"},
		{
			"a url of another scheme", "domains:\n  - name: a\n    urls:\n      - ws://h\n      - http://h:1\n",
			`line 5: domains[0].urls[1]: has the scheme "http": expected tcp://HOST:PORT, ws://HOST:PORT or wss://HOST:PORT`,
		},
		{
			"a url that is none", "domains:\n  - name: a\n    urls: [here]\n",
			"line 3: domains[0].urls[0]: is not a URL: expected tcp://HOST:PORT, ws://HOST:PORT or wss://HOST:PORT",
		},
		{
			"a tcp url without a port", "domains:\n  - name: a\n    urls: [tcp://h]\n",
			"line 3: domains[0].urls[0]: has no port: expected tcp://HOST:PORT, ws://HOST:PORT or wss://HOST:PORT",
		},
		{"a port that is too large", "domains:\n  - name: a\n    urls: [tcp://h:70000]\n", `line 3: domains[0].urls[0]: has the port "70000": expected 1 to 65535`},
		{
			"a password in a url", "domains:\n  - name: a\n    urls: [ws://u:p@h]\n",
			"line 3: domains[0].urls[0]: everybody can read it, so it may not carry a user, a query or a fragment: expected tcp://HOST:PORT, ws://HOST:PORT or wss://HOST:PORT",
		},
		{"urls that are no list", "domains:\n  - name: a\n    urls: ws://h\n", "line 3: domains[0].urls: must be a list, is text"},

		{"a link to an unknown domain", more("domainLinks:", "  - {n1: domain-01, n2: domain-02}", "  - {n1: domain-01, n2: domain-9}"), `line 17: domainLinks[1].n2: domain "domain-9" is not defined`},
		{"a link with one end", more("domainLinks:", "  - n1: domain-01"), "line 16: domainLinks[0].n2: is missing"},
		{"a link to itself", more("domainLinks:", "  - {n1: domain-01, n2: domain-01}"), `line 16: domainLinks[0]: links domain "domain-01" to itself`},
		{
			"a link twice, the other way round", more("domainLinks:", "  - {n1: domain-01, n2: domain-02}", "  - {n1: domain-02, n2: domain-01}"),
			`line 17: domainLinks[1]: links "domain-02" and "domain-01", as domainLinks[0] does already`,
		},
		{"a link that costs nothing", more("domainLinks:", "  - {n1: domain-01, n2: domain-02, cost: 0}"), "line 16: domainLinks[0].cost: " + cost + `"0"`},
		{"a link that costs less", more("domainLinks:", "  - {n1: domain-01, n2: domain-02, cost: -1}"), "line 16: domainLinks[0].cost: " + cost + `"-1"`},
		{"a key that is no text", more("domainLinks:", "  - {n1: domain-01, n2: domain-02, key: 0123}"), "line 16: domainLinks[0].key: must be text, is a number: put it in quotes"},
		{
			"an insecure link with a key", more("domainLinks:", "  - {n1: domain-01, n2: domain-02, key: k, insecure: true}"),
			"line 16: domainLinks[0].insecure: a link with a key is not insecure: remove one of the two",
		},
		{"insecure yes", more("domainLinks:", "  - {n1: domain-01, n2: domain-02, insecure: yes}"), `line 16: domainLinks[0].insecure: must be true or false, is "yes"`},

		{"an app without a name", app("appId: x", "masterUserId: X-1"), "line 14: clientApps[2].appName: is missing"},
		{"an app without an id", app("appName: X", "masterUserId: X-1"), "line 14: clientApps[2].appId: is missing"},
		{"an app without a master", app("appName: X", "appId: x"), "line 14: clientApps[2].masterUserId: is missing"},
		{
			"an app with a dash in its name", app("appName: X-Y", "appId: x", "masterUserId: X-1"),
			`line 14: clientApps[2].appName: "X-Y" is not an app name: 1 to 32 letters, digits and underscores, beginning with a letter` + "\n" +
				`line 16: clientApps[2].masterUserId: "X-1" is a user of app "X", not of "X-Y"`,
		},
		{"an app twice", app("appName: ANZ", "appId: x", "masterUserId: ANZ-1"), `line 14: clientApps[2].appName: "ANZ" is that of clientApps[0] already`},
		{"an app id twice", app("appName: X", "appId: bnz-344", "masterUserId: X-1"), `line 15: clientApps[2].appId: "bnz-344" is that of clientApps[1] already`},
		{"a master of another app", app("appName: X", "appId: x", "masterUserId: ANZ-1"), `line 16: clientApps[2].masterUserId: "ANZ-1" is a user of app "ANZ", not of "X"`},
		{"a master that is no user", app("appName: X", "appId: x", "masterUserId: X-007"), `line 16: clientApps[2].masterUserId: "X-007" is not a user id: <appName>-<number>`},
		{"a callback that is no URL", app("appName: X", "appId: x", "masterUserId: X-1", "authUrl: ws://h/auth"), "line 17: clientApps[2].authUrl: is not an http:// or https:// URL"},
		{"authEnabled that is no boolean", app("appName: X", "appId: x", "masterUserId: X-1", "authEnabled: on"), `line 17: clientApps[2].authEnabled: must be true or false, is "on"`},
		{"another way of delivery", app("appName: X", "appId: x", "masterUserId: X-1", "masterDelivery: some"), `line 17: clientApps[2].masterDelivery: must be all or one, is "some"`},
		{"limits that are no mapping", app("appName: X", "appId: x", "masterUserId: X-1", "limits: 5"), "line 17: clientApps[2].limits: must be a mapping, is a number: put it in quotes"},
		{"an unknown limit", app("appName: X", "appId: x", "masterUserId: X-1", "limits:", "  user: {messagesPerSecond: 5}"), `line 18: clientApps[2].limits: unknown key "user"`},
		{"a limit that is a number", app("appName: X", "appId: x", "masterUserId: X-1", "limits: {app: 5}"), "line 17: clientApps[2].limits.app: must be a mapping, is a number: put it in quotes"},
		{"an unknown key of a limit", app("appName: X", "appId: x", "masterUserId: X-1", "limits:", "  app:", "    perSecond: 5", "    messagesPerSecond: 5"), `line 19: clientApps[2].limits.app: unknown key "perSecond"`},
		{"a limit without anything", app("appName: X", "appId: x", "masterUserId: X-1", "limits:", "  socket: {}"), "line 18: clientApps[2].limits.socket.messagesPerSecond: is missing"},
		{"a limit without a rate", app("appName: X", "appId: x", "masterUserId: X-1", "limits:", "  socket:", "    burst: 5"), "line 18: clientApps[2].limits.socket.messagesPerSecond: is missing"},
		{"a limit of nothing", app("appName: X", "appId: x", "masterUserId: X-1", "limits:", "  socket: {messagesPerSecond: 0}"), `line 18: clientApps[2].limits.socket.messagesPerSecond: must be a whole number from 1 to 1000000, is "0"`},
		{"a limit that is too large", app("appName: X", "appId: x", "masterUserId: X-1", "limits:", "  app: {messagesPerSecond: 1000001}"), `line 18: clientApps[2].limits.app.messagesPerSecond: must be a whole number from 1 to 1000000, is "1000001"`},
		{"a limit with a fraction", app("appName: X", "appId: x", "masterUserId: X-1", "limits:", "  app: {messagesPerSecond: 0.5}"), `line 18: clientApps[2].limits.app.messagesPerSecond: must be a whole number from 1 to 1000000, is "0.5"`},
		{"a burst that is none", app("appName: X", "appId: x", "masterUserId: X-1", "limits:", "  app: {messagesPerSecond: 5, burst: -1}"), `line 18: clientApps[2].limits.app.burst: must be a whole number from 1 to 10000000, is "-1"`},
		{"an unknown allowed app", app("appName: X", "appId: x", "masterUserId: X-1", "allowedApps:", "  - Y"), `line 18: clientApps[2].allowedApps[0]: app "Y" is not defined`},
		{"an allowed app that is nothing", app("appName: X", "appId: x", "masterUserId: X-1", "allowedApps: [~]"), "line 17: clientApps[2].allowedApps[0]: must be text, is empty"},
		{"an allowed app twice", app("appName: X", "appId: x", "masterUserId: X-1", "allowedApps: [ANZ, ANZ]"), `line 17: clientApps[2].allowedApps[1]: app "ANZ" is listed twice`},

		{"a distribution to a number", more("userDistributions: [{domainName: 5.5}]"), "line 15: userDistributions[0].domainName: must be text, is a number: put it in quotes"},
		{"a distribution to an unknown domain", more("userDistributions:", "  - domainName: domain-03"), `line 16: userDistributions[0].domainName: domain "domain-03" is not defined`},
		{"a distribution to nowhere", more("userDistributions:", "  - from: 5"), "line 16: userDistributions[0].domainName: is missing"},
		{"a reversed range", more("userDistributions:", "  - domainName: domain-01", "    from: 5", "    to: 4"), "line 16: userDistributions[0]: from 5 is greater than to 4"},
		{"a negative number", more("userDistributions:", "  - domainName: domain-01", "    from: -1"), "line 17: userDistributions[0].from: " + userNumber + `"-1"`},
		{"a number with 19 digits", more("userDistributions:", "  - domainName: domain-01", "    to: 1000000000000000000"), "line 17: userDistributions[0].to: " + userNumber + `"1000000000000000000"`},
		{"an octal number", more("userDistributions:", "  - {domainName: domain-01, to: 010}"), "line 16: userDistributions[0].to: " + userNumber + `"010"`},
		{"a fraction", more("userDistributions:", "  - {domainName: domain-01, to: 1.5}"), "line 16: userDistributions[0].to: " + userNumber + `"1.5"`},
		{"a number in quotes", more("userDistributions:", `  - {domainName: domain-01, to: "5"}`), "line 16: userDistributions[0].to: " + userNumber + `"5"`},
		{"a list for a number", more("userDistributions:", "  - {domainName: domain-01, to: [5]}"), "line 16: userDistributions[0].to: " + userNumber + "a list"},
		{
			"a distribution of an app", app("appName: X", "appId: x", "masterUserId: X-1", "userDistributions:", "  - domainName: d"),
			`line 18: clientApps[2].userDistributions[0].domainName: domain "d" is not defined`,
		},
		{
			"several at once", more("domainLinks:", "  - {n1: domain-01, n2: domain-9}", "userDistributions:", "  - {domainName: domain-8, from: x}", "extra: 1"),
			`line 16: domainLinks[0].n2: domain "domain-9" is not defined` + "\n" +
				"line 18: userDistributions[0].from: " + userNumber + `"x"` + "\n" +
				`line 19: unknown key "extra"`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, _, err := catalog.Parse([]byte(c.file))
			if _, ok := errors.AsType[catalog.Mistakes](err); !ok {
				t.Fatalf("got error %v of type %T", err, err)
			}
			if err.Error() != c.want {
				t.Errorf("got  %s\nwant %s", err, c.want)
			}
		})
	}
}

func TestWarningsDoNotRefuseTheFile(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, file, want string
	}{
		{"the sections of older files", sound + "spring: {a: 1}\nserver:\n  port: 9000\n", "line 15: spring: is a section of older files and is not read\n" +
			"line 16: server: is a section of older files and is not read"},
		{
			"overlapping ranges", sound + "userDistributions:\n  - {domainName: domain-01, to: 10}\n  - {domainName: domain-02, from: 10}\n",
			"line 17: userDistributions[1]: overlaps userDistributions[0]: the first match wins",
		},
		{
			"logins that are all refused", strings.Replace(sound, "authEnabled: false", "authEnabled: true", 1),
			`line 13: clientApps[1].authEnabled: is true, but there is no authUrl: every login to app "BNZ" is refused`,
		},
		{
			"an app that allows one way", strings.Replace(sound, "authEnabled: false", "allowedApps: [ANZ]", 1),
			`line 13: clientApps[1].allowedApps[0]: has no effect: app "ANZ" does not list "BNZ"`,
		},
		{
			"an app that allows itself", strings.Replace(sound, "authEnabled: false", "allowedApps: [BNZ]", 1),
			"line 13: clientApps[1].allowedApps[0]: users of one app always reach each other",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, warnings, err := catalog.Parse([]byte(c.file))
			if err != nil {
				t.Fatal(err)
			}
			if got := catalog.Mistakes(warnings).Error(); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestAFullFileIsReadAsItIsMeant(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile("testdata/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got, warnings, err := catalog.Parse(content)
	if err != nil || len(warnings) > 0 {
		t.Fatalf("error %v, warnings %v", err, warnings)
	}
	want := topology.Network{
		Domains: []topology.Domain{
			{Name: "domain-01", URLs: []string{"tcp://192.168.56.1:9089", "ws://192.168.56.1:8088"}},
			{Name: "domain-02", URLs: []string{"tcp://192.168.56.2:9089", "wss://two.example"}},
			{Name: "domain-03", URLs: []string{"tcp://[fe80::1]:9089"}},
			{Name: "domain-04", URLs: []string{"ws://192.168.56.4:8088"}},
		},
		Links: []topology.Link{
			{N1: "domain-01", N2: "domain-02"},
			{N1: "domain-02", N2: "domain-03", Cost: 5, Key: "a long random text"},
			{N1: "domain-03", N2: "domain-04", Insecure: true},
		},
		Apps: []topology.App{
			{
				Name: "ANZ", AppID: "app-id-343", Master: "ANZ-123223", AuthURL: "http://localhost:4200/auth",
				MasterOne: true, AllowedApps: []string{"BNZ"},
				Distributions: []topology.Distribution{{DomainName: "domain-01", To: 999_999}},
			},
			{
				Name: "BNZ", AppID: "bnz-344", Master: "BNZ-453432", AuthURL: "https://u:p@auth.example/bnz?key=k", AuthEnabled: true,
				AllowedApps: []string{"ANZ"}, Distributions: []topology.Distribution{{DomainName: "domain-01", To: 999_999}},
			},
		},
		Distributions: []topology.Distribution{
			{DomainName: "domain-01", From: 0, To: 999_999},
			{DomainName: "domain-02", From: 1_000_000, To: 2_999_999},
			{DomainName: "domain-03", From: 3_000_000, To: 5_999_999},
			{DomainName: "domain-04", From: 6_000_000, To: topology.MaxNumber},
		},
	}
	gotSnapshot, wantSnapshot := mustSnapshot(t, got), mustSnapshot(t, want)
	if !gotSnapshot.SameNetwork(wantSnapshot) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestWhatIsHugeIsRefusedAtOnce(t *testing.T) {
	t.Parallel()
	thousand := strings.TrimSuffix(strings.Repeat("{domainName: d}, ", 1000), ", ")
	bomb := "domains: [{name: d, urls: [ws://h]}]\nuserDistributions: &d [" + thousand + "]\nclientApps:\n" +
		strings.Repeat("  - {appName: A, userDistributions: *d}\n", 1000)
	var nested strings.Builder
	nested.WriteString("a: &a [x, x]\n")
	for c := 'b'; c < 'z'; c++ {
		nested.WriteString(string(c) + ": &" + string(c) + " [*" + string(c-1) + ", *" + string(c-1) + "]\n")
	}
	for _, c := range []struct{ name, file, want string }{
		{"a large file", strings.Repeat("#", 4<<20+1), "the file has more than 4194304 bytes"},
		{"many values by aliases", bomb, "the file has more than 500000 values"},
		{"aliases of aliases", nested.String(), "line 1: unknown key \"a\"\nline 1: domains: at least one domain is needed\nline 2: unknown key"},
		{"an alias within its own anchor", "domains: &d [*d]\n", "line 1: domains[0]: must be a mapping, is a list"},
		{"deep nesting", "domains: " + strings.Repeat("[", 1<<20), "line 1: is not YAML: exceeded max depth of 10000"},
	} {
		_, _, err := catalog.Parse([]byte(c.file))
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: got %.200v, want %s", c.name, err, c.want)
		}
	}
}

func TestTooManyMistakesAreCounted(t *testing.T) {
	t.Parallel()
	_, _, err := catalog.Parse([]byte(sound + strings.Repeat("x: 1\n", 1000)))
	if err == nil || !strings.HasSuffix(err.Error(), "\nline 214: unknown key \"x\"\nand 800 more") {
		t.Errorf("got %v", err)
	}
}

func TestMistakesNeverRepeatASecret(t *testing.T) {
	t.Parallel()
	file := sound + "domainLinks:\n  - {n1: domain-01, n2: domain-02, key: {hunter2: hunter2}}\n" +
		"  - {n1: domain-01, n2: domain-02, key: !secret hunter2}\n" +
		"  - {n1: domain-01, n2: domain-02, key: 123456}\n"
	file = strings.Replace(file, "authEnabled: false", "authUrl: hunter2://x:hunter2@y/?hunter2", 1)
	_, _, err := catalog.Parse([]byte(file))
	if err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "123456") {
		t.Errorf("got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	full, err := os.ReadFile("testdata/full.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(full)
	f.Add([]byte(sound))
	f.Add([]byte("domains: &d [*d]\n? [x]\n: !!int {<<: *d}"))
	f.Fuzz(func(t *testing.T, content []byte) {
		network, _, err := catalog.Parse(content)
		if err != nil {
			if _, ok := errors.AsType[catalog.Mistakes](err); !ok {
				t.Fatalf("the error has the type %T", err)
			}
			return
		}
		before := mustSnapshot(t, network)
		body, err := json.Marshal(before)
		if err != nil {
			t.Fatal(err)
		}
		after, err := topology.Decode(body)
		if err != nil {
			t.Fatalf("%v in %s", err, body)
		}
		if !after.SameNetwork(before) {
			t.Fatalf("got %+v, want %+v", after.Network(), before.Network())
		}
	})
}

func mustSnapshot(t *testing.T, n topology.Network) *topology.Snapshot {
	t.Helper()
	s, err := topology.New(1, n)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestLimitsOfAnAppAreRead(t *testing.T) {
	t.Parallel()
	file := strings.Replace(sound, "authEnabled: false", "limits: {socket: {messagesPerSecond: 5, burst: 20}, app: {messagesPerSecond: 1000}}", 1)
	network, warnings, err := catalog.Parse([]byte(file))
	if err != nil || len(warnings) > 0 {
		t.Fatalf("got %v, %v", warnings, err)
	}
	want := topology.Limits{Socket: topology.Limit{PerSecond: 5, Burst: 20}, App: topology.Limit{PerSecond: 1000}}
	if got := network.Apps[1].Limits; got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := network.Apps[0].Limits; got != (topology.Limits{}) {
		t.Errorf("an app without limits has %+v", got)
	}
}
