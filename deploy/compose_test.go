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

// A deployment is a file that is used on top of docker-compose.services.yml.
type deployment struct {
	file     string
	programs int    // that are built from this repository
	document string // with the table of ports
}

func oneDomain() deployment {
	return deployment{file: "docker-compose.yml", programs: 6, document: "deploy/README.md"}
}

func fourDomains() deployment {
	return deployment{file: "deploy/compose/four-domains.yml", programs: 10, document: "docs/network.md"}
}

// each runs a test for every deployment.
func each(t *testing.T, test func(t *testing.T, d deployment)) {
	t.Helper()
	for _, d := range []deployment{oneDomain(), fourDomains()} {
		t.Run(filepath.Base(d.file), func(t *testing.T) {
			t.Parallel()
			test(t, d)
		})
	}
}

// project is what docker compose makes of the two files, in an environment.
func (d deployment) project(t *testing.T, environ ...string) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions(
		[]string{filepath.Join(root, "docker-compose.services.yml"), filepath.Join(root, d.file)},
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
func (d deployment) ours(t *testing.T, p *types.Project) map[string]types.ServiceConfig {
	t.Helper()
	built := map[string]types.ServiceConfig{}
	for name, s := range p.Services {
		if s.Build != nil {
			built[name] = s
		}
	}
	if len(built) != d.programs {
		t.Fatalf("built from here are %v; %d were expected", slices.Sorted(maps.Keys(built)), d.programs)
	}
	return built
}

// once says whether a service does its work and ends, before others start.
func once(s types.ServiceConfig) bool { return s.Restart == types.RestartPolicyNo }

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
	for d, want := range map[deployment][]string{
		oneDomain(): {"connector-1", "connector-2", "console", "kafka", "metaserver", "mongodb", "nats", "processor-1", "processor-2", "redis"},
		fourDomains(): {
			"certificates", "connector-01", "connector-02", "connector-03", "connector-04", "console", "kafka", "metaserver", "mongodb", "nats",
			"processor-01", "processor-02", "processor-03", "processor-04", "redis",
		},
	} {
		p := d.project(t)
		if names := slices.Sorted(maps.Keys(p.Services)); !slices.Equal(names, want) {
			t.Errorf("%s: the services are %v, want %v", d.file, names, want)
		}
		if len(p.DisabledServices) != 0 {
			t.Errorf("%s: %d services do not start", d.file, len(p.DisabledServices))
		}
	}
}

func TestComposePinsEveryImageItDoesNotBuild(t *testing.T) {
	t.Parallel()
	pinned := regexp.MustCompile(`^[a-z0-9./-]+:v?\d+\.\d+\.\d+(-[a-z0-9.]+)?$`)
	each(t, func(t *testing.T, d deployment) {
		for name, s := range d.project(t).Services {
			switch {
			case s.Build == nil && !pinned.MatchString(s.Image):
				t.Errorf("%s: the image %q has no whole version", name, s.Image)
			case s.Build != nil && s.Image != "":
				t.Errorf("%s: images that are built under one name at the same time fail; leave %q out", name, s.Image)
			}
		}
	})
}

func TestComposeBuildsFromATargetThatExists(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d deployment) {
		p := d.project(t)
		checkout, err := filepath.Abs(root)
		if err != nil {
			t.Fatal(err)
		}
		for name, s := range d.ours(t, p) {
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
	})
}

func TestComposePublishesEachPortOnceAndAsDocumented(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d deployment) {
		ports := publishedPorts(t, d.document)
		taken := map[string]string{}
		for name, s := range d.project(t).Services {
			if len(s.Ports) == 0 && !once(s) {
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
					t.Errorf("%s publishes %s on %s; the table of %s says %q", name, p.Published, on, d.document, said.on)
				} else if !strings.Contains(strings.ToLower(said.what), strings.TrimSuffix(name, "server")) {
					t.Errorf("%s publishes %s; %s says that it is %s", name, p.Published, d.document, said.what)
				}
			}
		}
		for port := range ports {
			if _, is := taken[port]; !is {
				t.Errorf("nobody publishes %s, which is in %s", port, d.document)
			}
		}
	})
}

type published struct{ on, what string }

// publishedPorts is the table of ports in a document.
func publishedPorts(t *testing.T, document string) map[string]published {
	t.Helper()
	ports := map[string]published{}
	row := regexp.MustCompile(`(?m)^\| ([0-9, ]+) \| (all interfaces|127\.0\.0\.1) \| (.*) \|$`)
	for _, m := range row.FindAllStringSubmatch(read(t, document), -1) {
		for port := range strings.SplitSeq(m[1], ", ") {
			ports[port] = published{on: m[2], what: m[3]}
		}
	}
	return ports
}

