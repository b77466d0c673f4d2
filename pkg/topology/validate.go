package topology

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strconv"

	"github.com/linkerhq/linker/pkg/ident"
)

// Problem is something about a network that its operator should know.
type Problem struct {
	// Path says where, in the words of the YAML file: domainLinks[1].n2.
	Path string
	// Text says what. It never repeats a secret.
	Text string
	// Warning is true if the network can be used all the same.
	Warning bool
}

// Error is the path and the text.
func (p Problem) Error() string { return p.Path + ": " + p.Text }

// Validate returns all mistakes and warnings, section by section.
func (n Network) Validate() []Problem {
	v := validation{network: n, domains: make(map[string]int), apps: make(map[string]int), allows: make(map[[2]string]bool)}
	v.checkDomains()
	v.checkLinks()
	v.checkApps()
	v.checkDistributions("", n.Distributions)
	return v.problems
}

type validation struct {
	network  Network
	domains  map[string]int     // index of the first of each name
	apps     map[string]int     // index of the first of each name
	allows   map[[2]string]bool // app, and one that it lists
	problems []Problem
}

func (v *validation) mistake(path, format string, args ...any) {
	v.problems = append(v.problems, Problem{Path: path, Text: fmt.Sprintf(format, args...)})
}

func (v *validation) warning(path, format string, args ...any) {
	v.problems = append(v.problems, Problem{Path: path, Text: fmt.Sprintf(format, args...), Warning: true})
}

// required reports a field that is empty and says whether it was not.
func (v *validation) required(path, value string) bool {
	if value == "" {
		v.mistake(path, "is missing")
	}
	return value != ""
}

// unique reports a value that an earlier entry of the list has already.
func (v *validation) unique(seen map[string]int, list string, index int, field, value string) {
	if value == "" {
		return
	}
	if first, taken := seen[value]; taken {
		v.mistake(fmt.Sprintf("%s[%d].%s", list, index, field), "%s is that of %s[%d] already", quote(value), list, first)
		return
	}
	seen[value] = index
}

// defined reports a reference to a domain that is not there. Without any domain
// that alone is the mistake, and not each reference.
func (v *validation) defined(path, domain string) {
	if !v.required(path, domain) || len(v.network.Domains) == 0 {
		return
	}
	if _, ok := v.domains[domain]; !ok {
		v.mistake(path, "domain %s is not defined", quote(domain))
	}
}

func (v *validation) checkDomains() {
	if len(v.network.Domains) == 0 {
		v.mistake("domains", "at least one domain is needed")
	}
	for i, d := range v.network.Domains {
		path := fmt.Sprintf("domains[%d]", i)
		if v.required(path+".name", d.Name) && !ident.IsDomainName(d.Name) {
			v.mistake(path+".name", "%s is not a domain name: 1 to 63 lower-case letters, digits and dashes, beginning with a letter or digit", quote(d.Name))
		}
		v.unique(v.domains, "domains", i, "name", d.Name)
		if len(d.URLs) == 0 {
			v.mistake(path+".urls", "is missing")
		}
		for j, s := range d.URLs {
			v.checkDomainURL(fmt.Sprintf("%s.urls[%d]", path, j), s)
		}
	}
}

func (v *validation) checkDomainURL(path, s string) {
	const expected = "expected tcp://HOST:PORT, ws://HOST:PORT or wss://HOST:PORT"
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Hostname() == "":
		v.mistake(path, "is not a URL: %s", expected)
	case u.Scheme != "tcp" && u.Scheme != "ws" && u.Scheme != "wss":
		v.mistake(path, "has the scheme %s: %s", quote(u.Scheme), expected)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		v.mistake(path, "everybody can read it, so it may not carry a user, a query or a fragment: %s", expected)
	case u.Port() == "" && u.Scheme == "tcp":
		v.mistake(path, "has no port: %s", expected)
	case u.Port() != "" && !isPort(u.Port()):
		v.mistake(path, "has the port %s: expected 1 to 65535", quote(u.Port()))
	}
}

func isPort(s string) bool {
	port, err := strconv.ParseUint(s, 10, 16)
	return err == nil && port > 0
}

func (v *validation) checkLinks() {
	seen := make(map[[2]string]int)
	for i, l := range v.network.Links {
		path := fmt.Sprintf("domainLinks[%d]", i)
		v.defined(path+".n1", l.N1)
		v.defined(path+".n2", l.N2)
		if l.Cost < 0 || l.Cost > MaxCost {
			v.mistake(path+".cost", "%d is not a cost: a whole number from 1 to %d", l.Cost, MaxCost)
		}
		if l.Key != "" && l.Insecure {
			v.mistake(path+".insecure", "a link with a key is not insecure: remove one of the two")
		}
		if l.N1 == "" || l.N2 == "" {
			continue
		}
		if l.N1 == l.N2 {
			v.mistake(path, "links domain %s to itself", quote(l.N1))
			continue
		}
		ends := [2]string{min(l.N1, l.N2), max(l.N1, l.N2)}
		if first, taken := seen[ends]; taken {
			v.mistake(path, "links %s and %s, as domainLinks[%d] does already", quote(l.N1), quote(l.N2), first)
			continue
		}
		seen[ends] = i
	}
}

