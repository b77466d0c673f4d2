# What services and domain share: settings, processes with their pid files, ports. Sourced, not run.
# shellcheck shell=bash disable=SC2154,SC2034 # here is set by the script, the rest is used there

PATH=$PATH:/usr/sbin:/sbin
self=${0##*/}

die() {
	printf '%s: %s\n' "$self" "$*" >&2
	exit 1
}

# In front of a command that only root may run.
as_root=()
if [ "$(id -u)" != 0 ]; then
	as_root=(sudo)
fi

checkout=$(cd "$here/../.." && pwd -P)
[ -n "${LINKER_NATIVE_DIR:-}${HOME:-}" ] || die "set LINKER_NATIVE_DIR or HOME: they say where everything is kept"
dir=$(realpath -m -- "${LINKER_NATIVE_DIR:-$HOME/.linker-native}")
case $dir/ in
"$checkout"/*) die "LINKER_NATIVE_DIR is $dir, inside the checkout: name a directory outside of it" ;;
*[[:space:]]*) die "LINKER_NATIVE_DIR is '$dir': choose a name without spaces" ;;
esac
run=$dir/run   # a file for each process: its pid, and when it began
logs=$dir/logs # what the processes print, and install.log

offset=${LINKER_NATIVE_PORT_OFFSET:-0}

# port VARIABLE DEFAULT: the value of the variable, or DEFAULT plus the offset.
port() {
	local value=${1:+${!1:-}}
	if [ -z "$value" ]; then
		[[ $offset =~ ^[0-9]{1,5}$ ]] || die "LINKER_NATIVE_PORT_OFFSET is '$offset': give a number that is added to every port"
		value=$(($2 + 10#$offset))
	fi
	if ! [[ $value =~ ^[0-9]{1,5}$ ]] || ((10#$value < 1 || 10#$value > 65535)); then
		die "${1:-a port} would be $value: ports go from 1 to 65535"
	fi
	echo "$value"
}

# Only one of these scripts at a time changes what runs in a directory.
lock() {
	mkdir -p "$run" "$logs" || die "cannot write to $dir: set LINKER_NATIVE_DIR"
	exec 9>"$dir/lock"
	flock -n 9 && return
	echo "waiting for another $self or its like in $dir" >&2
	flock 9
}

# state NAME: prints running, paused or stopped.
state() {
	local pid began stat
	if { read -r pid began <"$run/$1" && read -r stat <"/proc/$pid/stat"; } 2>/dev/null; then
		read -r -a stat <<<"${stat##*) }" # from the third field on: the state; the 22nd is the time it began
		if [ "${stat[19]}" = "$began" ]; then
			case ${stat[0]} in
			T | t) echo paused && return ;;
			Z | X) ;; # ended, and nobody has asked how
			*) echo running && return ;;
			esac
		fi
	fi
	echo stopped
}

# pid NAME: the pid in its file, be it alive or not.
pid() {
	local pid
	read -r pid _ <"$run/$1"
	echo "$pid"
}

# spawn NAME COMMAND...: starts COMMAND in a session of its own, its output appended to NAME.log.
spawn() {
	spawned "$1" "${detach[@]}" "$run/$1" "${@:2}"
}

# spawn_as_root NAME COMMAND...
spawn_as_root() {
	spawned "$1" "${as_root[@]}" "${detach[@]}" "$run/$1" "${@:2}"
}

# What writes the pid file given first and becomes the command that follows; exec keeps the pid, and
# with it the time it began.
# shellcheck disable=SC2016
detach=(setsid --fork bash -c 'echo "$$ $(cut -d " " -f 22 "/proc/$$/stat")" >"$0.new" && mv "$0.new" "$0" && exec "$@"')

spawned() {
	rm -f "$run/$1" || die "cannot remove $run/$1"
	if ! "${@:2}" </dev/null >>"$logs/$1.log" 2>&1 9>&- || ! within 10 test -e "$run/$1"; then
		die "cannot start $1: $(tail -n 1 "$logs/$1.log")"
	fi
}

# within SECONDS COMMAND...: repeats COMMAND until it succeeds, at most for so long.
within() {
	local end=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		((SECONDS <= end)) || return 1
		sleep 0.05
	done
}

# await NAME SECONDS COMMAND...: waits until COMMAND succeeds; ends the script if NAME ends before.
await() {
	local name=$1 end=$((SECONDS + $2))
	shift 2
	until "$@" >/dev/null 2>&1; do
		[ "$(state "$name")" != stopped ] || die "$name ended while it started; the end of $logs/$name.log:"$'\n'"$(tail -n 10 "$logs/$name.log")"
		((SECONDS <= end)) || die "$name runs but is not ready; the end of $logs/$name.log:"$'\n'"$(tail -n 10 "$logs/$name.log")"
		sleep 0.05
	done
}

listening() {
	(exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# need_port PORT [VARIABLE]: ends the script if something listens there already.
need_port() {
	! listening "$1" || die "port $1 is taken by another program: stop that, or choose another port by ${2:+$2 or }LINKER_NATIVE_PORT_OFFSET"
}

# ended NAME
ended() { [ "$(state "$1")" = stopped ]; }

# send SIGNAL NAME: to a process that may belong to another user.
send() {
	kill -s "$1" "$(pid "$2")" 2>/dev/null || ended "$2" || "${as_root[@]}" kill -s "$1" "$(pid "$2")" || ended "$2"
}

# terminate NAME SIGNAL SECONDS: asks it to end, and after so long makes it.
terminate() {
	send "$2" "$1"
	send CONT "$1" # a paused process does not hear the other signal
	finish "$1" "$3"
}

# finish NAME SECONDS: waits for its end, and after so long makes it.
finish() {
	within "$2" ended "$1" && return
	echo "$1 did not end within $2 s and is killed"
	send KILL "$1"
	within 10 ended "$1" || die "$1 cannot be killed"
}

# need_root WHAT
need_root() {
	[ "$(id -u)" = 0 ] || command -v sudo >/dev/null || die "$1 needs root: run $self as root, or install sudo"
}
