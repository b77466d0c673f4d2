package catalog

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// mostProblems bounds what is kept of one file's mistakes, and of its warnings;
// the rest is counted.
const mostProblems = 200

// Problem is a mistake or a warning about the file. It never repeats a secret.
type Problem struct {
	Line int    `json:"line,omitempty"` // from 1; 0 if it is about no line
	Text string `json:"text"`
}

// String names the line, if there is one.
func (p Problem) String() string {
	if p.Line == 0 {
		return p.Text
	}
	return fmt.Sprintf("line %d: %s", p.Line, p.Text)
}

// Mistakes is the error of a file that is not valid: all its mistakes, in the
// order of their lines.
type Mistakes []Problem

// Error has one mistake a line.
func (m Mistakes) Error() string {
	lines := make([]string, len(m))
	for i, p := range m {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// inOrder sorts problems by line and keeps the first of too many.
func inOrder(problems []Problem) []Problem {
	slices.SortStableFunc(problems, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
	if len(problems) <= mostProblems {
		return problems
	}
	rest := len(problems) - mostProblems
	return append(slices.Clip(problems[:mostProblems]), Problem{Text: fmt.Sprintf("and %d more", rest)})
}
