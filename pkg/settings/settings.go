// Package settings is what operators can set: the table of all keys of all
// programs, and how their values are found. A value comes from a flag, else from
// the environment, else from a YAML file, else from the table.
//
// A program reads its settings once, at its start, into values that never change.
// Whatever is wrong, in whichever source, is reported together, by source and with
// what was expected. The values of secrets are in no message, no help and no log.
package settings

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/viper"
)

// Program is one program and what can be set for it.
type Program struct {
	Name    string // of the binary
	About   string // what it is, for --help; lines of at most 80 characters
	Example string // a command line that works
	Keys    []Key  // in the order of --help; those of one group stand together
}

// Key is one setting: the flag --NAME, the variable LINKER_NAME with _ for -, and
// the line NAME: VALUE of a YAML file.
type Key struct {
	Name     string
	Group    string // the heading that it stands under in --help
	Kind     Kind
	Default  string // as an operator would write it; empty: none
	Stands   string // what no value means, where the meaning does not say it: "any"
	Required bool
	Secret   bool   // it may come from a file too: NAME-file
	Value    string // what --help calls the value: FILE, HOST:PORT
	Meaning  string // for --help: one line or more

	valid    func(string) bool // what a Text, or each entry of a List, must be; nil: anything
	min, max int64             // of a Number; of a Duration min, in nanoseconds
	expected string            // what messages say of valid
	with     []string          // keys that must be given if this one is
}

// Kind is what a value is.
type Kind int

// The kinds. Lists are comma-separated in flags and in the environment.
const (
	Text Kind = iota + 1
	Switch
	Number
	Duration
	List
)

// Environment returns the name of the key's variable.
func (k Key) Environment() string {
	return prefix + strings.ToUpper(strings.ReplaceAll(k.Name, "-", "_"))
}

// file is the key of the file that holds a secret.
func (k Key) file() Key {
	return Key{
		Name: k.Name + "-file", Group: k.Group, Kind: Text, Value: "FILE",
		Meaning: "file that holds " + k.Name + ", in place of it",
	}
}

// find returns the key of that name, the files of secrets among them.
func (p Program) find(name string) (Key, bool) {
	for _, k := range p.all() {
		if k.Name == name {
			return k, true
		}
	}
	return Key{}, false
}

// all lists the keys with the files of secrets.
func (p Program) all() []Key {
	var all []Key
	for _, k := range p.Keys {
		all = append(all, k)
		if k.Secret {
			all = append(all, k.file())
		}
	}
	return all
}

// Read finds the values of the program's settings in its arguments, without the
// program's own name, in its environment, as os.Environ has it, and in the YAML
// file that these name. The error names all mistakes, one in each line.
func Read(p Program, args, environ []string) (*Values, error) {
	r := &reader{program: p}
	flags, asked := r.flags(args)
	if asked.Question != Nothing {
		return &Values{Asked: asked, program: p}, errors.Join(r.mistakes...)
	}
	variables := r.environment(environ)
	named, is := flags[configKey]
	if !is {
		named = variables[configKey]
	}
	var file map[string]finding
	if named.given() {
		file = r.file(named)
	}
	v := r.lay(file, variables, flags)
	if len(r.mistakes) > 0 {
		return nil, errors.Join(r.mistakes...)
	}
	return v, nil
}

// reader collects what is wrong.
type reader struct {
	program  Program
	mistakes []error
	refused  []string // keys of values that cannot be used
}

// finding is a value and the place where it was given.
type finding struct {
	place string // "--lanes", "LINKER_LANES", "linker.yaml:3: lanes"
	value any    // as the kind says: string, bool, int64, time.Duration, []string
}

func (f finding) given() bool {
	if list, is := f.value.([]string); is {
		return len(list) > 0
	}
	return f.value != nil && f.value != ""
}

func (r *reader) wrong(format string, args ...any) {
	r.mistakes = append(r.mistakes, fmt.Errorf(format, args...))
}

// found reads a value that was given as text. It says what is wrong with it, and
// quotes no secret.
func (r *reader) found(k Key, place, text string) (finding, bool) {
	value, ok := k.parse(text)
	if !ok {
		r.refuse(k, place, strconv.Quote(withoutUser(text)))
	}
	return finding{place: place, value: value}, ok
}

// refuse says what is wrong with a value, which it quotes if it is no secret.
func (r *reader) refuse(k Key, place, value string) {
	r.refused = append(r.refused, k.Name)
	if k.Secret {
		value = "a value that does not fit"
	}
	r.wrong("%s: %.200s, expected %s", place, value, k.expects())
}

// lay lays the sources above each other, the weakest first, and checks what
// concerns more than one value.
func (r *reader) lay(file, variables, flags map[string]finding) *Values {
	layers := viper.New()
	for _, k := range r.program.Keys {
		if value, ok := k.parse(k.Default); ok && k.Default != "" {
			layers.SetDefault(k.Name, value)
		}
	}
	found := map[string]finding{}
	for _, source := range []map[string]finding{file, variables} {
		maps.Copy(found, source)
		_ = layers.MergeConfigMap(values(source)) // always nil
	}
	maps.Copy(found, flags)
	for name, value := range values(flags) {
		layers.Set(name, value)
	}
	for _, k := range r.program.Keys {
		if !k.Secret || !found[k.file().Name].given() {
			continue
		}
		if secret, ok := r.secret(k, found[k.Name], found[k.file().Name]); ok {
			found[k.Name] = secret
			layers.Set(k.Name, secret.value)
		}
	}
	for _, k := range r.program.Keys {
		is := found[k.Name].given() || slices.Contains(r.refused, k.Name)
		if k.Required && !is {
			r.wrong("%s is missing: set --%s or %s", k.Name, k.Name, k.Environment())
		}
		for _, other := range k.with {
			if is && !found[other].given() && !slices.Contains(r.refused, other) {
				r.wrong("%s needs %s as well", found[k.Name].place, other)
			}
		}
	}
	return &Values{program: r.program, layers: layers}
}

func values(source map[string]finding) map[string]any {
	m := map[string]any{}
	for name, f := range source {
		m[name] = f.value
	}
	return m
}

const (
	maxSecret = 64 << 10
	maxFile   = 1 << 20
)

// secret reads a secret from the file that was named for it.
func (r *reader) secret(k Key, direct, named finding) (finding, bool) {
	path, _ := named.value.(string)
	text, err := readAtMost(path, maxSecret)
	secret := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	switch {
	case direct.given():
		err = fmt.Errorf("%s is given too, expected one of both", direct.place)
	case err != nil:
	case secret == "":
		err = fmt.Errorf("%s is empty", path)
	default:
		return r.found(k, named.place, secret)
	}
	r.refused = append(r.refused, k.Name)
	r.wrong("%s: %w", named.place, err)
	return finding{}, false
}

func readAtMost(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(text)) > most {
		return nil, fmt.Errorf("%s has more than %d bytes", path, most)
	}
	return text, err
}
