#!/bin/bash
# Prints, for a base and for each library on top of it, the time of a cold build
# and the size of the program: without cgo, with cgo, and with the race detector.
cd "$(dirname "$0")" || exit 1
export GOWORK=off
for mode in "0" "1" "1 -race"; do
	read -r cgo flags <<<"$mode"
	for lib in base bbolt pebble sqlite; do
		cache=$(mktemp -d)
		echo "== $lib, CGO_ENABLED=$cgo $flags"
		# shellcheck disable=SC2086
		(time CGO_ENABLED=$cgo GOCACHE=$cache go build $flags -o "$cache/program" "./compile/$lib") 2>&1
		ls -l "$cache/program" | awk '{print $5, "bytes"}'
		rm -rf "$cache"
	done
done
