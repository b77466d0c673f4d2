package system

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/linkerhq/linker/pkg/ident"
)

const (
	// HomeRange is how many user numbers are at home in each domain.
	HomeRange = 1_000_000
	// Those numbers of a domain that Move moves: from the first to before the end.
	movedFirst = 300
	movedEnd   = 304
	// masterNumber is that of a master in its domain.
	masterNumber = HomeRange - 1
)

// Domain is one domain of the system, as clients see it.
type Domain struct {
	Name  string
	URLs  []string // of its websockets, as ws://HOST:PORT/ws
	First int64    // number of the first user who is at home there
}

// App is a client app. All have the same distribution of users.
type App struct {
	Name   string // with which the ids of its users begin
	ID     string // what they log in with
	Master ident.UserID
}

// Apps are those of the system: their masters are at home in different domains, if
// there are several.
func (s *System) Apps() []App {
	var apps []App
	for n, name := range []string{"TOR", "URE"} {
		home := s.domains[n%len(s.domains)]
		apps = append(apps, App{
			Name: name, ID: "app-" + strings.ToLower(name),
			Master: ident.UserID(fmt.Sprintf("%s-%d", name, home.First+masterNumber)),
		})
	}
	return apps
}

// description is what the network's file says.
type description struct {
	domains []described
	links   []describedLink
	apps    []App
	moved   map[string]string // from which domain to which users have moved
}

type described struct {
	name string
	urls []string
}

type describedLink struct{ a, b, key string }

// line links each domain to the next.
func line(names []string) [][2]string {
	var pairs [][2]string
	for n := range len(names) - 1 {
		pairs = append(pairs, [2]string{names[n], names[n+1]})
	}
	return pairs
}

// ring links each domain to the next, and the last to the first.
func ring(names []string) [][2]string {
	pairs := line(names)
	if len(names) > 2 {
		pairs = append(pairs, [2]string{names[len(names)-1], names[0]})
	}
	return pairs
}

// yaml writes the file of the meta server.
func (d description) yaml() string {
	var b strings.Builder
	b.WriteString("domains:\n")
	for _, domain := range d.domains {
		fmt.Fprintf(&b, "  - {name: %s, urls: ['%s']}\n", domain.name, strings.Join(domain.urls, "', '"))
	}
	if len(d.links) > 0 {
		b.WriteString("domainLinks:\n")
	}
	for _, l := range d.links {
		fmt.Fprintf(&b, "  - {n1: %s, n2: %s, key: %s}\n", l.a, l.b, l.key)
	}
	b.WriteString("clientApps:\n")
	for _, app := range d.apps {
		fmt.Fprintf(&b, "  - {appName: %s, appId: %s, masterUserId: %s}\n", app.Name, app.ID, app.Master)
	}
	b.WriteString("userDistributions:\n")
	for n, domain := range d.domains {
		first := int64(n) * HomeRange
		if to, is := d.moved[domain.name]; is { // the first that matches counts
			fmt.Fprintf(&b, "  - {domainName: %s, from: %d, to: %d}\n", to, first+movedFirst, first+movedEnd-1)
		}
		fmt.Fprintf(&b, "  - {domainName: %s, from: %d, to: %d}\n", domain.name, first, first+HomeRange-1)
	}
	return b.String()
}

// write puts the description in place, as a whole.
func (d description) write(file string) error {
	next := filepath.Join(filepath.Dir(file), ".next-"+filepath.Base(file))
	if err := os.WriteFile(next, []byte(d.yaml()), 0o600); err != nil {
		return err
	}
	return os.Rename(next, file)
}

// Move changes the network's file: some users of a domain are at
// home in another one from then on. to == from takes them back.
func (s *System) Move(from, to string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if from == to {
		delete(s.description.moved, from)
	} else {
		s.description.moved[from] = to
	}
	return s.description.write(s.networkFile())
}
