package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"github.com/linkerhq/linker/pkg/topology"
)

const (
	// maxFileSize is the largest file that is read.
	maxFileSize = 4 << 20
	// maxValues bounds the values that are read from one file. Aliases count each
	// time they are used, so that a few lines of them cannot grow without limit.
	maxValues = 500_000
)

// Parse reads the operators' YAML. The error is of type Mistakes and names them
// all; warnings are about a file that can be used.
func Parse(content []byte) (topology.Network, []Problem, error) {
	root, mistakes := parseYAML(content)
	if len(mistakes) > 0 {
		return topology.Network{}, nil, Mistakes(mistakes)
	}
	d := decoder{broken: make(map[string]bool)}
	network := d.network(root)
	mistakes, warnings := d.mistakes, d.warnings
	if d.values > maxValues {
		tooMany := Problem{Text: fmt.Sprintf("the file has more than %d values", maxValues)}
		return topology.Network{}, nil, Mistakes{tooMany}
	}
	if len(mistakes) > mostProblems {
		return topology.Network{}, nil, Mistakes(inOrder(mistakes)) // no room for more
	}
	for _, p := range network.Validate() {
		if d.isBroken(p.Path) {
			continue
		}
		found := Problem{Line: lineOf(root, p.Path), Text: p.Error()}
		if p.Warning {
			warnings = append(warnings, found)
		} else {
			mistakes = append(mistakes, found)
		}
	}
	if len(mistakes) > 0 {
		return topology.Network{}, nil, Mistakes(inOrder(mistakes))
	}
	return network, inOrder(warnings), nil
}

// parseYAML returns the one document of the file.
func parseYAML(content []byte) (*yaml.Node, []Problem) {
	if len(content) > maxFileSize {
		return nil, []Problem{{Text: fmt.Sprintf("the file has more than %d bytes", maxFileSize)}}
	}
	if line := lineOfInvalidUTF8(content); line > 0 {
		return nil, []Problem{{Line: line, Text: "is not UTF-8"}}
	}
	documents := yaml.NewDecoder(bytes.NewReader(content))
	var document yaml.Node
	err := documents.Decode(&document)
	if errors.Is(err, io.EOF) || err == nil && len(document.Content) == 0 {
		return nil, []Problem{{Line: 1, Text: "the file is empty"}}
	}
	if err != nil {
		return nil, []Problem{syntaxProblem(err)}
	}
	var second yaml.Node
	err = documents.Decode(&second)
	if err == nil {
		return nil, []Problem{{Line: second.Line, Text: "a second document begins here: only one is read"}}
	}
	if !errors.Is(err, io.EOF) {
		return nil, []Problem{syntaxProblem(err)}
	}
	return document.Content[0], nil
}

func lineOfInvalidUTF8(content []byte) int {
	for at := 0; at < len(content); {
		r, size := utf8.DecodeRune(content[at:])
		if r == utf8.RuneError && size == 1 {
			return 1 + bytes.Count(content[:at], []byte("\n"))
		}
		at += size
	}
	return 0
}

// syntaxProblem takes the line out of the parser's "yaml: line 3: …".
func syntaxProblem(err error) Problem {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		number, reason, _ := strings.Cut(rest, ": ")
		line, parseErr := strconv.Atoi(number)
		if parseErr == nil {
			return Problem{Line: line, Text: "is not YAML: " + reason}
		}
	}
	return Problem{Text: "is not YAML: " + text}
}
