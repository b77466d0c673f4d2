#!/bin/sh
# Makes what domains prove themselves with on their links: an authority, and for each domain a key and a
# certificate that carries the domain's name. For domains that one machine runs together; where each has
# a machine of its own, no key has to leave it: see docs/network.md.
#
#   deploy/compose/certificates.sh DIRECTORY DOMAIN...
#
# DIRECTORY gets ca.key and ca.pem, and DIRECTORY/DOMAIN gets link.key, link.pem and ca.pem, which belong
# to the user OWNER (a number), if that is set. What is there and good for a month or more stays, so it
# may run before every start.
set -eu
umask 022

if [ $# -lt 2 ]; then
	echo "usage: $0 DIRECTORY DOMAIN..." >&2
	exit 2
fi
mkdir -p "$1"
cd "$1"
authority=$(pwd)
shift
month=2592000 # seconds

# What is half made lies in a directory of its own and counts for nothing.
trap 'rm -rf "$authority"/.new "$authority"/*/.new' EXIT
trap 'exit 1' HUP INT TERM

begin() {
	rm -rf "$1/.new"
	mkdir -m 700 "$1/.new"
	cd "$1/.new"
}

# run COMMAND...: what it says matters only if it fails.
run() {
	"$@" 2>log || {
		cat log >&2
		exit 1
	}
}

good() { [ -e "$1" ] && openssl x509 -in "$1" -noout -checkend $month >/dev/null; }

if ! good "$authority/ca.pem"; then
	begin "$authority"
	run openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=links" \
		-addext "keyUsage=critical,keyCertSign,cRLSign" -keyout ca.key -out ca.pem
	mv ca.key ca.pem ..
	echo "made the authority"
fi

for domain; do
	mkdir -p "$authority/$domain"
	certificate=$authority/$domain/link.pem
	if good "$certificate" && openssl verify -CAfile "$authority/ca.pem" "$certificate" >/dev/null 2>&1; then
		continue
	fi
	begin "$authority/$domain"
	cp "$authority/ca.pem" .
	run openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$domain" -keyout link.key -out link.csr
	printf '%s\n' "subjectAltName = DNS:$domain" 'extendedKeyUsage = serverAuth, clientAuth' >extensions
	run openssl x509 -req -in link.csr -CA ca.pem -CAkey "$authority/ca.key" -set_serial "0x$(openssl rand -hex 16)" \
		-days 3650 -extfile extensions -out link.pem
	[ -z "${OWNER:-}" ] || chown "$OWNER" ca.pem link.key link.pem
	mv ca.pem link.key link.pem .. # the certificate last: without it everything is made again
	echo "made a certificate of $domain"
done
