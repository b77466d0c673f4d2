package settings

import (
	"cmp"
	"fmt"
	"math"
	"net"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/linkerhq/linker/pkg/ident"
)

// parse reads a value as it stands in a flag, a variable or a scalar of YAML. The
// empty text takes a Text away: its default is left, if it has one. It is an empty
// List.
func (k Key) parse(text string) (any, bool) {
	switch k.Kind {
	case Text:
		text = cmp.Or(text, k.Default)
		return text, text == "" || k.fits(text)
	case Switch:
		value, err := strconv.ParseBool(text)
		return value, err == nil
	case Number:
		value, err := strconv.ParseInt(text, 10, 64)
		return value, err == nil && value >= k.min && value <= k.most()
	case Duration:
		value, err := time.ParseDuration(text)
		return value, err == nil && int64(value) >= k.min
	case List:
		if text == "" {
			return []string{}, true
		}
		return k.parseList(strings.Split(text, ","))
	default:
		return nil, false
	}
}

func (k Key) parseList(entries []string) (any, bool) {
	list := make([]string, 0, len(entries))
	for _, entry := range entries {
		entry = strings.TrimSpace(entry)
		if entry == "" || !k.fits(entry) {
			return nil, false
		}
		list = append(list, entry)
	}
	return list, true
}

func (k Key) fits(text string) bool { return k.valid == nil || k.valid(text) }

func (k Key) most() int64 {
	if k.max == 0 {
		return math.MaxInt64
	}
	return k.max
}

// expects says in words what a value must be.
func (k Key) expects() string {
	switch k.Kind {
	case Text:
		if k.expected == "" {
			return "text"
		}
		return k.expected
	case Switch:
		return "true or false"
	case Number:
		if k.max == 0 {
			return fmt.Sprintf("a whole number of at least %d", k.min)
		}
		return fmt.Sprintf("a whole number from %d to %d", k.min, k.max)
	case Duration:
		if k.min == 0 {
			return "a duration such as 25s or 720h"
		}
		return fmt.Sprintf("a duration such as 25s or 720h, at least %s", time.Duration(k.min))
	case List:
		if k.expected == "" {
			return "a list"
		}
		return "a list of " + k.expected
	default:
		return "nothing"
	}
}

// oneOf accepts one of some words.
func (k Key) oneOf(words ...string) Key {
	k.valid = func(text string) bool { return slices.Contains(words, text) }
	last := len(words) - 1
	k.expected = strings.Join(words[:last], ", ") + " or " + words[last]
	return k
}

// named accepts names of domains and connectors.
func (k Key) named() Key {
	k.valid, k.expected = ident.IsDomainName, "lower-case letters, digits and dashes"
	return k
}

// address accepts HOST:PORT; with bind also :PORT, which is every interface.
func (k Key) address(bind bool) Key {
	k.expected = "HOST:PORT"
	if bind {
		k.expected = "HOST:PORT or :PORT"
	}
	k.valid = func(text string) bool {
		host, port, err := net.SplitHostPort(text)
		return err == nil && (bind || host != "") && isPort(port, bind) && !strings.ContainsAny(host, " /@")
	}
	return k
}

func isPort(text string, zero bool) bool {
	port, err := strconv.ParseUint(text, 10, 16)
	return err == nil && (zero || port > 0)
}

// url accepts an address with one of the schemes; several with commas if many.
func (k Key) url(expected string, many bool, schemes ...string) Key {
	k.expected = expected
	k.valid = func(text string) bool {
		parts := []string{text}
		if many {
			parts = strings.Split(text, ",")
		}
		return !slices.ContainsFunc(parts, func(part string) bool {
			if many {
				part = strings.TrimLeft(part, " ")
			}
			u, err := url.Parse(part)
			return err != nil || u.Hostname() == "" || u.Port() != "" && !isPort(u.Port(), false) || !slices.Contains(schemes, u.Scheme) || strings.ContainsAny(u.Host, " ")
		})
	}
	return k
}

// mailbox accepts where rows are kept. A host list of MongoDB is not a URL by the
// book, so the driver reads the rest.
func (k Key) mailbox() Key {
	k.expected = "mongodb://…, mongodb+srv://…, file:DIR or file:DIR?shared=true"
	k.valid = func(text string) bool {
		for _, scheme := range []string{"mongodb://", "mongodb+srv://", "file:"} {
			if rest, is := strings.CutPrefix(text, scheme); is {
				return rest != ""
			}
		}
		return false
	}
	return k
}

// origins accepts patterns of hosts.
func (k Key) origins() Key {
	k.expected = "HOST, HOST:PORT or patterns of them"
	k.valid = func(text string) bool {
		_, err := path.Match(text, "")
		return err == nil && !strings.Contains(text, "/")
	}
	return k
}

// pairs accepts DOMAIN=URL with one of two schemes.
func (k Key) pairs(plain, secure string) Key {
	k.expected = "DOMAIN=" + plain + "://… or DOMAIN=" + secure + "://…"
	k.valid = func(text string) bool {
		domain, endpoint, found := strings.Cut(text, "=")
		u, err := url.Parse(endpoint)
		return found && ident.IsDomainName(domain) && err == nil && u.Host != "" && (u.Scheme == plain || u.Scheme == secure)
	}
	return k
}

// token accepts what fits into a header of HTTP.
func (k Key) token() Key {
	k.expected = "printable characters without blanks"
	k.valid = func(text string) bool {
		return !strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' })
	}
	return k
}

// share accepts a part of a whole.
func (k Key) share() Key {
	k.expected = "a number from 0 to 1"
	k.valid = func(text string) bool {
		value, err := strconv.ParseFloat(text, 64)
		return err == nil && value >= 0 && value <= 1
	}
	return k
}

// within bounds a Number.
func (k Key) within(low, high int64) Key {
	k.min, k.max = low, high
	return k
}
