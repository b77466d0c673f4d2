package deploy

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// project is what docker compose makes of the two files, in an environment.
func project(t *testing.T, environ ...string) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions(
		[]string{filepath.Join(root, "docker-compose.services.yml"), filepath.Join(root, "docker-compose.yml")},
		cli.WithWorkingDirectory(root),
		cli.WithEnv(environ),
		cli.WithConsistency(true),
		cli.WithNormalization(true),
		cli.WithResolvedPaths(true),
	)
	if err != nil {
		t.Fatal(err)
	}
	p, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// ours are the services that are built from this repository, by name.
func ours(t *testing.T, p *types.Project) map[string]types.ServiceConfig {
	t.Helper()
	built := map[string]types.ServiceConfig{}
	for name, s := range p.Services {
		if s.Build != nil {
			built[name] = s
		}
	}
	if len(built) != 6 {
		t.Fatalf("built from here are %v; two connectors, two processors, a meta server and a console were expected", slices.Collect(maps.Keys(built)))
	}
	return built
}

// environment is what a container sees.
func environment(s types.ServiceConfig) []string {
	var environ []string
	for name, value := range s.Environment {
		if value != nil {
			environ = append(environ, name+"="+*value)
		}
	}
	return environ
}

func TestComposeHasEveryServiceThatADomainNeeds(t *testing.T) {
	t.Parallel()
	p := project(t)
	want := []string{"connector-1", "connector-2", "console", "kafka", "metaserver", "mongodb", "nats", "processor-1", "processor-2", "redis"}
	if names := slices.Sorted(maps.Keys(p.Services)); !slices.Equal(names, want) {
		t.Errorf("the services are %v, want %v", names, want)
	}
	if len(p.DisabledServices) != 0 {
		t.Errorf("%d services do not start", len(p.DisabledServices))
	}
}

func TestComposePinsEveryImageItDoesNotBuild(t *testing.T) {
	t.Parallel()
	pinned := regexp.MustCompile(`^[a-z0-9./-]+:v?\d+\.\d+\.\d+(-[a-z0-9.]+)?$`)
	for name, s := range project(t).Services {
		switch {
		case s.Build == nil && !pinned.MatchString(s.Image):
			t.Errorf("%s: the image %q has no whole version", name, s.Image)
		case s.Build != nil && s.Image != "":
			t.Errorf("%s: images that are built under one name at the same time fail; leave %q out", name, s.Image)
		}
	}
}

