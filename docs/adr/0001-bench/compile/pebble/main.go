// Command pebble is base and one library.
package main

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/cockroachdb/pebble/v2"
)

func main() {
	fmt.Println(slog.LevelInfo, http.MethodGet, tls.VersionTLS13)
	fmt.Println(pebble.Open("", nil))
}