func TestComposePublishesThePortsThatProgramsListenOn(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d deployment) {
		for name, s := range d.ours(t, d.project(t)) {
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
	})
}

func TestComposeWaitsForServicesThatCanBecomeHealthy(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d deployment) {
		p := d.project(t)
		for name, s := range p.Services {
			if !once(s) && (s.HealthCheck == nil || s.HealthCheck.Disable || len(s.HealthCheck.Test) < 2) {
				t.Errorf("%s has no health check", name)
			}
			for needed, how := range s.DependsOn {
				other, is := p.Services[needed]
				if !is {
					t.Errorf("%s needs %s, which is not there", name, needed)
				}
				want := types.ServiceConditionHealthy
				if once(other) {
					want = types.ServiceConditionCompletedSuccessfully
				}
				if how.Condition != want {
					t.Errorf("%s needs %s to be %s only", name, needed, how.Condition)
				}
			}
		}
		needs := map[string][]string{
			"connector": {"kafka", "metaserver", "nats", "redis"}, "processor": {"kafka", "metaserver", "mongodb", "nats", "redis"},
			"metaserver": nil, "console": {"metaserver"},
		}
		for name, s := range d.ours(t, p) {
			want := needs[s.Build.Target]
			if s.Environment["LINKER_LINK_CERT"] != nil {
				want = append([]string{"certificates"}, want...)
			}
			if got := slices.Sorted(maps.Keys(s.DependsOn)); !slices.Equal(got, want) {
				t.Errorf("%s waits for %v, want %v", name, got, want)
			}
		}
	})
}

func TestComposeProbesAPortThatTheProgramListensOn(t *testing.T) {
	t.Parallel()
	probe := regexp.MustCompile(`^http://127\.0\.0\.1:(\d+)/(readyz)?$`)
	each(t, func(t *testing.T, d deployment) {
		for name, s := range d.ours(t, d.project(t)) {
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
	})
}

func TestComposeSetsWhatProgramsKnowAndNeed(t *testing.T) {
	t.Parallel()
	known := documented(t)
	each(t, func(t *testing.T, d deployment) {
		for name, s := range d.ours(t, d.project(t)) {
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
	})
}

func TestComposeSetsTheSameForAllServicesOfTheDomain(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d deployment) {
		sameSettings(t, d.ours(t, d.project(t)))
		const own = "a-token-of-somebodys-own"
		services := d.ours(t, d.project(t, "LINKER_META_TOKEN="+own))
		sameSettings(t, services)
		if token := services["metaserver"].Environment["LINKER_TOKEN"]; token == nil || *token != own {
			t.Error("the meta server does not take the token of the environment")
		}
	})
}

// sameSettings looks at what may differ only between domains, and at the token.
func sameSettings(t *testing.T, services map[string]types.ServiceConfig) {
	t.Helper()
	token := services["metaserver"].Environment["LINKER_TOKEN"]
	if token == nil {
		t.Fatal("the meta server has no token")
	}
	seen := map[string]string{} // by key
	for name, s := range services {
		for key, value := range s.Environment {
			if value == nil || key == "LINKER_NAME" || key == "LINKER_DOMAIN" {
				continue
			}
			if other, is := seen[key]; is && other != *value {
				t.Errorf("%s has %s=%s, another service %s", name, key, *value, other)
			}
			seen[key] = *value
		}
		if got := s.Environment["LINKER_META_TOKEN"]; got != nil && *got != *token {
			t.Errorf("%s shows another token than the meta server wants", name)
		}
	}
}

func TestComposeGivesProgramsTheAddressesOfServices(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d deployment) {
		p := d.project(t)
		address := regexp.MustCompile(`(?:^|//)([a-z]+):(\d+)`)
		for name, s := range d.ours(t, p) {
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
	})
}

func TestComposeGivesEnoughTimeToEnd(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d deployment) {
		for name, s := range d.project(t).Services {
			if once(s) {
				continue
			}
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
	})
}

func TestComposeDeclaresItsVolumesAndMountsWhatExists(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d deployment) {
		p := d.project(t)
		mounted := map[string]string{}
		for name, s := range p.Services {
			for _, v := range s.Volumes {
				switch v.Type {
				case types.VolumeTypeVolume:
					if _, is := p.Volumes[v.Source]; !is {
						t.Errorf("%s mounts the volume %q, which is not declared", name, v.Source)
					}
					if v.ReadOnly {
						continue
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
				t.Errorf("nobody writes to the volume %s", name)
			}
		}
	})
}

