// Command bbolt is base and one library.
package main

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"

	"go.etcd.io/bbolt"
)

func main() {
	fmt.Println(slog.LevelInfo, http.MethodGet, tls.VersionTLS13)
	fmt.Println(bbolt.Open("", 0, nil))
}
