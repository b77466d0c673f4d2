# How services installs: packages of Debian, and what it says about it. Sourced, not run.
# shellcheck shell=bash disable=SC2154 # what common.sh sets

# logged WHAT COMMAND...: says WHAT and runs COMMAND, its output in install.log; ends the script if it fails.
logged() {
	local what=$1 began=$SECONDS from
	shift
	from=$(($(wc -l 2>/dev/null <"$logs/install.log") + 1))
	if ! "$@" </dev/null >>"$logs/install.log" 2>&1; then
		tail -n "+$from" "$logs/install.log" | tail -n 20 >&2
		die "could not $what; all of its output is in $logs/install.log"
	fi
	echo "$what: done in $((SECONDS - began)) s"
}

# program NAME: prints the path of a program on PATH or of ours.
program() {
	command -v "$1" || { [ -x "$dir/bin/$1" ] && echo "$dir/bin/$1"; }
}

# apt_update, once in a run.
apt_update() {
	[ -z "${updated:-}" ] || return 0
	command -v apt-get >/dev/null || die "there is no apt-get: these scripts install on Debian; elsewhere put redis-server, nats-server, mongod, java and mvn on PATH"
	need_root "installing packages"
	logged "update the list of packages" "${as_root[@]}" apt-get -qq -o Acquire::Retries=3 update
	updated=yes
}

# apt_install PACKAGE...
apt_install() {
	[ $# -gt 0 ] || return 0
	apt_update
	logged "install $*" "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
		apt-get -qq -y -o Acquire::Retries=3 install --no-install-recommends "$@"
}

# unpack PACKAGE FILE: takes one program out of a package, without the service that the package is.
unpack() {
	local new=$dir/unpack.new
	apt_update
	rm -rf "$new"
	mkdir -p "$new" "$dir/bin"
	# shellcheck disable=SC2016
	logged "unpack $1" sh -c 'cd "$0" && apt-get -qq -o Acquire::Retries=3 download "$1" && dpkg-deb -x ./*.deb .' "$new" "$1"
	mv "$new/$2" "$dir/bin/"
	rm -rf "$new"
}

# debian_mirror prints where the apt of this machine has Debian from.
debian_mirror() {
	local mirror
	apt_update >&2
	# shellcheck disable=SC2016
	mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head -n 1)
	[ -n "$mirror" ] || die "apt's sources name no mirror of Debian to install PostgreSQL from: add one, or put mongod and mongosh on PATH"
	echo "$mirror"
}
