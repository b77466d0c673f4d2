# mongod where there is one on PATH, as a replica set of one node; otherwise FerretDB, which speaks its
# protocol, before PostgreSQL with DocumentDB. Those two packages are in Debian sid only, so PostgreSQL
# lives in a tree of Debian sid of its own.
# shellcheck shell=bash disable=SC2154 # what common.sh sets

ferretdb_version=v2.7.0
mongodb_port=$(port LINKER_NATIVE_MONGODB_PORT 27017) || exit
postgres_port=$(port LINKER_NATIVE_POSTGRES_PORT 27018) || exit
ferretdb=$dir/ferretdb-$ferretdb_version/ferretdb
sid=$dir/debian-sid

mongodb_kind=${LINKER_NATIVE_MONGODB:-}
case $mongodb_kind in
'') if command -v mongod >/dev/null; then mongodb_kind=mongod; else mongodb_kind=ferretdb; fi ;;
mongod | ferretdb) ;;
*) die "LINKER_NATIVE_MONGODB is '$mongodb_kind': say mongod or ferretdb" ;;
esac

# How a program runs in the tree of Debian sid: with /proc, /dev and the data in a mount namespace of
# its own, which ends with it. Nothing outside sees these mounts, so the tree may be removed at any time.
# shellcheck disable=SC2016
inside=(unshare --mount sh -c 'mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && mount --bind "$1" "$0/srv" && shift && exec chroot "$0" "$@"'
	"$sid" "$dir/data/mongodb" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8)
as_postgres=("${inside[@]}" setpriv --reuid=postgres --regid=postgres --init-groups)
postgres=/usr/lib/postgresql/18/bin

mongodb_processes() {
	if [ "$mongodb_kind" = mongod ]; then echo mongod; else echo postgres ferretdb; fi
}

mongodb_installed() {
	if [ "$mongodb_kind" = mongod ]; then
		command -v mongod >/dev/null && command -v mongosh >/dev/null
	else
		[ -x "$ferretdb" ] && [ -e "$sid/complete" ]
	fi
}

mongodb_install() {
	if [ "$mongodb_kind" = mongod ]; then
		command -v mongod >/dev/null || die "there is no mongod on PATH: install it, or set LINKER_NATIVE_MONGODB=ferretdb"
		command -v mongosh >/dev/null || die "mongod needs mongosh to become a replica set: install that, or set LINKER_NATIVE_MONGODB=ferretdb"
		return
	fi
	[ -x "$ferretdb" ] || ferretdb_install
	[ -e "$sid/complete" ] || postgres_install
}

ferretdb_install() {
	command -v go >/dev/null || die "FerretDB is built with Go, and there is no go on PATH"
	(cd "$dir" && logged "build FerretDB $ferretdb_version" env GOWORK=off GOFLAGS= CGO_ENABLED=0 GOBIN="$dir/ferretdb.new" \
		go install "github.com/FerretDB/FerretDB/v2/cmd/ferretdb@$ferretdb_version")
	mv -T "$dir/ferretdb.new" "${ferretdb%/*}"
}

postgres_install() {
	local mirror proxy='' more=()
	need_root "the tree of Debian sid"
	command -v debootstrap >/dev/null || apt_install debootstrap
	mirror=$(debian_mirror) || exit
	case $mirror in https:*) more+=(--include=ca-certificates) ;; esac
	eval "$(apt-config shell proxy Acquire::http::Proxy)"
	local environment=(env DEBIAN_FRONTEND=noninteractive ${proxy:+"http_proxy=$proxy"})
	mkdir -p "$dir/data/mongodb"
	"${as_root[@]}" rm -rf --one-file-system "$sid" # what an interrupted installation left
	logged "unpack Debian sid" "${as_root[@]}" "${environment[@]}" unshare --mount debootstrap --variant=minbase "${more[@]}" sid "$sid" "$mirror"
	# The packages start nothing and make no database.
	logged "install PostgreSQL with DocumentDB" "${as_root[@]}" "${inside[@]}" "${environment[@]}" sh -c '
		mkdir -p /etc/postgresql-common && echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf &&
		printf "#!/bin/sh\nexit 101\n" >/usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d &&
		apt-get -qq -o Acquire::Check-Valid-Until=false -o Acquire::Retries=3 update &&
		apt-get -qq -y -o Acquire::Retries=3 install --no-install-recommends postgresql-18 postgresql-18-documentdb &&
		apt-get clean && touch /complete'
}

