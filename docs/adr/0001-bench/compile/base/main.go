// Command base is what the others are compared with: the standard library's
// packages that every service of Linker contains.
package main

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"
)

func main() { fmt.Println(slog.LevelInfo, http.MethodGet, tls.VersionTLS13) }
