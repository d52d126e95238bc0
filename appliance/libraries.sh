#!/bin/sh
# Copies what a program is linked to, and what loads it, into a root of its own.
set -eu
program=$1 root=$2
# ldd's lines end in a path and an address; where the program is static there are none.
ldd "$program" | sed -n 's|^[^/]*\(/[^ ]*\) (0x.*|\1|p' | while read -r library; do
  mkdir -p "$root${library%/*}"
  cp -L "$library" "$root$library"
done
