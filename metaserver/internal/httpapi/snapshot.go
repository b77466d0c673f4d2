package httpapi

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"hash/fnv"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linkerhq/linker/pkg/topology"
)

// MaxWait is the longest that a request for the snapshot is kept waiting for the
// next version.
const MaxWait = 30 * time.Second

// snapshots answers services with the whole snapshot, secrets included.
type snapshots struct {
	source  Source
	token   token
	waiting prometheus.Gauge
}

// ServeHTTP answers at once if the version differs from that of If-None-Match,
// else as soon as it does; with 304 if it has not by the end of ?wait.
func (s *snapshots) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.token.shownBy(r) {
		w.Header().Set("WWW-Authenticate", "Bearer")
		write(w, http.StatusUnauthorized, problem{Error: "the snapshot needs the bearer token of the services"})
		return
	}
	wait, err := waitOf(r)
	if err != nil {
		badParameter(w, "wait", r.URL.Query().Get("wait"), "a duration from 0s to "+MaxWait.String()+", such as 25s")
		return
	}
	snapshot, tag, changed := s.next(r.Context(), r.Header.Get("If-None-Match"), wait)
	w.Header().Set("ETag", tag)
	if !changed {
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusNotModified)
		return
	}
	write(w, http.StatusOK, snapshot)
}

// next returns the snapshot in force with its tag, and whether it is none of those that
// the client has. It waits for such a one.
func (s *snapshots) next(ctx context.Context, has string, wait time.Duration) (snapshot *topology.Snapshot, tag string, changed bool) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	s.waiting.Inc()
	defer s.waiting.Dec()
	for {
		state, replaced := s.source.Current()
		tag = etagOf(state.Snapshot)
		if !matches(has, tag) {
			return state.Snapshot, tag, true
		}
		select {
		case <-replaced:
		case <-ctx.Done():
			return state.Snapshot, tag, false
		}
	}
}

func waitOf(r *http.Request) (time.Duration, error) {
	asked := r.URL.Query().Get("wait")
	if asked == "" {
		return 0, nil
	}
	wait, err := time.ParseDuration(asked)
	if err != nil || wait < 0 || wait > MaxWait {
		return 0, strconv.ErrRange
	}
	return wait, nil
}

// etagOf is the version and a print of what it says: a file may have been replaced, while
// the server was down, by another one that was written at the same time.
func etagOf(s *topology.Snapshot) string {
	hash := fnv.New64a()
	_ = json.NewEncoder(hash).Encode(s) // what was decoded can be encoded, and a hash takes everything
	return `"` + strconv.FormatUint(s.Version, 10) + "-" + strconv.FormatUint(hash.Sum64(), 36) + `"`
}

// matches says whether the list of an If-None-Match header has the tag.
func matches(header, tag string) bool {
	for candidate := range strings.SplitSeq(header, ",") {
		candidate = strings.TrimPrefix(strings.TrimSpace(candidate), "W/")
		if candidate == tag || candidate == "*" {
			return true
		}
	}
	return false
}

// token is the hash of the secret, so that comparing takes the same time for
// everything that a client may show.
type token [sha256.Size]byte

func newToken(secret string) token { return sha256.Sum256([]byte(secret)) }

func (t token) shownBy(r *http.Request) bool {
	scheme, shown, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	sum := sha256.Sum256([]byte(strings.TrimSpace(shown)))
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(sum[:], t[:]) == 1
}
