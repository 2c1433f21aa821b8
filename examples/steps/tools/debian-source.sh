#!/bin/sh
# Copyright (c) The nomad-driver-unikernel authors
# SPDX-License-Identifier: MPL-2.0
#
# debian-source.sh PACKAGE DIR
#
# Unpacks a Debian source package to DIR, from the archives that this machine
# already uses. apt gets a configuration of its own for it: the machine's entries
# for its own release, as deb-src. Nothing of the machine's is changed, and no
# root is needed.
set -eu

package=$1
mkdir -p "$(dirname "$2")"
dir=$(cd "$(dirname "$2")" && pwd)/$(basename "$2")

work=$dir.fetch
rm -rf "$work"
mkdir -p "$work/parts" "$work/lists/partial" "$work/cache/archives/partial"
trap 'rm -rf "$work"' EXIT

codename=$(. /etc/os-release && echo "$VERSION_CODENAME")

# Entries of other vendors name other suites, and need not have sources.
for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
	[ -f "$file" ] || continue
	sed -nE "s/^deb(-src)?[[:space:]]+((\[[^]]*\][[:space:]]+)?[^[:space:]]+[[:space:]]+$codename(-updates|-security|\/updates)?[[:space:]].*)/deb-src \2/p" \
		"$file" >>"$work/parts/machine.list"
done
# In deb822 files an entry is a paragraph.
for file in /etc/apt/sources.list.d/*.sources; do
	[ -f "$file" ] || continue
	awk -v codename="$codename" 'BEGIN { RS = ""; ORS = "\n\n" }
		$0 ~ "(^|\n)Suites:[^\n]*[ \t]" codename "([ \t\n-]|$)" && $0 !~ "(^|\n)Enabled:[ \t]*no" {
			sub(/(^|\n)Types:[^\n]*/, "\nTypes: deb-src")
			sub(/^\n/, "")
			print
		}' "$file" >>"$work/parts/machine.sources"
done

run_apt_get() {
	apt-get -qq \
		-o Dir::Etc::sourcelist=/dev/null \
		-o Dir::Etc::sourceparts="$work/parts" \
		-o Dir::State::lists="$work/lists" \
		-o Dir::Cache="$work/cache" \
		-o APT::Sandbox::User="$(id -un)" \
		"$@"
}

run_apt_get update
cd "$work"
run_apt_get source "$package" >/dev/null

for unpacked in "$work/$package"-*/; do
	rm -rf "$dir"
	mv "$unpacked" "$dir"
	exit 0
done
echo "debian-source.sh: the source package $package unpacked to no folder of its name" >&2
exit 1
