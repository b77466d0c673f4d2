// Command sqlite is base and one library.
package main

import (
	"crypto/tls"
	"database/sql"
	"fmt"
	"log/slog"
	"net/http"

	_ "modernc.org/sqlite"
)

func main() {
	fmt.Println(slog.LevelInfo, http.MethodGet, tls.VersionTLS13)
	fmt.Println(sql.Open("sqlite", ""))
}
