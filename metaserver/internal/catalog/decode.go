package catalog

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/topology"
)

// decoder turns the tree of the file into a network. It knows keys and types;
// what the values mean is topology's to check. It goes on after a mistake, so
// that all of them are found in one go.
type decoder struct {
	mistakes []Problem
	warnings []Problem
	broken   map[string]bool // paths whose value could not be read
	values   int             // how many were read; nothing is behind maxValues
}

// fields says what to do with the value of each key of a mapping.
type fields map[string]func(n *yaml.Node, path string)

func (d *decoder) network(root *yaml.Node) topology.Network {
	var n topology.Network
	ofOlderFiles := func(_ *yaml.Node, path string) {
		text := path + ": is a section of older files and is not read"
		d.warnings = append(d.warnings, Problem{Line: lineOf(root, path), Text: text})
	}
	d.mapping(root, "", fields{
		"domains":           func(v *yaml.Node, path string) { n.Domains = list(d, v, path, d.domain) },
		"domainLinks":       func(v *yaml.Node, path string) { n.Links = list(d, v, path, d.link) },
		"clientApps":        func(v *yaml.Node, path string) { n.Apps = list(d, v, path, d.app) },
		"userDistributions": func(v *yaml.Node, path string) { n.Distributions = list(d, v, path, d.distribution) },
		"spring":            ofOlderFiles,
		"server":            ofOlderFiles,
	})
	return n
}

func (d *decoder) domain(n *yaml.Node, path string) topology.Domain {
	var out topology.Domain
	d.mapping(n, path, fields{
		"name": func(v *yaml.Node, path string) { out.Name = d.text(v, path) },
		"urls": func(v *yaml.Node, path string) { out.URLs = list(d, v, path, d.text) },
	})
	return out
}

func (d *decoder) link(n *yaml.Node, path string) topology.Link {
	var out topology.Link
	d.mapping(n, path, fields{
		"n1":       func(v *yaml.Node, path string) { out.N1 = d.text(v, path) },
		"n2":       func(v *yaml.Node, path string) { out.N2 = d.text(v, path) },
		"cost":     func(v *yaml.Node, path string) { out.Cost = int(d.number(v, path, 1, topology.MaxCost)) },
		"key":      func(v *yaml.Node, path string) { out.Key = d.text(v, path) },
		"insecure": func(v *yaml.Node, path string) { out.Insecure = d.boolean(v, path) },
	})
	return out
}

func (d *decoder) app(n *yaml.Node, path string) topology.App {
	var out topology.App
	d.mapping(n, path, fields{
		"appName":           func(v *yaml.Node, path string) { out.Name = d.text(v, path) },
		"appId":             func(v *yaml.Node, path string) { out.AppID = d.text(v, path) },
		"masterUserId":      func(v *yaml.Node, path string) { out.Master = ident.UserID(d.text(v, path)) },
		"authUrl":           func(v *yaml.Node, path string) { out.AuthURL = d.text(v, path) },
		"authEnabled":       func(v *yaml.Node, path string) { out.AuthEnabled = d.boolean(v, path) },
		"masterDelivery":    func(v *yaml.Node, path string) { out.MasterOne = d.choice(v, path, "all", "one") == "one" },
		"allowedApps":       func(v *yaml.Node, path string) { out.AllowedApps = list(d, v, path, d.text) },
		"limits":            func(v *yaml.Node, path string) { out.Limits = d.limits(v, path) },
		"userDistributions": func(v *yaml.Node, path string) { out.Distributions = list(d, v, path, d.distribution) },
	})
	return out
}

func (d *decoder) limits(n *yaml.Node, path string) topology.Limits {
	var out topology.Limits
	d.mapping(n, path, fields{
		"socket": func(v *yaml.Node, path string) { out.Socket = d.limit(v, path) },
		"app":    func(v *yaml.Node, path string) { out.App = d.limit(v, path) },
	})
	return out
}

// limit reports an empty mapping here: as a value it would be no limit at all.
func (d *decoder) limit(n *yaml.Node, path string) topology.Limit {
	var out topology.Limit
	before := len(d.mistakes)
	d.mapping(n, path, fields{
		"messagesPerSecond": func(v *yaml.Node, path string) { out.PerSecond = int(d.number(v, path, 1, topology.MaxPerSecond)) },
		"burst":             func(v *yaml.Node, path string) { out.Burst = int(d.number(v, path, 1, topology.MaxBurst)) },
	})
	if out == (topology.Limit{}) && len(d.mistakes) == before {
		d.mistake(n, path+".messagesPerSecond", "is missing")
	}
	return out
}

