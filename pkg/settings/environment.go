package settings

import (
	"regexp"
	"slices"
	"strings"
)

// prefix is what the names of all our variables begin with.
const prefix = "LINKER_"

// environment reads the variables. One that is set to nothing counts as not set.
func (r *reader) environment(environ []string) map[string]finding {
	found := map[string]finding{}
	others := everyVariable()
	for _, entry := range environ {
		name, text, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, prefix) || text == "" {
			continue
		}
		key := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, prefix), "_", "-"))
		k, known := r.program.find(key)
		switch {
		case known && k.Environment() == name:
			if value, ok := r.found(k, name, text); ok {
				found[key] = value
			} else {
				delete(found, key) // of the same name, given earlier
			}
		case slices.Contains(others, name), isOfTools(name), isServiceLink(name, text):
		default:
			r.wrong("%.80s: no program has such a setting%s", name, r.hintOf(key, Key.Environment))
		}
	}
	return found
}

// everyVariable lists the variables of all programs: one file may serve all.
func everyVariable() []string {
	var names []string
	for _, p := range Programs() {
		for _, k := range p.all() {
			names = append(names, k.Environment())
		}
	}
	return names
}

// isOfTools says whether a variable belongs to the tests, to package failpoint, or to
// the scripts under deploy/.
func isOfTools(name string) bool {
	return name == "LINKER_FAILPOINTS" || strings.HasPrefix(name, "LINKER_TEST_") || name == "LINKER_NATIVE" || strings.HasPrefix(name, "LINKER_NATIVE_")
}

// isServiceLink says whether Kubernetes has put a variable there for a service
// whose name begins with "linker".
func isServiceLink(name, value string) bool {
	for _, link := range serviceLinks {
		if link.name.MatchString(name) {
			return link.value.MatchString(value)
		}
	}
	return false
}

var serviceLinks = []struct{ name, value *regexp.Regexp }{
	{regexp.MustCompile(`^LINKER_(.+_)?SERVICE_HOST$`), regexp.MustCompile(`^[0-9A-Za-z.:-]+$`)},
	{regexp.MustCompile(`^LINKER_(.+_)?SERVICE_PORT(_.+)?$`), regexp.MustCompile(`^[0-9]+$`)},
	{regexp.MustCompile(`^LINKER_(.+_)?PORT_[0-9]+_(TCP|UDP|SCTP)_PROTO$`), regexp.MustCompile(`^(tcp|udp|sctp)$`)},
	{regexp.MustCompile(`^LINKER_(.+_)?PORT_[0-9]+_(TCP|UDP|SCTP)_PORT$`), regexp.MustCompile(`^[0-9]+$`)},
	{regexp.MustCompile(`^LINKER_(.+_)?PORT_[0-9]+_(TCP|UDP|SCTP)_ADDR$`), regexp.MustCompile(`^[0-9A-Za-z.:-]+$`)},
	{regexp.MustCompile(`^LINKER_(.+_)?PORT(_[0-9]+_(TCP|UDP|SCTP))?$`), regexp.MustCompile(`^(tcp|udp|sctp)://.+:[0-9]+$`)},
}
