package run

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

const (
	probeTimeout = 3 * time.Second
	maxReason    = 512 // bytes of an answer that are repeated
)

// Probe gets a URL and returns nil if it answers 200 within 3 seconds. Containers
// check so how the program beside them is: there is no shell in their images.
func Probe(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return errors.New("probe: the URL is not valid") // err may quote a password
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode == http.StatusOK {
		return nil
	}
	// The reason is worth having, and no more than that.
	reason, _ := io.ReadAll(io.LimitReader(res.Body, maxReason))
	return fmt.Errorf("probe %s: %s: %s", req.URL.Redacted(), res.Status, strings.TrimSpace(string(reason)))
}
