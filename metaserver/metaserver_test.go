package metaserver_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/metaserver"
	"github.com/linkerhq/linker/pkg/topology"
	"github.com/linkerhq/linker/pkg/topology/feed"
)

const token = "services only"

// config is that of a server on a free port with the default file.
func config(t *testing.T) metaserver.Config {
	t.Helper()
	file := filepath.Join(t.TempDir(), "meta.yaml")
	save(t, file, string(metaserver.DefaultFile(9089, 8088)))
	return metaserver.Config{
		Addr: "127.0.0.1:0", File: file, Token: token,
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	}
}

func save(t *testing.T, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// start runs a server until the test ends and returns its base URL.
func start(t *testing.T, cfg metaserver.Config) string {
	t.Helper()
	s, err := metaserver.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	run(t, s.Run)
	return "http://" + s.Addr().String()
}

func run(t *testing.T, f func(context.Context) error) {
	t.Helper()
	var running sync.WaitGroup
	running.Go(func() {
		if err := f(t.Context()); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(running.Wait) // t.Context has ended by then
}

// get sends a request and returns the answer's code and body.
func get(t *testing.T, url string, header http.Header) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header = header
	client := &http.Client{Transport: new(http.Transport)}
	defer client.CloseIdleConnections()
	response, err := client.Do(request)
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Error(err)
	}
	return response.StatusCode, string(body)
}

func TestTheDefaultFileHasNoProblems(t *testing.T) {
	t.Parallel()
	base := start(t, config(t))
	_, body := get(t, base+"/status", nil)
	var status struct {
		Problems, Warnings []json.RawMessage
	}
	if err := json.Unmarshal([]byte(body), &status); err != nil || len(status.Problems)+len(status.Warnings) > 0 {
		t.Errorf("got %s, %v", body, err)
	}
	_, body = get(t, base+"/clientApps", nil)
	const apps = `[{"appName":"ANZ","appId":"app-id-343","masterUserId":"ANZ-123223","authEnabled":false,"userDistributions":[]},` +
		`{"appName":"BNZ","appId":"bnz-344","masterUserId":"BNZ-453432","authEnabled":false,"userDistributions":[]},` +
		`{"appName":"CNZ","appId":"cnz-34324","masterUserId":"CNZ-213424","authEnabled":false,"userDistributions":[]}]`
	if strings.TrimSpace(body) != apps {
		t.Errorf("got %s", body)
	}
	_, body = get(t, base+"/domains", nil)
	if strings.TrimSpace(body) != `[{"name":"domain-01","urls":["tcp://127.0.0.1:9089","ws://127.0.0.1:8088"]}]` {
		t.Errorf("got %s", body)
	}
}

func TestEveryExampleInTheDefaultFileIsRight(t *testing.T) {
	t.Parallel()
	// A sentence stands behind "# ", an example behind "#" or "#  ".
	example := regexp.MustCompile(`(?m)^( *)#(\S|  )`)
	for _, domains := range []int{1, 3} {
		file := example.ReplaceAllString(string(metaserver.RingFile(ports(domains))), "$1$2")
		if domains == 1 {
			file = strings.Replace(file, "\ndomainLinks:", "\n  - {name: domain-02, urls: [ws://two]}\ndomainLinks:", 1)
		}
		file = strings.Replace(file, "appId: bnz-344", "appId: bnz-344\n    allowedApps: [ANZ]", 1)
		cfg := config(t)
		save(t, cfg.File, file)
		if _, body := get(t, start(t, cfg)+"/status", nil); !strings.Contains(body, `"problems":[],"warnings":[]`) {
			t.Errorf("got %s of\n%s", body, file)
		}
		for _, key := range []string{"cost", "key", "insecure", "authUrl", "masterDelivery", "allowedApps", "userDistributions"} {
			if !regexp.MustCompile(`(?m)^ *` + key + ":").MatchString(file) {
				t.Errorf("%d domains: there is no example of %s", domains, key)
			}
		}
	}
}

// ports are those of the first domains.
func ports(domains int) []metaserver.Ports {
	var list []metaserver.Ports
	for n := range domains {
		list = append(list, metaserver.Ports{Link: 9089 + 100*n, Websocket: 8088 + 100*n})
	}
	return list
}

func TestARingFileDescribesItsDomainsTheirLinksAndTheirRanges(t *testing.T) {
	t.Parallel()
	for domains, want := range map[int]struct{ links, ranges string }{
		1: {"[]", "[]"},
		2: {`[{"n1":"domain-01","n2":"domain-02"}]`, `[{"domainName":"domain-01","from":0,"to":999999},{"domainName":"domain-02","from":1000000}]`},
		3: {
			`[{"n1":"domain-01","n2":"domain-02"},{"n1":"domain-02","n2":"domain-03"},{"n1":"domain-03","n2":"domain-01"}]`,
			`[{"domainName":"domain-01","from":0,"to":999999},{"domainName":"domain-02","from":1000000,"to":1999999},{"domainName":"domain-03","from":2000000}]`,
		},
		4: {
			`[{"n1":"domain-01","n2":"domain-02"},{"n1":"domain-02","n2":"domain-03"},{"n1":"domain-03","n2":"domain-04"},{"n1":"domain-04","n2":"domain-01"}]`,
			`[{"domainName":"domain-01","from":0,"to":999999},{"domainName":"domain-02","from":1000000,"to":2999999},` +
				`{"domainName":"domain-03","from":3000000,"to":5999999},{"domainName":"domain-04","from":6000000}]`,
		},
		16: {}, // looked at below
	} {
		t.Run(strconv.Itoa(domains), func(t *testing.T) {
			t.Parallel()
			cfg := config(t)
			save(t, cfg.File, string(metaserver.RingFile(ports(domains))))
			s, err := metaserver.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			snapshot, _ := s.Network()
			network := snapshot.Network()
			if len(network.Domains) != domains {
				t.Errorf("got %d domains", len(network.Domains))
			}
			for i, d := range network.Domains {
				want := topology.Domain{
					Name: fmt.Sprintf("domain-%02d", i+1),
					URLs: []string{fmt.Sprintf("tcp://127.0.0.1:%d", 9089+100*i), fmt.Sprintf("ws://127.0.0.1:%d", 8088+100*i)},
				}
				if !reflect.DeepEqual(d, want) {
					t.Errorf("got %v, want %v", d, want)
				}
			}
			if problems := network.Validate(); len(problems) > 0 {
				t.Errorf("got %v", problems)
			}
			if want.links != "" {
				same(t, network.Links, want.links)
				same(t, network.Distributions, want.ranges)
				return
			}
			if last := network.Links[15]; len(network.Links) != 16 || last.N1 != "domain-16" || last.N2 != "domain-01" {
				t.Errorf("got %d links, the last from %s to %s", len(network.Links), last.N1, last.N2)
			}
			for i, d := range network.Distributions {
				to := int64(i+1)*1_000_000 - 1
				if i == 15 {
					to = topology.MaxNumber
				}
				if d.From != int64(i)*1_000_000 || d.To != to || d.DomainName != network.Domains[i].Name {
					t.Errorf("got %+v", d)
				}
			}
		})
	}
}

func same(t *testing.T, got any, want string) {
	t.Helper()
	if text, err := json.Marshal(got); err != nil || string(text) != want {
		t.Errorf("got  %s, %v\nwant %s", text, err, want)
	}
}

func TestAFileThatWasWrittenBeforeRunIsReadAtOnce(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	s, err := metaserver.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, changed := s.Network()
	save(t, cfg.File, string(metaserver.RingFile(ports(2))))
	s.Reread()
	select {
	case <-changed:
	default:
		t.Error("nobody is told of the change")
	}
	if snapshot, _ := s.Network(); len(snapshot.Network().Domains) != 2 {
		t.Errorf("got %v", snapshot.Network().Domains)
	}
}

func TestAnotherMayAnswerForReadiness(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.Ready = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "not before tea", http.StatusServiceUnavailable)
	})
	base := start(t, cfg)
	if code, body := get(t, base+"/readyz", nil); code != http.StatusServiceUnavailable || body != "not before tea\n" {
		t.Errorf("got %d %s", code, body)
	}
	if code, _ := get(t, base+"/healthz", nil); code != http.StatusOK {
		t.Errorf("got %d", code)
	}
}

