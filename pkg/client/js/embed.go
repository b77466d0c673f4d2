// Package js holds the client for browsers and Node, an npm package of its own, for
// those who serve it to browsers: linker.js, and linker-browser.js with what only
// browsers can do.
package js

import (
	"embed"
	"io/fs"
)

//go:embed linker.js linker-browser.js
var files embed.FS

// Files returns the modules that browsers import.
func Files() fs.FS { return files }
