// Package ident holds the names of things: users, domains, connectors and the
// lanes that users fall into. A name is parsed once, at the edge; behind it the
// type says that it is well formed.
package ident

import (
	"fmt"
	"strconv"
	"strings"
)

// MaxUserIDLength is the longest accepted user id, in bytes: an app name of 32,
// a dash and a number of 18 digits.
const MaxUserIDLength = 32 + 1 + 18

// UserID is a well-formed user id, <appName>-<number>: the name selects the
// client app, the number selects the home domain. The zero value is no user.
type UserID string

// ParseUserID accepts exactly ^[A-Za-z][A-Za-z0-9_]{0,31}-(0|[1-9][0-9]{0,17})$.
func ParseUserID(s string) (UserID, error) {
	app, number, found := strings.Cut(s, "-")
	if !found || !isAppName(app) || !isCanonicalNumber(number) {
		return "", fmt.Errorf("user id %q is not <appName>-<number>", clip(s))
	}
	return UserID(s), nil
}

// App returns the app name in front of the dash.
func (u UserID) App() string {
	app, _, _ := strings.Cut(string(u), "-")
	return app
}

// Number returns the number behind the dash; at most 18 digits, so it fits.
func (u UserID) Number() int64 {
	_, number, _ := strings.Cut(string(u), "-")
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// Lane returns the lane of the user among lanes of them: FNV-1a-64 of the id
// modulo their number. Every part of the system that picks a lane uses it.
func (u UserID) Lane(lanes int) int {
	const offset, prime = 14695981039346656037, 1099511628211
	h := uint64(offset)
	for i := range len(u) {
		h = (h ^ uint64(u[i])) * prime
	}
	return int(h % uint64(lanes))
}

// SameApp says whether two users are of one app.
func (u UserID) SameApp(other UserID) bool {
	n := strings.IndexByte(string(u), '-') + 1
	return n > 0 && len(other) > n && u[:n] == other[:n]
}

// IsAppName says whether s can stand in front of the dash of a user id.
func IsAppName(s string) bool { return isAppName(s) }

// IsDomainName says whether s can name a domain: 1 to 63 lower-case letters,
// digits and dashes, beginning with a letter or digit. Such a name can stand in
// a Kafka topic, a NATS subject and a Redis key without quoting.
func IsDomainName(s string) bool { return isDNSLabel(s) }

// IsConnectorName says whether s can name a connector; the rule is that of
// domain names, for the same reason.
func IsConnectorName(s string) bool { return isDNSLabel(s) }

func isAppName(s string) bool {
	if len(s) < 1 || len(s) > 32 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		letter := c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
		digit := c >= '0' && c <= '9'
		if !letter && (i == 0 || !digit && c != '_') {
			return false
		}
	}
	return true
}

func isCanonicalNumber(s string) bool {
	if len(s) < 1 || len(s) > 18 || s[0] == '0' && len(s) > 1 {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

func isDNSLabel(s string) bool {
	if len(s) < 1 || len(s) > 63 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && (c != '-' || i == 0) {
			return false
		}
	}
	return true
}

// clip keeps a hostile string from filling an error message.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