func TestTheExampleInTheDocumentationIsRight(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/metaserver.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```yaml\n")
	example, _, _ := strings.Cut(rest, "```")
	cfg := config(t)
	save(t, cfg.File, example)
	if _, body := get(t, start(t, cfg)+"/status", nil); !strings.Contains(body, `"problems":[],"warnings":[]`) {
		t.Errorf("got %s", body)
	}
}

func TestASavedFileReachesServices(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	f, err := feed.New(feed.Config{URL: start(t, cfg), Token: token, Log: cfg.Log, Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	changed, stop := f.Subscribe()
	defer stop()
	run(t, f.Run)
	<-changed
	if _, ok := f.Current().App("XYZ"); ok {
		t.Fatal("the app is there before it is saved")
	}

	save(t, cfg.File, strings.Replace(string(metaserver.DefaultFile(9089, 8088)), "clientApps:\n",
		"clientApps:\n  - {appName: XYZ, appId: x, masterUserId: XYZ-1}\n", 1))
	<-changed
	if _, ok := f.Current().App("XYZ"); !ok {
		t.Error("the app is not there")
	}
}

func TestRunEndsAlthoughSomebodyWaitsForTheNextVersion(t *testing.T) {
	t.Parallel()
	s, err := metaserver.New(config(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	base := "http://" + s.Addr().String()
	header := http.Header{"Authorization": {"Bearer " + token}, "If-None-Match": {"*"}}
	answered := make(chan int, 1)
	go func() {
		code, _ := get(t, base+"/snapshot?wait=30s", header)
		answered <- code
	}()
	for {
		_, metrics := get(t, base+"/metrics", nil)
		if strings.Contains(metrics, "linker_httpapi_waiting_requests 1\n") {
			break
		}
	}
	stop()
	if code := <-answered; code != http.StatusNotModified {
		t.Errorf("got %d", code)
	}
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestNewNamesEveryMistakeInTheFile(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	save(t, cfg.File, "domains:\n  - {name: a, urls: [ws://h]}\nx: 1\ndomainLinks:\n  - {n1: a, n2: b}\n")
	_, err := metaserver.New(cfg)
	want := "meta file " + cfg.File + " is not valid:\nline 3: unknown key \"x\"\nline 5: domainLinks[0].n2: domain \"b\" is not defined"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestNewNamesAPortThatIsTaken(t *testing.T) {
	t.Parallel()
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	cfg := config(t)
	cfg.Addr = taken.Addr().String()
	_, err = metaserver.New(cfg)
	if err == nil || !strings.Contains(err.Error(), cfg.Addr) || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
}

func TestNewNamesEveryFieldThatIsMissing(t *testing.T) {
	t.Parallel()
	_, err := metaserver.New(metaserver.Config{})
	for _, field := range []string{"Addr", "File", "Token", "Log", "Metrics"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%v does not name %s", err, field)
		}
	}
}
