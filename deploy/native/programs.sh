# What domain and network share: the programs of this checkout as processes, and what can be done with
# them. Sourced after common.sh, not run. A process has a NAME: metaserver, console, connector-1,
# processor-2, and in a network of several domains domain-02/connector-1.
# shellcheck shell=bash disable=SC2154 # what common.sh and the scripts set

# known: prints the processes that were started once, each in a line.
known() {
	local all
	all=$(cd "$run" 2>/dev/null && find . -maxdepth 2 -type f -printf '%P\n' |
		grep -xE '([a-z0-9-]+/)?(metaserver|console|(connector|processor)-[0-9]+)' | sort -V)
	grep -x metaserver <<<"$all"
	grep -E 'connector-|processor-' <<<"$all"
	grep -x console <<<"$all"
}

# kind NAME: its program.
kind() {
	local program=${1##*/}
	echo "${program%-*}"
}

# place NAME: the place of its domain among those of the network, from 1.
place() {
	case $1 in
	*/*) grep -nxF -- "${1%/*}" "$state/domains" | cut -d : -f 1 ;;
	*) echo 1 ;;
	esac
}

# listen_port NAME KEY: prints the port of the setting KEY of a process. Those of the n-th of a kind
# are 10 (n - 1) above those of the first, those of the n-th domain 100 (n - 1) above.
listen_port() {
	local number=1 first
	case ${1##*/} in *-*) number=${1##*-} ;; esac
	case $(kind "$1"):$2 in
	metaserver:listen) first=9000 ;;
	connector:listen) first=8088 ;;
	connector:link-listen) first=9089 ;;
	connector:http-listen) first=8080 ;;
	processor:http-listen) first=8081 ;;
	console:listen) first=4400 ;;
	esac
	port '' $((first + 10 * (number - 1) + 100 * ($(place "$1") - 1)))
}

# listen_keys NAME: the settings with a port; the last one has /readyz, but that of the console.
listen_keys() {
	case $(kind "$1") in
	connector) echo listen link-listen http-listen ;;
	processor) echo http-listen ;;
	*) echo listen ;;
	esac
}

# ask PORT PATH: the status of the answer, then its body in the same line.
ask() {
	local version status line body=
	{
		exec 3<>"/dev/tcp/127.0.0.1/$1" && printf 'GET %s HTTP/1.0\r\n\r\n' "$2" >&3 && read -t 3 -r version status _ <&3 || return
		while read -t 3 -r line <&3 && [ "$line" != $'\r' ]; do :; done
		while read -t 3 -r line <&3 || [ -n "$line" ]; do body+="$line "; done
	} 2>/dev/null
	exec 3>&-
	echo "${version:+$status} $body"
}

# answer NAME: the status of its readiness, and what it says.
answer() {
	local keys
	keys=$(listen_keys "$1")
	case $1 in
	console) ask "$(listen_port "$1" listen)" / ;;
	*) ask "$(listen_port "$1" "${keys##* }")" /readyz ;;
	esac
}

# ready NAME
ready() { [[ $(answer "$1") = 200\ * ]]; }

# of KIND NAME...: those of a kind, each in a line.
of() {
	local name
	for name in "${@:2}"; do
		[ "$(kind "$name")" != "$1" ] || echo "$name"
	done
}

# websocket_urls NAME...: where the connectors among them wait for clients.
websocket_urls() {
	local name
	for name in $(of connector "$@"); do echo "ws://127.0.0.1:$(listen_port "$name" listen)"; done
}

# processor_urls NAME...: where the console asks the processors among them.
processor_urls() {
	local name domain
	for name in $(of processor "$@"); do
		case $name in */*) domain=${name%/*} ;; *) domain=domain-01 ;; esac
		echo "$domain=http://127.0.0.1:$(listen_port "$name" http-listen)"
	done | paste -sd ,
}

# write_apps: the client apps of a network that a first start describes.
write_apps() {
	cat <<-'END'
		clientApps:
		  - {appName: ANZ, appId: app-id-343, masterUserId: ANZ-123223, authEnabled: false}
		  - {appName: BNZ, appId: bnz-344, masterUserId: BNZ-453432, authEnabled: false}
		  - {appName: CNZ, appId: cnz-34324, masterUserId: CNZ-213424, authEnabled: false}
	END
}

# prepare builds the programs, makes the token, and exports what all processes are told.
prepare() {
	mkdir -p "$state/bin" || die "cannot write to $state"
	command -v go >/dev/null || die "the programs are built with Go, and there is no go on PATH"
	(cd "$checkout" && go build -buildvcs=false -o "$state/bin/" \
		./connector/cmd/connector ./processor/cmd/processor ./metaserver/cmd/metaserver ./standalone/cmd/console) ||
		die "the programs do not build"
	[ -s "$state/token" ] || (umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$state/token") || die "cannot write $state/token"

	if [[ ! ${KAFKA_HOSTS:-} || ! ${NATS_URL:-} || ! ${REDIS_URL:-} || ! ${MONGODB_URI:-} ]]; then
		"$here/services" status >/dev/null || die "not all servers run: run deploy/native/services start, or set KAFKA_HOSTS, NATS_URL, REDIS_URL and MONGODB_URI"
	fi
	eval "$(servers)"
	export LINKER_KAFKA_HOSTS=$KAFKA_HOSTS LINKER_NATS_URL=$NATS_URL LINKER_REDIS_URL=$REDIS_URL \
		LINKER_MAILBOX_URL=$MONGODB_URI LINKER_META_URL LINKER_META_TOKEN_FILE=$state/token
	LINKER_META_URL=http://127.0.0.1:$(listen_port metaserver listen)
}

# servers prints settings of the servers, those of the environment before those of services.
servers() {
	"$here/services" env
	local name
	for name in KAFKA_HOSTS NATS_URL REDIS_URL MONGODB_URI; do
		[ -z "${!name:-}" ] || printf 'export %s=%q\n' "$name" "${!name}"
	done
}

started=() # by this script

# start_process NAME FLAG...: starts it on its ports, without waiting.
start_process() {
	local name=$1 key ports=()
	shift
	case $(state "$name") in
	paused) die "$name is paused: run deploy/native/$self resume $name" ;;
	running)
		echo "$name runs already"
		return
		;;
	esac
	for key in $(listen_keys "$name"); do
		need_port "$(listen_port "$name" "$key")"
		ports+=("--$key=127.0.0.1:$(listen_port "$name" "$key")")
	done
	case $name in */*) mkdir -p "$run/${name%/*}" "$logs/${name%/*}" ;; esac
	spawn "$name" "$state/bin/$(kind "$name")" "${ports[@]}" "$@"
	started+=("$name")
}

