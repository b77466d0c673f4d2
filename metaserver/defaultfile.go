package metaserver

import (
	"fmt"
	"strconv"
	"strings"
)

// Ports are where a domain of a written file is reached on this machine.
type Ports struct{ Link, Websocket int }

// DefaultFile returns the description of a network of one domain with three client
// apps, which a fresh start writes for its operator to edit. The domain's urls
// name the ports of its links and its websockets.
func DefaultFile(linkPort, websocketPort int) []byte {
	return RingFile([]Ports{{Link: linkPort, Websocket: websocketPort}})
}

// RingFile returns the same for any number of domains, domain-01, domain-02 and so
// on, each linked to the next and the last to the first. Of several domains each
// is home to a range of numbers, the last to all that are left.
func RingFile(domains []Ports) []byte {
	return []byte(strings.NewReplacer(
		"DOMAINS\n", describeDomains(domains), "LINKS\n", describeLinks(len(domains)), "RANGES\n", describeRanges(len(domains)),
	).Replace(defaultFile))
}

// ringDomain is the name of the n-th domain.
func ringDomain(n int) string { return fmt.Sprintf("domain-%02d", n) }

func describeDomains(domains []Ports) string {
	var b strings.Builder
	for i, d := range domains {
		lines := []struct{ text, comment string }{
			{"  - name: " + ringDomain(i+1), "lower-case letters, digits and dashes"},
			{"    urls:", ""},
			{"      - tcp://127.0.0.1:" + strconv.Itoa(d.Link), "where neighbouring domains dial"},
			{"      - ws://127.0.0.1:" + strconv.Itoa(d.Websocket), "where clients connect; wss:// with a certificate"},
		}
		for _, l := range lines {
			if i > 0 || l.comment == "" {
				b.WriteString(l.text + "\n") // once is enough to say what it is
				continue
			}
			fmt.Fprintf(&b, "%-32s# %s\n", l.text, l.comment)
		}
	}
	return b.String()
}

func describeLinks(domains int) string {
	if domains == 1 {
		return `#domainLinks:
#  - n1: domain-01
#    n2: domain-02
#    cost: 1                    # optional: messages take the cheapest way; 1 if absent
#    key: a-long-random-text    # optional: the secret that both ends prove to know
#    insecure: false            # optional: true, in place of a key, asks for no proof
`
	}
	var b strings.Builder
	b.WriteString("domainLinks:\n")
	for n := 1; n <= domains; n++ {
		next := n%domains + 1
		if next < n && domains == 2 {
			break // there is that link already
		}
		fmt.Fprintf(&b, "  - n1: %s\n    n2: %s\n", ringDomain(n), ringDomain(next))
		if n == 1 {
			b.WriteString(`    #cost: 1                    # optional: messages take the cheapest way; 1 if absent
    #key: a-long-random-text    # optional: the secret that both ends prove to know
    #insecure: false            # optional: true, in place of a key, asks for no proof
`)
		}
	}
	return b.String()
}

func describeRanges(domains int) string {
	if domains == 1 {
		return `# covers is at home in the domain that it connects to:
#userDistributions:
#  - {domainName: domain-01, from: 0, to: 999999}
#  - {domainName: domain-02, from: 1000000}
`
	}
	var b strings.Builder
	b.WriteString("# covers is at home in the domain that it connects to.\nuserDistributions:\n")
	for n, from := 1, 0; n <= domains; n++ {
		if n == domains {
			fmt.Fprintf(&b, "  - {domainName: %s, from: %d}\n", ringDomain(n), from)
			break
		}
		next := from + rangeOf(n, domains)
		fmt.Fprintf(&b, "  - {domainName: %s, from: %d, to: %d}\n", ringDomain(n), from, next-1)
		from = next
	}
	return b.String()
}

// rangeOf is how many numbers are at home in the n-th domain: a million each. Of
// four domains the second has two and the third three: the documented example.
func rangeOf(n, domains int) int {
	const million = 1_000_000
	if domains == 4 {
		return n * million
	}
	return million
}

const defaultFile = `# The network: its domains, the links between them, the client apps, and which
# user is at home where. Saving this file takes effect within 2 seconds. A file
# with a mistake is refused, every mistake is logged with its line, and the last
# good version stays in force; GET /status of the meta server shows both. Keys and
# entries that are not needed at first stand here behind a # without a space.

# Domains: one group of connectors and processors each.
domains:
DOMAINS

# Links join two domains, both ways:
LINKS

# Client apps: the ids of an app's users are <appName>-<number>.
clientApps:
  - appName: ANZ                # letters, digits and underscores
    appId: app-id-343           # what clients show when they log in
    masterUserId: ANZ-123223    # hears who comes and goes, may close connections
    authEnabled: false          # true: authUrl is asked about every login
    #authUrl: http://localhost:4200/auth
    #masterDelivery: all        # optional: one sends each message to one socket of the master
    #allowedApps: [BNZ]         # optional: apps that users may write to, if those list ANZ too
    #userDistributions:         # optional: in place of the list at the end of this file
    #  - {domainName: domain-01, from: 0, to: 999999}

  - appName: BNZ
    appId: bnz-344
    masterUserId: BNZ-453432
    authEnabled: false

  - appName: CNZ
    appId: cnz-34324
    masterUserId: CNZ-213424
    authEnabled: false

# Which numbers are at home in which domain. Both ends are included, from is 0 and
# to is without limit if absent, and the first match wins. A user that no line
RANGES
`
