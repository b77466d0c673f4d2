package main

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v4"
)

// expression is one PromQL expression of a file, and where it stands there.
type expression struct{ where, text string }

// alertRules is a rules file of Prometheus, as far as it is checked here.
type alertRules struct {
	Groups []struct {
		Name  string
		Rules []struct {
			Record, Alert, Expr, For string
			Labels, Annotations      map[string]string
		}
	}
}

// dashboard is a dashboard of Grafana, as far as it is checked here.
type dashboard struct {
	UID           string
	SchemaVersion int
	Templating    struct {
		List []struct {
			Name, Type string
			Query      any
		}
	}
	Panels []struct {
		ID                       int
		Type, Title, Description string
		GridPos                  struct{ X, Y, W, H int }
		FieldConfig              struct{ Defaults struct{ Unit string } }
		Targets                  []struct {
			RefID, Expr string
			Datasource  struct{ UID string }
		}
	}
}

func TestDashboardAndAlertsUseMetricsAndLabelsThatAreExported(t *testing.T) {
	t.Parallel()
	recorded := map[string]bool{}
	for _, group := range readRules(t).Groups {
		for _, rule := range group.Rules {
			recorded[rule.Record] = true
		}
	}
	exported := exportedSeries(t)
	seen := 0
	for _, e := range expressions(t) {
		for _, selector := range selectors(t, e) {
			seen++
			if recorded[selector.Name] || selector.Name == "up" { // up is of Prometheus itself
				continue
			}
			if file, is := conditional()[selector.Name]; is {
				if !strings.Contains(document(t, file...), `"`+selector.Name+`"`) {
					t.Errorf("%s: %s is not in %v", e.where, selector.Name, file)
				}
				continue
			}
			series := exported[selector.Name]
			if series == nil {
				t.Errorf("%s: %s is not exported", e.where, selector.Name)
				continue
			}
			for _, m := range selector.LabelMatchers {
				if !slices.Contains([]string{"__name__", "domain", "instance", "job"}, m.Name) && !matches(series, m) {
					t.Errorf("%s: no series of %s fits %s", e.where, selector.Name, m)
				}
			}
		}
	}
	if seen < 80 {
		t.Errorf("only %d selectors were found: are the files read?", seen)
	}
}

// conditional lists the metrics that a domain without certificates does not export,
// and the files that export them.
func conditional() map[string][]string {
	return map[string][]string{"linker_certs_expiry_timestamp_seconds": {"pkg", "certs", "pair.go"}}
}

// matches says whether the label of a matcher is there, and a series that it selects.
func matches(series []map[string]string, m *labels.Matcher) bool {
	return slices.ContainsFunc(series, func(s map[string]string) bool {
		value, has := s[m.Name]
		return has && m.Matches(value)
	})
}

func TestAlertsSayHowBadItIsAndLinkToWhatToDo(t *testing.T) {
	t.Parallel()
	anchors := headings(document(t, "docs", "operations.md"))
	names := map[string]bool{}
	for _, group := range readRules(t).Groups {
		for _, rule := range group.Rules {
			if rule.Alert == "" {
				continue
			}
			if names[rule.Alert] {
				t.Errorf("%s stands twice in the rules", rule.Alert)
			}
			names[rule.Alert] = true
			if _, err := time.ParseDuration(rule.For); err != nil {
				t.Errorf("%s: for: %v", rule.Alert, err)
			}
			if s := rule.Labels["severity"]; s != "critical" && s != "warning" {
				t.Errorf("%s: severity %q", rule.Alert, s)
			}
			if rule.Annotations["summary"] == "" {
				t.Errorf("%s: no summary", rule.Alert)
			}
			page, anchor, _ := strings.Cut(rule.Annotations["runbook_url"], "#")
			if !strings.HasSuffix(page, "/docs/operations.md") || !slices.Contains(anchors, anchor) {
				t.Errorf("%s: the runbook %q is no section of docs/operations.md", rule.Alert, rule.Annotations["runbook_url"])
			}
		}
	}
	var documented []string
	for _, m := range regexp.MustCompile("`(Linker[A-Za-z]+)`").FindAllStringSubmatch(document(t, "docs", "operations.md"), -1) {
		documented = append(documented, m[1])
	}
	slices.Sort(documented)
	if want := slices.Sorted(maps.Keys(names)); !slices.Equal(slices.Compact(documented), want) {
		t.Errorf("docs/operations.md names the alerts\n%v\nthe rules have\n%v", documented, want)
	}
}

