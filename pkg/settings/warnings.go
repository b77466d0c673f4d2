package settings

import (
	"net"
	"net/url"
	"strings"
)

// minToken is how long a token must be that nobody guesses.
const minToken = 16

// Warnings says in words which settings let others read or guess a secret.
func (v *Values) Warnings() []string {
	var warnings []string
	warn := func(is bool, text string) {
		if is {
			warnings = append(warnings, text)
		}
	}
	text := func(name string) string {
		if k, known := v.program.find(name); !known || k.Kind != Text {
			return ""
		}
		return v.Text(name)
	}
	for _, name := range []string{"token", "meta-token"} {
		token := text(name)
		warn(token != "" && len(token) < minToken, name+" is short: take at least 16 random characters")
	}
	if _, is := v.program.find("tls-cert"); is {
		warn(text("tls-cert") == "" && !isHere(text("listen")),
			"clients connect without TLS: set tls-cert and tls-key, or put a proxy with a certificate in front")
	}
	if text("meta-token") != "" {
		warn(inTheClear(text("meta-url"), "http"), "meta-token is sent in the clear: see that nobody listens on the way to meta-url")
	}
	if text("kafka-password") != "" {
		encrypted := v.Switch("kafka-tls") || text("kafka-tls-ca")+text("kafka-tls-cert")+text("kafka-tls-key") != ""
		warn(!encrypted && text("kafka-sasl") == "plain", "kafka-password is sent in the clear: set kafka-tls, or a scram mechanism")
	}
	withUser := func(name string) bool { return strings.Contains(text(name), "@") }
	warn(withUser("nats-url") && inTheClear(text("nats-url"), "nats") && text("nats-tls-ca") == "", "the password of nats-url is sent in the clear: use tls://")
	warn(withUser("redis-url") && inTheClear(text("redis-url"), "redis"), "the password of redis-url is sent in the clear: use rediss://")
	return warnings
}

// inTheClear says whether one of some URLs has the scheme and leads to another
// machine.
func inTheClear(urls, scheme string) bool {
	for one := range strings.SplitSeq(urls, ",") {
		u, err := url.Parse(strings.TrimSpace(one))
		if err == nil && u.Scheme == scheme && !isHere(u.Host) {
			return true
		}
	}
	return false
}

// isHere says whether an address is one of this machine only.
func isHere(address string) bool {
	host := address
	if h, _, err := net.SplitHostPort(address); err == nil {
		host = h
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
