# The nats-server of PATH, or that of Debian.
# shellcheck shell=bash disable=SC2154 # what common.sh sets

nats_port=$(port LINKER_NATIVE_NATS_PORT 4222) || exit

nats_processes() { echo nats; }
nats_installed() { nats_program >/dev/null; }
nats_program() { program nats-server; }

nats_install() {
	nats_installed || unpack nats-server usr/sbin/nats-server
}

nats_start() {
	need_port "$nats_port" LINKER_NATIVE_NATS_PORT
	printf 'listen: "127.0.0.1:%s"\nmax_payload: 8388608\n' "$nats_port" >"$dir/nats.conf"
	spawn nats "$(nats_program)" --config "$dir/nats.conf"
	await nats 10 listening "$nats_port"
}

nats_env() { echo "export NATS_URL='nats://127.0.0.1:$nats_port'"; }