func TestDashboardIsOneThatGrafanaCanDraw(t *testing.T) {
	t.Parallel()
	d := readDashboard(t)
	if d.UID == "" || d.SchemaVersion < 39 {
		t.Errorf("uid %q, schema version %d", d.UID, d.SchemaVersion)
	}
	var variables, rows []string
	for _, v := range d.Templating.List {
		variables = append(variables, v.Name)
	}
	if want := []string{"datasource", "domain", "instance"}; !slices.Equal(variables, want) {
		t.Errorf("variables are %v, want %v", variables, want)
	}
	ids := map[int]bool{}
	taken := map[[2]int]string{} // cells of the grid
	for _, p := range d.Panels {
		if ids[p.ID] {
			t.Errorf("%s: another panel has the id %d", p.Title, p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, is := taken[[2]int{x, y}]; is || x >= 24 {
					t.Fatalf("%s lies on %q, or outside of the grid", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			rows = append(rows, p.Title)
			continue
		}
		if p.Description == "" || p.FieldConfig.Defaults.Unit == "" || len(p.Targets) == 0 {
			t.Errorf("%s: description %q, unit %q, %d queries", p.Title, p.Description, p.FieldConfig.Defaults.Unit, len(p.Targets))
		}
		letters := map[string]bool{}
		for _, target := range p.Targets {
			if letters[target.RefID] || target.RefID == "" || target.Datasource.UID != "${datasource}" {
				t.Errorf("%s: query %q of the data source %q", p.Title, target.RefID, target.Datasource.UID)
			}
			letters[target.RefID] = true
		}
	}
	if want := []string{"Traffic", "Custody", "Lanes", "Links", "Presence", "Brokers", "Process"}; !slices.Equal(rows, want) {
		t.Errorf("rows are %v, want %v", rows, want)
	}
}

func TestScrapeExampleReadsTheRulesAndNamesTheServicesOfTheComposeFile(t *testing.T) {
	t.Parallel()
	var config struct {
		RuleFiles     []string `yaml:"rule_files"`
		ScrapeConfigs []struct {
			JobName       string `yaml:"job_name"`
			StaticConfigs []struct {
				Targets []string
				Labels  map[string]string
			} `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	if err := yaml.Unmarshal([]byte(document(t, "deploy", "prometheus", "prometheus.yml")), &config); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(config.RuleFiles, []string{"alerts.yml"}) {
		t.Errorf("rule files are %v", config.RuleFiles)
	}
	var compose struct{ Services map[string]any }
	if err := yaml.Unmarshal([]byte(document(t, "docker-compose.yml")), &compose); err != nil {
		t.Fatal(err)
	}
	delete(compose.Services, "console") // it has no metrics
	ports := map[string]string{"linker-connector": "8080", "linker-processor": "8081", "linker-metaserver": "9000"}
	for _, job := range config.ScrapeConfigs {
		for _, static := range job.StaticConfigs {
			for _, target := range static.Targets {
				host, port, _ := strings.Cut(target, ":")
				if _, is := compose.Services[host]; !is || port != ports[job.JobName] {
					t.Errorf("%s: %s is no such service, or has not the port %s", job.JobName, target, ports[job.JobName])
				}
				delete(compose.Services, host)
			}
			if (static.Labels["domain"] == "") != (job.JobName == "linker-metaserver") {
				t.Errorf("%s: the domain is %q", job.JobName, static.Labels["domain"])
			}
		}
	}
	if len(compose.Services) > 0 {
		t.Errorf("not scraped: %v", slices.Sorted(maps.Keys(compose.Services)))
	}
}

func readRules(t *testing.T) alertRules {
	t.Helper()
	var rules alertRules
	if err := yaml.Unmarshal([]byte(document(t, "deploy", "prometheus", "alerts.yml")), &rules); err != nil {
		t.Fatal(err)
	}
	return rules
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	var d dashboard
	if err := json.Unmarshal([]byte(document(t, "deploy", "grafana", "linker.json")), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// expressions lists everything that Prometheus is asked by the dashboard and the
// rules.
func expressions(t *testing.T) []expression {
	t.Helper()
	var list []expression
	for _, group := range readRules(t).Groups {
		for _, rule := range group.Rules {
			list = append(list, expression{"alerts.yml: " + rule.Record + rule.Alert, rule.Expr})
		}
	}
	d := readDashboard(t)
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			list = append(list, expression{"linker.json: " + p.Title, strings.ReplaceAll(target.Expr, "$__rate_interval", "1m")})
		}
	}
	metric := regexp.MustCompile(`^label_values\((.+), \w+\)$`)
	for _, v := range d.Templating.List {
		if v.Type != "query" {
			continue
		}
		query, _ := v.Query.(map[string]any)
		text, _ := query["query"].(string)
		m := metric.FindStringSubmatch(text)
		if m == nil {
			t.Errorf("linker.json: the variable %s asks %q", v.Name, text)
			continue
		}
		list = append(list, expression{"linker.json: variable " + v.Name, m[1]})
	}
	return list
}

// selectors parses an expression and lists the series that it asks for.
func selectors(t *testing.T, e expression) []*parser.VectorSelector {
	t.Helper()
	parsed, err := parser.NewParser(parser.Options{}).ParseExpr(e.text)
	if err != nil {
		t.Errorf("%s: %v", e.where, err)
		return nil
	}
	var list []*parser.VectorSelector
	parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
		if selector, is := node.(*parser.VectorSelector); is {
			list = append(list, selector)
		}
		return nil
	})
	return list
}

// exportedSeries runs two linked domains and returns the labels of every series of
// every metric of the first one's services. A metric without series so far has an
// empty list.
func exportedSeries(t *testing.T) map[string][]map[string]string {
	t.Helper()
	s := twoDomains(t)
	// Lanes show their figures every second only.
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for {
		text := get(t, s.ConnectorURL()+"/metrics") + get(t, s.ProcessorURL()+"/metrics") + get(t, s.MetaURL()+"/metrics")
		if strings.Contains(text, "\nlinker_lane_lag_records{") && strings.Contains(text, "\nlinker_lane_road_waiting_records{") {
			return series(text)
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("no lane shows its figures")
		}
	}
}

// series reads the text format of Prometheus, as far as it is needed here.
func series(text string) map[string][]map[string]string {
	head := regexp.MustCompile(`^# TYPE (\w+) (\w+)`)
	line := regexp.MustCompile(`^(\w+)(?:\{(.*)\})? `)
	label := regexp.MustCompile(`(\w+)="((?:[^"\\]|\\.)*)"`)
	found := map[string][]map[string]string{}
	for l := range strings.Lines(text) {
		if m := head.FindStringSubmatch(l); m != nil {
			if m[2] != "histogram" {
				found[m[1]] = append(found[m[1]], map[string]string{})
			}
			continue
		}
		if m := line.FindStringSubmatch(l); m != nil {
			set := map[string]string{}
			for _, pair := range label.FindAllStringSubmatch(m[2], -1) {
				set[pair[1]] = pair[2]
			}
			found[m[1]] = append(found[m[1]], set)
		}
	}
	return found
}

// headings lists the anchors that the headings of a page can be reached by.
func headings(page string) []string {
	var anchors []string
	drop := regexp.MustCompile(`[^a-z0-9 _-]`)
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(page, -1) {
		anchors = append(anchors, strings.ReplaceAll(drop.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-"))
	}
	return anchors
}