# start_console NAME...: starts the console, which asks the processors among these; one that asks others
# is started again.
start_console() {
	local urls
	urls=$(processor_urls "$@")
	if [ "$(state console)" = running ] && [ "$(cat "$state/asked" 2>/dev/null)" != "$urls" ]; then
		terminate console TERM 35
	fi
	echo "$urls" >"$state/asked"
	start_process console --processor-url="$urls"
}

# started_since SECONDS NAME...: waits until the processes are ready, and says which were started.
started_since() {
	local began=$1 name
	shift
	for name in "$@"; do await "$name" 60 ready "$name"; done
	[ ${#started[@]} -eq 0 ] || echo "${started[*]}: started and ready after $((SECONDS - began)) s"
}

# stop NAME...: all of them at the same time, for each may take a while.
stop() {
	local name stopping=()
	for name in "$@"; do
		ended "$name" && continue
		send TERM "$name"
		send CONT "$name" # a paused process does not hear the other signal
		stopping+=("$name")
	done
	for name in "${stopping[@]}"; do
		finish "$name" 35
		echo "$name stopped"
	done
}

# signal WHAT SIGNAL NAME...: all of them at the same time; WHAT says what became of them.
signal() {
	local what=$1 signal=$2 name reached=()
	shift 2
	for name in "$@"; do
		if ended "$name"; then
			echo "$name does not run"
			continue
		fi
		send "$signal" "$name"
		reached+=("$name")
	done
	for name in "${reached[@]}"; do
		[ "$signal" != KILL ] || within 10 ended "$name" || die "$name cannot be killed"
		echo "$name $what"
	done
}

# status NAME...: prints the state of each, and how it is reached; 1 unless all are ready.
status() {
	local name key now reply width=12 all=0
	[ $# -gt 0 ] || { echo "nothing was started" && return 1; }
	for name in "$@"; do ((${#name} <= width)) || width=${#name}; done
	for name in "$@"; do
		now=$(state "$name")
		if [ "$now" = running ]; then
			reply=$(answer "$name")
			case $reply in
			200\ *) now=ready ;;
			*) now="not ready: ${reply:-no answer}" ;;
			esac
		fi
		[ "$now" = ready ] || all=1
		printf "%-${width}s" "$name"
		for key in $(listen_keys "$name"); do printf ' %s 127.0.0.1:%s' "$key" "$(listen_port "$name" "$key")"; done
		[ "$now" = stopped ] || printf ' pid %s' "$(pid "$name")"
		printf ' %s\n' "$now"
	done
	return $all
}

# print_logs FLAG... -- NAME...: the last lines of each, by tail with these flags.
print_logs() {
	local flags=() files=() name
	while [ "$1" != -- ]; do flags+=("$1") && shift; done
	shift
	for name in "$@"; do [ ! -e "$logs/$name.log" ] || files+=("$logs/$name.log"); done
	[ ${#files[@]} -gt 0 ] || die "nothing was started"
	exec tail -n 20 "${flags[@]}" -- "${files[@]}"
}

# print_env NAME...: where the meta server is, and the connectors among these that run.
print_env() {
	local name running=()
	for name in "$@"; do ended "$name" || running+=("$name"); done
	printf "export META_URL='http://127.0.0.1:%s'\nexport WEBSOCKET_URLS='%s'\n" \
		"$(listen_port metaserver listen)" "$(websocket_urls "${running[@]}" | sed 's|$|/ws|' | paste -sd ,)"
}

# run_command COMMAND NAME...: does what changes nothing but these processes, or nothing at all.
run_command() {
	local command=$1 connectors others
	shift
	case $command in
	status)
		status "$@"
		return
		;;
	logs) print_logs "${follow[@]}" -- "$@" ;;
	env)
		print_env "$@"
		return
		;;
	esac
	lock
	case $command in
	stop) # connectors before what they need
		mapfile -t connectors < <(of connector "$@")
		mapfile -t others < <(of processor "$@" && of metaserver "$@" && of console "$@")
		stop "${connectors[@]}"
		stop "${others[@]}"
		;;
	kill) signal killed KILL "$@" ;;
	pause) signal paused STOP "$@" ;;
	resume) signal resumed CONT "$@" ;;
	esac
}
