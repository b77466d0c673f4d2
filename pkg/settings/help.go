package settings

import (
	"fmt"
	"io"
	"strings"
)

const (
	helpWidth  = 80
	helpIndent = "      "
)

// WriteHelp writes what the program is and what can be set.
func (p Program) WriteHelp(w io.Writer) {
	fmt.Fprintf(w, "%s\n\n", wrap(p.Name+": "+p.About, 0))
	fmt.Fprintf(w, "Example:\n  %s\n\n", p.Example)
	fmt.Fprint(w, `Each setting is a flag, a variable of the environment, or a line KEY: VALUE of the
YAML file, where KEY is the flag without its dashes. The flag counts first, then
the variable, then the file. Lists are separated by commas, or are lists in YAML.
`)
	group := ""
	for _, k := range p.all() {
		if k.Group != group {
			group = k.Group
			fmt.Fprintf(w, "\n%s\n", group)
		}
		k.writeHelp(w)
	}
	fmt.Fprint(w, `
In place of running
  --help
      prints this
  --version
      prints the version
  --probe URL
      gets the URL: exit code 0 if it answers 200 within 3 seconds, 1 if not

Exit codes
  0   it was told to end, by SIGTERM or Ctrl-C, and has ended in good order
  1   settings are wrong, or something failed for good; standard error says what
A second signal ends it at once.
`)
}

func (k Key) writeHelp(w io.Writer) {
	head := "  --" + k.Name
	if k.Value != "" {
		head += " " + k.Value
	}
	fmt.Fprintf(w, "%-38s %s\n", head, k.Environment())
	meaning := k.Meaning
	switch {
	case k.Required && k.Secret:
		meaning += " (required; secret)"
	case k.Required:
		meaning += " (required)"
	case k.Secret:
		meaning += " (secret)"
	case k.Default != "":
		meaning += " (default " + k.Default + ")"
	case k.Stands != "":
		meaning += " (default: " + k.Stands + ")"
	}
	fmt.Fprintln(w, wrap(meaning, len(helpIndent)))
}

// wrap breaks text into lines, each behind so many spaces.
func wrap(text string, indent int) string {
	var out strings.Builder
	column := 0
	for word := range strings.FieldsSeq(text) {
		switch {
		case column == 0:
			column = indent
			out.WriteString(strings.Repeat(" ", indent))
		case column+1+len(word) > helpWidth:
			out.WriteString("\n" + strings.Repeat(" ", indent))
			column = indent
		default:
			out.WriteByte(' ')
			column++
		}
		out.WriteString(word)
		column += len(word)
	}
	return out.String()
}
