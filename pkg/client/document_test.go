package client_test

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/linkerhq/linker/pkg/client"
)

// lines returns the lines of a text without their indents.
func lines(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

func TestTheDocumentShowsTheExamplesAndNamesAllFields(t *testing.T) {
	t.Parallel()
	document, err := os.ReadFile("../../docs/client.md")
	if err != nil {
		t.Fatal(err)
	}
	examples, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllSubmatch(document, -1)
	if len(blocks) < 3 {
		t.Errorf("there are %d pieces of code", len(blocks))
	}
	for _, block := range blocks {
		if !strings.Contains(lines(string(examples)), lines(string(block[1]))) {
			t.Errorf("this is not in example_test.go:\n%s", block[1])
		}
	}
	for field := range reflect.TypeFor[client.Config]().Fields() {
		if !strings.Contains(string(document), "`"+field.Name+"`") {
			t.Errorf("the document does not name the field %s", field.Name)
		}
	}
}
