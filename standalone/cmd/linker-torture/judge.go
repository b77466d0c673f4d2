package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/linkerhq/linker/standalone/internal/torture/verdict"
)

// judge checks a history and prints what it says: a table for people, or JSON.
func judge(file string, asJSON bool, out io.Writer) error {
	report, err := verdict.Check(file)
	if err != nil {
		return err
	}
	if asJSON {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(report)
	} else {
		err = report.WriteTable(out)
	}
	switch {
	case err != nil:
		return err
	case report.OK():
		return nil
	case len(report.Broken) == 0:
		return fmt.Errorf("%s: the run did not come to its end", file)
	default:
		return errViolated
	}
}