func (d *decoder) distribution(n *yaml.Node, path string) topology.Distribution {
	out := topology.Distribution{To: topology.MaxNumber}
	number := func(v *yaml.Node, path string) int64 { return d.number(v, path, 0, topology.MaxNumber) }
	d.mapping(n, path, fields{
		"domainName": func(v *yaml.Node, path string) { out.DomainName = d.text(v, path) },
		"from":       func(v *yaml.Node, path string) { out.From = number(v, path) },
		"to":         func(v *yaml.Node, path string) { out.To = number(v, path) },
	})
	if d.isBroken(path+".from") || d.isBroken(path+".to") {
		out.From, out.To = 0, topology.MaxNumber
		d.broken[path] = true
	}
	return out
}

// mapping hands each value to its field. A key without a value is as good as
// absent: a list whose entries are all commented out leaves one behind.
func (d *decoder) mapping(n *yaml.Node, path string, known fields) {
	n = resolve(n)
	if n.Kind != yaml.MappingNode {
		d.wrongType(n, path, "a mapping", kindOf(n))
		return
	}
	first := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], resolve(n.Content[i+1])
		d.values++
		if d.values > maxValues {
			return
		}
		name := resolve(key).Value
		field, ok := known[name]
		line, taken := first[name]
		switch {
		case resolve(key).Kind != yaml.ScalarNode:
			d.mistake(key, path, "a key must be text")
		case !ok:
			d.mistake(key, path, fmt.Sprintf("unknown key %.80q", name))
		case taken:
			d.mistake(key, path, fmt.Sprintf("key %q is here twice, first in line %d", name, line))
		case value.ShortTag() != "!!null":
			field(value, join(path, name))
		}
		if !taken {
			first[name] = key.Line
		}
	}
}

// list reads each item of a list.
func list[T any](d *decoder, n *yaml.Node, path string, item func(*yaml.Node, string) T) []T {
	n = resolve(n)
	if n.Kind != yaml.SequenceNode {
		d.wrongType(n, path, "a list", kindOf(n))
		return nil
	}
	var items []T
	for i, v := range n.Content {
		d.values++
		if d.values > maxValues {
			return nil
		}
		items = append(items, item(resolve(v), fmt.Sprintf("%s[%d]", path, i)))
	}
	return items
}

// text returns the value as it is written even if it is a mistake, so that
// references to it are not mistakes as well.
func (d *decoder) text(n *yaml.Node, path string) string {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
		d.wrongType(n, path, "text", kindOf(n))
	}
	return n.Value
}

func (d *decoder) boolean(n *yaml.Node, path string) bool {
	var b bool
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" || n.Decode(&b) != nil {
		d.wrongType(n, path, "true or false", valueOf(n))
	}
	return b
}

func (d *decoder) choice(n *yaml.Node, path string, choices ...string) string {
	for _, c := range choices {
		if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" && n.Value == c {
			return c
		}
	}
	d.wrongType(n, path, strings.Join(choices, " or "), valueOf(n))
	return ""
}

// number accepts decimal digits only: what else YAML takes for a whole number,
// such as the octal 010, is seldom what was meant.
func (d *decoder) number(n *yaml.Node, path string, least, most int64) int64 {
	expected := fmt.Sprintf("a whole number from %d to %d", least, most)
	value, err := strconv.ParseInt(n.Value, 10, 64)
	canonical := err == nil && strconv.FormatInt(value, 10) == n.Value
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" || !canonical || value < least || value > most {
		d.wrongType(n, path, expected, valueOf(n))
		return least
	}
	return value
}

// wrongType reports a value that is not what was expected.
func (d *decoder) wrongType(n *yaml.Node, path, expected, found string) {
	d.broken[path] = true
	d.mistake(n, path, "must be "+expected+", is "+found)
}

func (d *decoder) mistake(n *yaml.Node, path, text string) {
	if path != "" {
		text = path + ": " + text
	}
	d.mistakes = append(d.mistakes, Problem{Line: n.Line, Text: text})
}

// isBroken says whether a path, or anything around it, could not be read: what
// else is wrong with it is not worth telling.
func (d *decoder) isBroken(path string) bool {
	for end := range len(path) {
		if (path[end] == '.' || path[end] == '[') && d.broken[path[:end]] {
			return true
		}
	}
	return d.broken[path] || d.broken[""]
}

// kindOf says what kind of value this is, without the value: it may be a secret.
func kindOf(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!str":
		return "text"
	case "!!null":
		return "empty"
	case "!!int", "!!float":
		return "a number: put it in quotes"
	case "!!bool":
		return "true or false: put it in quotes"
	case "!!timestamp":
		return "a date: put it in quotes"
	default:
		return "something with a tag"
	}
}

// valueOf is the value itself, where none that is right could be a secret.
func valueOf(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode && n.ShortTag() != "!!null" {
		return fmt.Sprintf("%.80q", n.Value)
	}
	return kindOf(n)
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
