#!/bin/sh
# Installs the programs of others that the tests compare with, where it may (root or sudo on Debian and Ubuntu).
# Elsewhere it names what is missing: those tests are skipped visibly, or fail under CI=true.
# Arguments are further programs that are wanted, each named like its package.
set -eu

missing=""
need() { # need PACKAGE PATH-OR-COMMAND…: any of them shows that the package is there
	package=$1
	shift
	for found in "$@"; do
		if [ -e "$found" ] || command -v "$found" >/dev/null 2>&1; then return; fi
	done
	missing="$missing $package"
}
check() {
	missing=""
	need dcmtk storescu
	need libgdcm-tools gdcmscu
	need orthanc Orthanc /usr/sbin/Orthanc
	need orthanc-dicomweb /usr/share/orthanc/plugins/libOrthancDicomWeb.so
	need chromium chromium chromium-browser
	need unzip unzip
	need socat socat
	for wanted in "$@"; do need "$wanted" "$wanted"; done
}

check "$@"
[ -n "$missing" ] || exit 0

as_root=""
[ "$(id -u)" = 0 ] || as_root="sudo -n"
if command -v apt-get >/dev/null 2>&1 && { [ -z "$as_root" ] || $as_root true 2>/dev/null; }; then
	echo "installing the peers of the tests:$missing"
	had_orthanc=$(command -v Orthanc || true)
	log=$(mktemp)
	export DEBIAN_FRONTEND=noninteractive
	if { $as_root apt-get update -q && $as_root apt-get install -q -y --no-install-recommends $missing; } >"$log" 2>&1; then
		# The package starts a server of its own, which nobody here wants.
		if [ -z "$had_orthanc" ] && [ -d /run/systemd/system ]; then
			$as_root systemctl disable --now orthanc >/dev/null 2>&1 || true
		fi
	else
		tail -n 5 "$log"
	fi
	rm -f "$log"
fi

check "$@"
[ -n "$missing" ] || exit 0
echo "missing peers:$missing. Their tests can't run; with Debian or Ubuntu: sudo apt-get install$missing"
if [ "${CI:-}" = true ]; then exit 1; fi
