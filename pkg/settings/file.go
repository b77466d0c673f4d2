package settings

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// file reads the YAML file that was named, of lines KEY: VALUE.
func (r *reader) file(named finding) map[string]finding {
	path, _ := named.value.(string)
	text, err := readAtMost(path, maxFile)
	if err != nil {
		r.wrong("%s: %w", named.place, err)
		return nil
	}
	return r.yaml(path, text)
}

func (r *reader) yaml(path string, text []byte) map[string]finding {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document yaml.Node
	err := decoder.Decode(&document)
	if errors.Is(err, io.EOF) {
		return nil // nothing but comments
	}
	if err != nil {
		r.wrong("%s", unreadable(path, err))
		return nil
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		r.wrong("%s: expected one document", path)
		return nil
	}
	top := document.Content[0]
	if top.Kind == yaml.ScalarNode && top.Tag == nullTag {
		return nil
	}
	if top.Kind != yaml.MappingNode {
		r.wrong("%s:%d: expected lines KEY: VALUE", path, top.Line)
		return nil
	}
	found := map[string]finding{}
	lines := map[string]int{} // where each key was seen
	for i := 0; i+1 < len(top.Content); i += 2 {
		name, value := top.Content[i], top.Content[i+1]
		place := fmt.Sprintf("%s:%d: %.80s", path, name.Line, name.Value)
		k, known := r.program.find(name.Value)
		switch {
		case !known || name.Kind != yaml.ScalarNode:
			r.wrong("%s: %s has no such setting%s%s", place, r.program.Name, ofOthers(name.Value), r.hint(name.Value))
		case name.Value == configKey:
			r.wrong("%s: the file cannot name another one", place)
		case lines[name.Value] > 0:
			r.wrong("%s: stands in line %d already", place, lines[name.Value])
		default:
			lines[name.Value] = name.Line
			if f, ok := r.node(k, place, value); ok {
				found[name.Value] = f
			}
		}
	}
	return found
}

const nullTag = "!!null"

// node reads a value. Scalars are taken as they are written: 0123 is a password
// like any other. Nothing, and null, are no value.
func (r *reader) node(k Key, place string, n *yaml.Node) (finding, bool) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag == nullTag:
		return finding{}, false
	case n.Kind == yaml.ScalarNode:
		return r.found(k, place, n.Value)
	case n.Kind == yaml.SequenceNode && k.Kind == List:
		entries := make([]string, len(n.Content))
		for i, entry := range n.Content {
			if entry.Kind == yaml.ScalarNode && entry.Tag != nullTag {
				entries[i] = entry.Value
			}
		}
		value, ok := k.parseList(entries)
		if !ok {
			r.refuse(k, place, "["+strings.Join(withoutUsers(entries), ", ")+"]")
		}
		return finding{place: place, value: value}, ok
	default:
		r.refuse(k, place, kindOf(n))
		return finding{}, false
	}
}

func kindOf(n *yaml.Node) string {
	if n.Kind == yaml.SequenceNode {
		return "a list"
	}
	return "a group of keys"
}

// unreadable says where a file is no YAML. What the library says may quote the
// file, so only what quotes nothing is passed on.
func unreadable(path string, err error) string {
	said := strings.TrimPrefix(err.Error(), "yaml: ")
	if harmless.MatchString(said) {
		return path + ": not YAML: " + said
	}
	if line := lineOf.FindString(said); line != "" {
		return path + ": not YAML: " + line
	}
	return path + ": not YAML"
}

var (
	harmless = regexp.MustCompile(`^(line [0-9]+: )?[a-z ,]+$`)
	lineOf   = regexp.MustCompile(`^line [0-9]+`)
)

// ofOthers says which other programs have the setting.
func ofOthers(name string) string {
	var owners []string
	for _, p := range Programs() {
		if _, is := p.find(name); is {
			owners = append(owners, p.Name)
		}
	}
	if len(owners) == 0 {
		return ""
	}
	slices.Sort(owners)
	return ", which is one of " + strings.Join(owners, " and ")
}