func TestComposeLetsOurContainersWriteOnlyWhereTheyMust(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d deployment) {
		for name, s := range d.ours(t, d.project(t)) {
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
	})
}

// TestComposeSetsUpTheServersAsLinkerNeedsThem looks at what no start would tell.
func TestComposeSetsUpTheServersAsLinkerNeedsThem(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d deployment) {
		p := d.project(t)
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
		mailbox := settingOf(d.ours(t, p), "LINKER_MAILBOX_URL")
		initiated := strings.Join(p.Services["mongodb"].HealthCheck.Test, " ")
		if set == nil || !strings.HasSuffix(mailbox, "replicaSet="+set[1]) || !strings.Contains(initiated, `_id: "`+set[1]+`"`) {
			t.Error("mongodb, its health check and the processors name different replica sets")
		}
	})
}

// settingOf is a setting that all services have alike, as far as they have it.
func settingOf(services map[string]types.ServiceConfig, key string) string {
	for _, s := range services {
		if value := s.Environment[key]; value != nil {
			return *value
		}
	}
	return ""
}

func TestConsoleAsksTheProcessorsOfAllDomains(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, d deployment) {
		const own = "a-token-of-somebodys-own"
		services := d.ours(t, d.project(t, "LINKER_HTTP_TOKEN="+own))
		console := services["console"].Environment
		var want []string
		for name, s := range services {
			if s.Build.Target != "processor" {
				continue
			}
			want = append(want, *s.Environment["LINKER_DOMAIN"]+"=http://"+name+":8081")
			if token := s.Environment["LINKER_HTTP_TOKEN"]; token == nil || *token != own {
				t.Errorf("%s does not take the token of the environment", name)
			}
		}
		slices.Sort(want)
		asked := console["LINKER_PROCESSOR_URL"]
		if asked == nil || *asked != strings.Join(want, ",") {
			t.Errorf("the console does not ask %v", want)
		}
		if token := console["LINKER_PROCESSOR_TOKEN"]; token == nil || *token != own {
			t.Error("the console shows another token than the processors want")
		}
	})
}

func TestDomainsOfOneHostShareNothingThatProvesWhoTheyAre(t *testing.T) {
	t.Parallel()
	d := fourDomains()
	p := d.project(t)
	domains := map[string][]string{} // the targets, by domain
	links := map[string]string{}     // the domain, by volume
	for name, s := range d.ours(t, p) {
		domain := s.Environment["LINKER_DOMAIN"]
		if domain == nil {
			continue
		}
		domains[*domain] = append(domains[*domain], s.Build.Target)
		for _, v := range s.Volumes {
			if v.Target != "/etc/linker/links" {
				continue
			}
			if other, is := links[v.Source]; is && other != *domain || !v.ReadOnly {
				t.Errorf("%s of %s mounts %s, read-only %v, which is of %s", name, *domain, v.Source, v.ReadOnly, other)
			}
			links[v.Source] = *domain
		}
		for key, file := range map[string]string{"LINKER_LINK_CERT": "link.pem", "LINKER_LINK_KEY": "link.key", "LINKER_LINK_CA": "ca.pem"} {
			if value := s.Environment[key]; value == nil || *value != "/etc/linker/links/"+file {
				t.Errorf("%s has no %s", name, key)
			}
		}
	}
	maker := p.Services["certificates"]
	for volume, domain := range links {
		if !slices.ContainsFunc(maker.Volumes, func(v types.ServiceVolumeConfig) bool {
			return v.Source == volume && v.Target == "/certificates/"+domain && !v.ReadOnly
		}) {
			t.Errorf("nobody makes a certificate of %s in %s", domain, volume)
		}
		if !slices.Contains(maker.Command, domain) {
			t.Errorf("certificates are made of %v, not of %s", maker.Command, domain)
		}
	}
	if len(domains) != 4 || len(links) != 4 || len(maker.Command) != 4 {
		t.Errorf("the domains are %v, their certificates lie in %v", domains, links)
	}
	for domain, targets := range domains {
		slices.Sort(targets)
		if !slices.Equal(targets, []string{"connector", "processor"}) {
			t.Errorf("%s has %v", domain, targets)
		}
	}
	if owner := maker.Environment["OWNER"]; owner == nil || *owner != dockerfile(t).last(target(t, dockerfile(t), "connector"), "USER") {
		t.Error("the certificates belong to another user than that of the images")
	}
}
