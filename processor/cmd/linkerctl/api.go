package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	answerLimit = 64 << 20 // of an answer, in bytes
	requestTime = 60 * time.Second
)

// api is the HTTP port of a processor.
type api struct {
	base   *url.URL
	token  string // empty: none is shown
	client *http.Client
}

func newAPI(base, token string) (*api, error) {
	u, err := checkURL(base)
	if err != nil {
		return nil, err
	}
	return &api{base: u, token: token, client: &http.Client{
		Timeout: requestTime,
		// The token is for the processor that was named, and for nobody it names.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// do makes a request and reads the JSON of its answer. Whatever is not a success is an
// error with the processor's own words.
func (a *api) do(ctx context.Context, method, path string, query url.Values, answer any) error {
	target := a.base.JoinPath(path)
	target.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, method, target.String(), nil)
	if err != nil {
		return err
	}
	if a.token != "" {
		req.Header.Set("Authorization", "Bearer "+a.token)
	}
	res, err := a.client.Do(req)
	if err != nil {
		var failed *url.Error
		if errors.As(err, &failed) {
			err = failed.Err
		}
		return fmt.Errorf("the processor at %s cannot be asked: %w", a.base.Host, err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, answerLimit))
	if err != nil {
		return fmt.Errorf("read the answer of the processor at %s: %w", a.base.Host, err)
	}
	switch {
	case res.StatusCode == http.StatusUnauthorized:
		return fmt.Errorf("the processor at %s wants a token: ask on its own machine, or show its http-token with --token-file or %s", a.base.Host, tokenVariable)
	case res.StatusCode == http.StatusOK:
	default:
		return fmt.Errorf("the processor at %s answers %d: %s", a.base.Host, res.StatusCode, words(body))
	}
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(answer); err != nil {
		return fmt.Errorf("the answer of the processor at %s is not what was expected: %w", a.base.Host, err)
	}
	return nil
}

// words is what an answer that is an error says, in one line.
func words(body []byte) string {
	const most = 400
	text := strings.Join(strings.Fields(string(body)), " ")
	if text == "" {
		return "nothing more is said"
	}
	if len(text) > most {
		text = text[:most] + "…"
	}
	return text
}

// print writes a value as JSON, for machines.
func (c *ctl) print(value any) error {
	encoder := json.NewEncoder(c.stdout)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}