mongod_start() {
	need_port "$mongodb_port" LINKER_NATIVE_MONGODB_PORT
	mkdir -p "$dir/data/mongod"
	spawn mongod mongod --replSet rs0 --bind_ip 127.0.0.1 --port "$mongodb_port" --dbpath "$dir/data/mongod"
	await mongod 60 mongod_ready
}

# mongod_ready says whether it is the primary of its set, and makes the set if there is none.
mongod_ready() {
	mongosh --quiet --norc "mongodb://127.0.0.1:$mongodb_port/?directConnection=true" --eval "
		try { rs.status() } catch (e) { rs.initiate({_id: 'rs0', members: [{_id: 0, host: '127.0.0.1:$mongodb_port'}]}) }
		if (!db.hello().isWritablePrimary) quit(1)"
}

postgres_start() {
	need_port "$postgres_port" LINKER_NATIVE_POSTGRES_PORT
	need_root PostgreSQL
	mkdir -p "$dir/data/mongodb"
	if ! "${as_root[@]}" test -e "$dir/data/mongodb/postgresql"; then
		logged "make the database of PostgreSQL" "${as_root[@]}" "${inside[@]}" sh -c \
			'rm -rf /srv/new && install -d -m 700 -o postgres -g postgres /srv/new &&
			setpriv --reuid=postgres --regid=postgres --init-groups '$postgres'/initdb -D /srv/new -U postgres -A trust -E UTF8 --locale=C.UTF-8 &&
			mv /srv/new /srv/postgresql'
	fi
	# What a killed one leaves behind for a moment keeps the next from starting.
	local end=$((SECONDS + 60))
	while ((SECONDS <= end)); do
		spawn_as_root postgres "${as_postgres[@]}" $postgres/postgres -D /srv/postgresql \
			-c listen_addresses=127.0.0.1 -c port="$postgres_port" -c unix_socket_directories= -c max_connections=200 \
			-c shared_preload_libraries=pg_cron,pg_documentdb_core,pg_documentdb \
			-c cron.database_name=postgres -c cron.log_statement=off -c cron.log_run=off -c log_min_messages=fatal
		within 30 postgres_ready_or_ended
		[ "$(state postgres)" = stopped ] || break
		sleep 0.2
	done
	await postgres 10 postgres_ready
}

postgres_ready_or_ended() { ended postgres || postgres_ready; }

postgres_ready() {
	"${as_root[@]}" "${as_postgres[@]}" psql -X -q -h 127.0.0.1 -p "$postgres_port" -d postgres -c 'CREATE EXTENSION IF NOT EXISTS documentdb CASCADE'
}

ferretdb_start() {
	need_port "$mongodb_port" LINKER_NATIVE_MONGODB_PORT
	mkdir -p "$dir/data/ferretdb"
	spawn ferretdb "$ferretdb" "${ferretdb_flags[@]}"
	await ferretdb 30 "$ferretdb" ping "${ferretdb_flags[@]}"
}

ferretdb_flags=("--postgresql-url=postgres://postgres@127.0.0.1:$postgres_port/postgres" "--listen-addr=127.0.0.1:$mongodb_port"
	--no-auth --telemetry=disable --debug-addr=- --state-dir="$dir/data/ferretdb" --log-level=ERROR)

mongodb_env() {
	if [ "$mongodb_kind" = mongod ]; then
		echo "export MONGODB_URI='mongodb://127.0.0.1:$mongodb_port/?replicaSet=rs0'"
	else
		echo "export MONGODB_URI='mongodb://127.0.0.1:$mongodb_port/'"
	fi
}
