# The redis-server of PATH, or that of Debian. It keeps nothing on disk: what it holds may be lost.
# shellcheck shell=bash disable=SC2154 # what common.sh sets

redis_port=$(port LINKER_NATIVE_REDIS_PORT 6379) || exit

redis_processes() { echo redis; }
redis_installed() { redis_program >/dev/null; }
redis_program() { program redis-server; }

# Debian's redis-server is a link to a program of redis-tools and a service that starts by itself.
redis_install() {
	redis_installed && return
	command -v redis-check-rdb >/dev/null || apt_install redis-tools
	mkdir -p "$dir/bin"
	ln -sf "$(command -v redis-check-rdb)" "$dir/bin/redis-server"
}

redis_start() {
	need_port "$redis_port" LINKER_NATIVE_REDIS_PORT
	spawn redis "$(redis_program)" --bind 127.0.0.1 --port "$redis_port" --dir "$run" --appendonly no --save ''
	await redis 10 listening "$redis_port"
}

redis_env() { echo "export REDIS_URL='redis://127.0.0.1:$redis_port'"; }