func TestComposeBuildsFromATargetThatExists(t *testing.T) {
	t.Parallel()
	p := project(t)
	checkout, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range ours(t, p) {
		if s.Build.Context != checkout || s.Build.Dockerfile != "deploy/Dockerfile" {
			t.Errorf("%s is built from %s in %s", name, s.Build.Dockerfile, s.Build.Context)
		}
		if _, err := os.Stat(filepath.Join(s.Build.Context, s.Build.Dockerfile)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, is := dockerfile(t).find(s.Build.Target); !is {
			t.Errorf("%s: there is no target %q", name, s.Build.Target)
		}
	}
}

func TestComposePublishesEachPortOnceAndAsDocumented(t *testing.T) {
	t.Parallel()
	ports := publishedPorts(t)
	taken := map[string]string{}
	for name, s := range project(t).Services {
		if len(s.Ports) == 0 {
			t.Errorf("%s publishes nothing", name)
		}
		for _, p := range s.Ports {
			if other, is := taken[p.Published]; is {
				t.Errorf("%s and %s both publish %s", name, other, p.Published)
			}
			taken[p.Published] = name
			on := p.HostIP
			if on == "" {
				on = "all interfaces"
			}
			if said, is := ports[p.Published]; !is || said.on != on {
				t.Errorf("%s publishes %s on %s; the table of deploy/README.md says %q", name, p.Published, on, said.on)
			} else if !strings.Contains(strings.ToLower(said.what), strings.TrimSuffix(name, "server")) {
				t.Errorf("%s publishes %s; deploy/README.md says that it is %s", name, p.Published, said.what)
			}
		}
	}
	for port := range ports {
		if _, is := taken[port]; !is {
			t.Errorf("nobody publishes %s, which is in deploy/README.md", port)
		}
	}
}

type published struct{ on, what string }

// publishedPorts is the table of ports in deploy/README.md.
func publishedPorts(t *testing.T) map[string]published {
	t.Helper()
	ports := map[string]published{}
	row := regexp.MustCompile(`(?m)^\| ([0-9, ]+) \| (all interfaces|127\.0\.0\.1) \| (.*) \|$`)
	for _, m := range row.FindAllStringSubmatch(read(t, "deploy", "README.md"), -1) {
		for port := range strings.SplitSeq(m[1], ", ") {
			ports[port] = published{on: m[2], what: m[3]}
		}
	}
	return ports
}

func TestComposePublishesThePortsThatProgramsListenOn(t *testing.T) {
	t.Parallel()
	for name, s := range ours(t, project(t)) {
		var targets []string
		for _, p := range s.Ports {
			targets = append(targets, strconv.FormatUint(uint64(p.Target), 10))
		}
		ports := listens(t, s.Build.Target, values(t, s.Build.Target, environment(s)))
		slices.Sort(targets)
		slices.Sort(ports)
		if !slices.Equal(targets, ports) {
			t.Errorf("%s publishes %v and listens on %v", name, targets, ports)
		}
	}
}

func TestComposeWaitsForServicesThatCanBecomeHealthy(t *testing.T) {
	t.Parallel()
	p := project(t)
	for name, s := range p.Services {
		if s.HealthCheck == nil || s.HealthCheck.Disable || len(s.HealthCheck.Test) < 2 {
			t.Errorf("%s has no health check", name)
		}
		for needed, how := range s.DependsOn {
			if _, is := p.Services[needed]; !is {
				t.Errorf("%s needs %s, which is not there", name, needed)
			}
			if how.Condition != types.ServiceConditionHealthy {
				t.Errorf("%s needs %s to be %s only", name, needed, how.Condition)
			}
		}
	}
	needs := map[string][]string{
		"connector": {"kafka", "metaserver", "nats", "redis"}, "processor": {"kafka", "metaserver", "mongodb", "nats", "redis"},
		"metaserver": nil, "console": {"metaserver"},
	}
	for name, s := range ours(t, p) {
		if got := slices.Sorted(maps.Keys(s.DependsOn)); !slices.Equal(got, needs[s.Build.Target]) {
			t.Errorf("%s waits for %v, want %v", name, got, needs[s.Build.Target])
		}
	}
}

func TestComposeProbesAPortThatTheProgramListensOn(t *testing.T) {
	t.Parallel()
	probe := regexp.MustCompile(`^http://127\.0\.0\.1:(\d+)/(readyz)?$`)
	for name, s := range ours(t, project(t)) {
		test := s.HealthCheck.Test
		if len(test) != 4 || test[0] != "CMD" || test[1] != "/linker" || test[2] != "--probe" {
			t.Errorf("%s is checked by %q", name, test)
			continue
		}
		m := probe.FindStringSubmatch(test[3])
		ports := listens(t, s.Build.Target, values(t, s.Build.Target, environment(s)))
		if m == nil || !slices.Contains(ports, m[1]) {
			t.Errorf("%s is asked %s, but listens on %v", name, test[3], ports)
		}
	}
}

func TestComposeSetsWhatProgramsKnowAndNeed(t *testing.T) {
	t.Parallel()
	known := documented(t)
	for name, s := range ours(t, project(t)) {
		for key := range s.Environment {
			if !slices.Contains(known[s.Build.Target], key) {
				t.Errorf("%s sets %s, which docs/configuration.md does not have for a %s", name, key, s.Build.Target)
			}
		}
		for _, k := range program(t, s.Build.Target).Keys {
			if value := s.Environment[k.Environment()]; k.Required && (value == nil || *value == "") {
				t.Errorf("%s needs %s", name, k.Environment())
			}
		}
		values(t, s.Build.Target, environment(s))
	}
}

func TestComposeSetsTheSameForAllServicesOfTheDomain(t *testing.T) {
	t.Parallel()
	for what, p := range map[string]*types.Project{
		"without a token": project(t), "with one": project(t, "LINKER_META_TOKEN=a-token-of-somebodys-own"),
	} {
		services := ours(t, p)
		token := services["metaserver"].Environment["LINKER_TOKEN"]
		if token == nil {
			t.Fatalf("%s: the meta server has no token", what)
		}
		if what == "with one" && *token != "a-token-of-somebodys-own" {
			t.Errorf("the meta server has the token %q", *token)
		}
		first := services["connector-1"].Environment
		for name, s := range services {
			for key, value := range s.Environment {
				if other := first[key]; value != nil && other != nil && *value != *other && key != "LINKER_NAME" {
					t.Errorf("%s: %s has %s=%s, connector-1 %s", what, name, key, *value, *other)
				}
			}
			if got := s.Environment["LINKER_META_TOKEN"]; got != nil && *got != *token {
				t.Errorf("%s: %s shows another token than the meta server wants", what, name)
			}
		}
	}
}

func TestComposeGivesProgramsTheAddressesOfServices(t *testing.T) {
	t.Parallel()
	p := project(t)
	address := regexp.MustCompile(`(?:^|//)([a-z]+):(\d+)`)
	for name, s := range ours(t, p) {
		for key, value := range s.Environment {
			m := address.FindStringSubmatch(*value)
			if m == nil {
				continue
			}
			if _, is := p.Services[m[1]]; !is {
				t.Errorf("%s: %s leads to %s, which is not there", name, key, m[1])
			} else if _, waits := s.DependsOn[m[1]]; !waits {
				t.Errorf("%s: %s leads to %s, for which it does not wait", name, key, m[1])
			}
		}
	}
}

func TestComposeGivesEnoughTimeToEnd(t *testing.T) {
	t.Parallel()
	for name, s := range project(t).Services {
		if s.StopGracePeriod == nil || s.Restart != types.RestartPolicyUnlessStopped {
			t.Errorf("%s has no stop_grace_period, or restarts %q", name, s.Restart)
			continue
		}
		if s.Build == nil {
			continue
		}
		most := drain(t, s.Build.Target, values(t, s.Build.Target, environment(s)))
		if grace := time.Duration(*s.StopGracePeriod); grace < most+5*time.Second {
			t.Errorf("%s is killed after %v, but may take %v to end", name, grace, most)
		}
	}
}

func TestComposeDeclaresItsVolumesAndMountsWhatExists(t *testing.T) {
	t.Parallel()
	p := project(t)
	mounted := map[string]string{}
	for name, s := range p.Services {
		for _, v := range s.Volumes {
			switch v.Type {
			case types.VolumeTypeVolume:
				if _, is := p.Volumes[v.Source]; !is {
					t.Errorf("%s mounts the volume %q, which is not declared", name, v.Source)
				}
				if other, is := mounted[v.Source]; is {
					t.Errorf("%s and %s write to one volume, %s", name, other, v.Source)
				}
				mounted[v.Source] = name
			case types.VolumeTypeBind:
				if _, err := os.Stat(v.Source); err != nil || !v.ReadOnly {
					t.Errorf("%s mounts %s, read-only %v: %v", name, v.Source, v.ReadOnly, err)
				}
			default:
				t.Errorf("%s mounts %s as %s", name, v.Source, v.Type)
			}
		}
	}
	for name := range p.Volumes {
		if mounted[name] == "" {
			t.Errorf("nobody mounts the volume %s", name)
		}
	}
}

func TestComposeLetsOurContainersWriteOnlyWhereTheyMust(t *testing.T) {
	t.Parallel()
	for name, s := range ours(t, project(t)) {
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || len(s.CapAdd) != 0 || s.Privileged || s.User != "" {
			t.Errorf("%s may do more than it must", name)
		}
		if cache := s.Environment["LINKER_META_CACHE"]; cache != nil {
			dir := filepath.Dir(*cache)
			if !slices.ContainsFunc(s.Volumes, func(v types.ServiceVolumeConfig) bool { return v.Target == dir && !v.ReadOnly }) {
				t.Errorf("%s cannot write to %s", name, *cache)
			}
		}
	}
}

// TestComposeSetsUpTheServersAsLinkerNeedsThem looks at what no start would tell.
func TestComposeSetsUpTheServersAsLinkerNeedsThem(t *testing.T) {
	t.Parallel()
	p := project(t)
	kafka := p.Services["kafka"].Environment
	number := func(key string) int {
		if kafka[key] == nil {
			t.Fatalf("kafka: %s is not set", key)
		}
		n, err := strconv.Atoi(*kafka[key])
		if err != nil {
			t.Fatalf("kafka: %s: %v", key, err)
		}
		return n
	}
	const week = 7 * 24
	if hours := number("KAFKA_LOG_RETENTION_HOURS"); hours < week {
		t.Errorf("kafka keeps a backlog for %d h only", hours)
	}
	if minutes := number("KAFKA_OFFSETS_RETENTION_MINUTES"); minutes < 2*60*number("KAFKA_LOG_RETENTION_HOURS") {
		t.Errorf("kafka forgets positions after %d min", minutes)
	}
	if made := kafka["KAFKA_AUTO_CREATE_TOPICS_ENABLE"]; made == nil || *made != "false" {
		t.Error("kafka makes topics by itself")
	}
	if !strings.Contains(read(t, "deploy", "compose", "nats.conf"), "max_payload: 8MB") {
		t.Error("nats refuses messages of 8 MB")
	}
	if redis := strings.Join(p.Services["redis"].Command, " "); !strings.Contains(redis, "--maxmemory-policy noeviction") {
		t.Errorf("redis may evict leases: %s", redis)
	}
	set := regexp.MustCompile(`--replSet (\S+)`).FindStringSubmatch(strings.Join(p.Services["mongodb"].Command, " "))
	mailbox := p.Services["processor-1"].Environment["LINKER_MAILBOX_URL"]
	initiated := strings.Join(p.Services["mongodb"].HealthCheck.Test, " ")
	if set == nil || mailbox == nil || !strings.HasSuffix(*mailbox, "replicaSet="+set[1]) || !strings.Contains(initiated, `_id: "`+set[1]+`"`) {
		t.Error("mongodb, its health check and the processors name different replica sets")
	}
}