func (v *validation) checkApps() {
	ids := make(map[string]int)
	for i, a := range v.network.Apps {
		v.unique(v.apps, "clientApps", i, "appName", a.Name)
		v.unique(ids, "clientApps", i, "appId", a.AppID)
		for _, allowed := range a.AllowedApps {
			v.allows[[2]string{a.Name, allowed}] = true
		}
	}
	for i, a := range v.network.Apps {
		path := fmt.Sprintf("clientApps[%d]", i)
		if v.required(path+".appName", a.Name) && !ident.IsAppName(a.Name) {
			v.mistake(path+".appName", "%s is not an app name: 1 to 32 letters, digits and underscores, beginning with a letter", quote(a.Name))
		}
		v.required(path+".appId", a.AppID)
		v.checkMaster(path+".masterUserId", a)
		v.checkAuth(path, a)
		v.checkAllowedApps(path+".allowedApps", a)
		v.checkLimit(path+".limits.socket", a.Limits.Socket)
		v.checkLimit(path+".limits.app", a.Limits.App)
		v.checkDistributions(path+".", a.Distributions)
	}
}

func (v *validation) checkMaster(path string, a App) {
	if !v.required(path, string(a.Master)) {
		return
	}
	master, err := ident.ParseUserID(string(a.Master))
	switch {
	case err != nil:
		v.mistake(path, "%s is not a user id: <appName>-<number>", quote(string(a.Master)))
	case a.Name != "" && master.App() != a.Name:
		v.mistake(path, "%s is a user of app %s, not of %s", quote(string(master)), quote(master.App()), quote(a.Name))
	}
}

// checkAuth never repeats the URL: it may hold a password.
func (v *validation) checkAuth(path string, a App) {
	if a.AuthURL != "" {
		u, err := url.Parse(a.AuthURL)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
			v.mistake(path+".authUrl", "is not an http:// or https:// URL")
		}
	}
	if a.AuthEnabled && a.AuthURL == "" {
		v.warning(path+".authEnabled", "is true, but there is no authUrl: every login to app %s is refused", quote(a.Name))
	}
}

func (v *validation) checkAllowedApps(path string, a App) {
	seen := make(map[string]bool, len(a.AllowedApps))
	for i, allowed := range a.AllowedApps {
		at := fmt.Sprintf("%s[%d]", path, i)
		if !v.required(at, allowed) {
			continue
		}
		_, ok := v.apps[allowed]
		switch {
		case !ok:
			v.mistake(at, "app %s is not defined", quote(allowed))
		case seen[allowed]:
			v.mistake(at, "app %s is listed twice", quote(allowed))
		case allowed == a.Name:
			v.warning(at, "users of one app always reach each other")
		case !v.allows[[2]string{allowed, a.Name}]:
			v.warning(at, "has no effect: app %s does not list %s", quote(allowed), quote(a.Name))
		}
		seen[allowed] = true
	}
}

func (v *validation) checkLimit(path string, l Limit) {
	switch {
	case l == Limit{}:
		return
	case l.PerSecond == 0:
		v.mistake(path+".messagesPerSecond", "is missing")
	case l.PerSecond < 0 || l.PerSecond > MaxPerSecond:
		v.mistake(path+".messagesPerSecond", "%d is not a rate: a whole number from 1 to %d", l.PerSecond, MaxPerSecond)
	}
	if l.Burst < 0 || l.Burst > MaxBurst {
		v.mistake(path+".burst", "%d is not a number of messages: a whole number from 1 to %d", l.Burst, MaxBurst)
	}
}

func (v *validation) checkDistributions(prefix string, list []Distribution) {
	sound := make([]int, 0, len(list))
	for i, d := range list {
		path := fmt.Sprintf("%suserDistributions[%d]", prefix, i)
		v.defined(path+".domainName", d.DomainName)
		switch {
		case d.From < 0 || d.From > MaxNumber:
			v.mistake(path+".from", "%d is not a user number: a whole number from 0 to %d", d.From, MaxNumber)
		case d.To < 0 || d.To > MaxNumber:
			v.mistake(path+".to", "%d is not a user number: a whole number from 0 to %d", d.To, MaxNumber)
		case d.From > d.To:
			v.mistake(path, "from %d is greater than to %d", d.From, d.To)
		default:
			sound = append(sound, i)
		}
	}
	v.warnOfOverlaps(prefix, list, sound)
}

// warnOfOverlaps walks the ranges in order of where they begin and compares each
// with the one that reaches furthest so far, so that a long list costs no more
// than sorting it.
func (v *validation) warnOfOverlaps(prefix string, list []Distribution, sound []int) {
	slices.SortFunc(sound, func(a, b int) int {
		return cmp.Or(cmp.Compare(list[a].From, list[b].From), cmp.Compare(a, b))
	})
	furthest := -1
	for _, i := range sound {
		if furthest >= 0 && list[i].From <= list[furthest].To {
			v.warning(fmt.Sprintf("%suserDistributions[%d]", prefix, max(i, furthest)),
				"overlaps %suserDistributions[%d]: the first match wins", prefix, min(i, furthest))
		}
		if furthest < 0 || list[i].To > list[furthest].To {
			furthest = i
		}
	}
}

// quote quotes a value for a message and keeps a long one from filling it.
func quote(s string) string { return fmt.Sprintf("%.80q", s) }
