#!/bin/bash
# Prints, for each library and a base, the time of a cold build and the size of the program.
cd "$(dirname "$0")" || exit 1
export GOWORK=off
for cgo in 0 1; do
	for lib in base bbolt pebble sqlite; do
		cache=$(mktemp -d)
		echo "== $lib, CGO_ENABLED=$cgo"
		(time CGO_ENABLED=$cgo GOCACHE=$cache go build -o "$cache/program" "./compile/$lib") 2>&1
		ls -l "$cache/program" | awk '{print $5, "bytes"}'
		rm -rf "$cache"
	done
done
