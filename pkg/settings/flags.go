package settings

import (
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// Question is what an operator asks of a program in place of running it.
type Question int

// The questions.
const (
	Nothing Question = iota
	Help             // what can be set
	Version          // what it is
	Probe            // does that URL answer?
)

// Asked is a question and what belongs to it.
type Asked struct {
	Question Question
	URL      string // of Probe
}

const (
	helpFlag    = "help"
	versionFlag = "version"
	probeFlag   = "probe"
	configKey   = "config"
)

// given is the text of a flag. It takes everything: what it must be is checked
// with the values of the other sources.
type given struct {
	text string
	kind string
}

func (g *given) String() string { return g.text }

// Set implements pflag.Value.
func (g *given) Set(text string) error {
	g.text = text
	return nil
}

// Type implements pflag.Value.
func (g *given) Type() string { return g.kind }

// flags reads the command line.
func (r *reader) flags(args []string) (map[string]finding, Asked) {
	set, unknown := r.parseFlags(args)
	found := map[string]finding{}
	asked := Asked{}
	set.Visit(func(f *pflag.Flag) {
		text := f.Value.String()
		switch f.Name {
		case helpFlag:
			asked.Question = Help
		case versionFlag:
			if asked.Question != Help {
				asked.Question = Version
			}
		case probeFlag:
			if asked.Question == Nothing {
				asked = Asked{Question: Probe, URL: text}
			}
		default:
			k, _ := r.program.find(f.Name)
			if value, ok := r.found(k, "--"+f.Name, text); ok {
				found[f.Name] = value
			}
		}
	})
	if set.NArg() > 0 && !unknown {
		// It may be a secret, so it is not quoted.
		r.wrong("argument %d belongs to no flag, expected --KEY VALUE or --KEY=VALUE", slices.Index(args, set.Arg(0))+1)
	}
	return found, asked
}

// parseFlags goes on behind each flag that there is not, so that all of them are
// named.
func (r *reader) parseFlags(args []string) (set *pflag.FlagSet, unknown bool) {
	args = slices.Clone(args)
	for {
		set = r.flagSet()
		err := set.Parse(args)
		missing, is := errors.AsType[*pflag.NotExistError](err)
		if !is {
			r.syntax(err)
			return set, unknown
		}
		unknown = true
		left := len(args)
		name := missing.GetSpecifiedName()
		if group := missing.GetSpecifiedShortnames(); group != "" {
			r.wrong("there is no flag -%s: flags begin with two dashes, --help lists them", name)
			args = slices.DeleteFunc(args, func(arg string) bool {
				return !strings.HasPrefix(arg, "--") && strings.HasPrefix(arg, "-") && strings.HasSuffix(arg, group)
			})
		} else {
			r.wrong("there is no flag --%.60s%s", name, r.hintOf(name, func(k Key) string { return "--" + k.Name }))
			args = slices.DeleteFunc(args, func(arg string) bool { return arg == "--"+name || strings.HasPrefix(arg, "--"+name+"=") })
		}
		if len(args) == left {
			return set, unknown
		}
	}
}

// syntax says what is wrong with the form of the command line.
func (r *reader) syntax(err error) {
	if err == nil {
		return
	}
	if lacking, is := errors.AsType[*pflag.ValueRequiredError](err); is {
		r.refused = append(r.refused, lacking.GetSpecifiedName())
		r.wrong("--%s: nothing given, expected a value", lacking.GetSpecifiedName())
		return
	}
	r.wrong("the command line cannot be read, --help shows its form")
}

func (r *reader) flagSet() *pflag.FlagSet {
	set := pflag.NewFlagSet(r.program.Name, pflag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.SortFlags = false
	set.BoolP(helpFlag, "h", false, "")
	set.Bool(versionFlag, false, "")
	set.String(probeFlag, "", "")
	for _, k := range r.program.all() {
		f := set.VarPF(&given{kind: k.Value}, k.Name, "", "")
		if k.Kind == Switch {
			f.NoOptDefVal = "true"
		}
	}
	return set
}
