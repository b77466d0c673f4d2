//go:build race

package e2e

// buildFlags make the programs look for data races as the tests do.
func buildFlags() []string { return []string{"-race"} }
