package metaserver

import (
	"strconv"
	"strings"
)

// DefaultFile returns the description of a network of one domain with three client
// apps, which a fresh start writes for its operator to edit. The domain's urls
// name the ports of its links and its websockets.
func DefaultFile(linkPort, websocketPort int) []byte {
	ports := strings.NewReplacer("9089", strconv.Itoa(linkPort), "8088", strconv.Itoa(websocketPort))
	return []byte(ports.Replace(defaultFile))
}

const defaultFile = `# The network: its domains, the links between them, the client apps, and which
# user is at home where. Saving this file takes effect within 2 seconds. A file
# with a mistake is refused, every mistake is logged with its line, and the last
# good version stays in force; GET /status of the meta server shows both. Keys and
# entries that are not needed at first stand here behind a # without a space.

# Domains: one group of connectors and processors each.
domains:
  - name: domain-01             # lower-case letters, digits and dashes
    urls:
      - tcp://127.0.0.1:9089    # where neighbouring domains dial
      - ws://127.0.0.1:8088     # where clients connect; wss:// with a certificate

# Links join two domains, both ways:
#domainLinks:
#  - n1: domain-01
#    n2: domain-02
#    cost: 1                    # optional: messages take the cheapest way; 1 if absent
#    key: a-long-random-text    # optional: the secret that both ends prove to know
#    insecure: false            # optional: true, in place of a key, asks for no proof

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
# covers is at home in the domain that it connects to:
#userDistributions:
#  - {domainName: domain-01, from: 0, to: 999999}
#  - {domainName: domain-02, from: 1000000}
`
