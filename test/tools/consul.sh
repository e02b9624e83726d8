#!/bin/sh
# test/tools/consul.sh DIR: puts a real Consul binary at DIR/consul and prints that path. Debian 12 has no Consul
# package; Debian 11 has 1.8.7, which runs on 12. It is unpacked, not installed: no service starts. The mirror is
# the one the machine already uses.
set -eu
folder=${1:?usage: consul.sh DIR}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
if [ -x "$folder/consul" ]; then echo "$folder/consul"; exit 0; fi
if found=$(command -v consul); then ln -sf "$found" "$folder/consul"; echo "$folder/consul"; exit 0; fi
command -v apt-get >/dev/null || { echo "consul.sh: no consul on PATH and no apt-get to fetch one; install Consul 1.8 or newer" >&2; exit 1; }

mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
  awk '$1 == "URIs:" && $2 ~ /\/debian\/?$/ { print $2; exit } $1 == "deb" { for (i = 2; i <= NF; i++) if ($i ~ /\/debian\/?$/) { print $i; exit } }')
[ -n "$mirror" ] || { echo "consul.sh: found no Debian mirror in this machine's apt sources" >&2; exit 1; }

apt=$folder/apt
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/empty"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror bullseye main" > "$apt/sources.list"
run() {
  "$@" -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts="$apt/empty" -o Dir::State::lists="$apt/lists" \
    -o Dir::Cache="$apt/cache" -o APT::Sandbox::User=root -qq >&2
}
run apt-get update
# apt-get's -o must come after the sub-command's own words, and download writes to the current folder.
(cd "$apt" && apt-get download consul -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts="$apt/empty" \
  -o Dir::State::lists="$apt/lists" -o Dir::Cache="$apt/cache" -o APT::Sandbox::User=root -qq >&2)
dpkg -x "$apt"/consul_*.deb "$apt/root"
mv "$apt/root/usr/bin/consul" "$folder/consul"
rm -rf "$apt"
echo "$folder/consul"
