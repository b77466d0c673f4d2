// Package whereabouts tells people which users are connected to a domain, and where.
package whereabouts

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/linkerhq/linker/pkg/presence"
)

const (
	standardLimit = 50
	mostUsers     = 500
	deadline      = 3 * time.Second // of one look at the registry
)

// Registry is where connectors note who is connected to them.
type Registry interface {
	// Users returns at most limit users, and how many there are.
	Users(ctx context.Context, limit int) (users []presence.Place, total int, err error)
}

// answer is the body of what is served.
type answer struct {
	Domain string `json:"domain"`
	Total  int    `json:"total"` // of a big crowd it is the sessions that are counted, not the users
	Users  []user `json:"users"`
}

type user struct {
	UserID     string   `json:"userId"`
	Connectors []string `json:"connectors"`
}

// Handler answers GET with the users of the domain as JSON, at most ?limit=N of them,
// by default 50. It asks the registry each time; while that is away it answers 503.
// Who may ask is for the caller to decide.
func Handler(domain string, registry Registry, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "GET only", http.StatusMethodNotAllowed)
			return
		}
		limit, err := limitOf(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), deadline)
		defer cancel()
		places, total, err := registry.Users(ctx, limit)
		if err != nil {
			log.Debug("whereabouts of users not read", "error", err)
			http.Error(w, "the registry of users does not answer", http.StatusServiceUnavailable)
			return
		}
		body, err := json.Marshal(answer{Domain: domain, Total: total, Users: list(places)})
		if err != nil { // strings and numbers always can be encoded
			http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_, _ = w.Write(append(body, '\n')) // an error means that whoever asked has gone
	})
}

func limitOf(r *http.Request) (int, error) {
	query := r.URL.Query()
	if !query.Has("limit") {
		return standardLimit, nil
	}
	text := query.Get("limit")
	limit, err := strconv.Atoi(text)
	if err != nil || limit < 1 || limit > mostUsers {
		return 0, fmt.Errorf("limit %.40q: expected a whole number from 1 to %d", text, mostUsers)
	}
	return limit, nil
}

func list(places []presence.Place) []user {
	users := make([]user, len(places))
	for i, p := range places {
		users[i] = user{UserID: string(p.User), Connectors: make([]string, len(p.Connectors))}
		for j, c := range p.Connectors {
			users[i].Connectors[j] = c.Name
		}
	}
	return users
}
