#!/bin/sh
# Builds the library for C, and installs it with its header and its pkg-config file:
#   crates/direct-c/install.sh [PREFIX [PROFILE]]
# PREFIX is /usr/local unless given, PROFILE cargo's release. $DESTDIR is put before all paths, for packages. Afterwards: ldconfig.
set -eu
prefix=${1:-/usr/local} profile=${2:-release}
here=$(cd "$(dirname "$0")" && pwd)
cd "$here"
cargo build --quiet --profile "$profile" --package lodefs-direct-c
about=$(cargo metadata --format-version 1 --no-deps)
target=$(printf '%s' "$about" | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
version=$(cargo pkgid | sed 's/.*[#@]//')
case $profile in dev) built=$target/debug ;; *) built=$target/$profile ;; esac
root=${DESTDIR:-}$prefix
mkdir -p "$root/lib/pkgconfig" "$root/include"
install -m 644 "$built/liblodefs_direct.so" "$root/lib/liblodefs_direct.so.$version"
ln -sf "liblodefs_direct.so.$version" "$root/lib/liblodefs_direct.so.0"
ln -sf liblodefs_direct.so.0 "$root/lib/liblodefs_direct.so"
install -m 644 "$built/liblodefs_direct.a" "$root/lib/"
install -m 644 include/lodefs_direct.h "$root/include/"
sed "s|@PREFIX@|$prefix|; s|@VERSION@|$version|" lodefs_direct.pc.in >"$root/lib/pkgconfig/lodefs_direct.pc"
