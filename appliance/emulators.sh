#!/bin/sh
# Gathers static emulators of QEMU in a folder: those that are there, or Debian's.
set -eu
into=$1
mkdir -p "$into"
gather() { for file in /usr/bin/qemu-*; do
  case $file in *-static) name=${file%-static} ;; *) name=$file ;; esac
  case ${name##*/qemu-} in
    aarch64|arm|i386|x86_64|riscv64|loongarch64|ppc64|ppc64le|s390x|mips64|mips64el) cp -L "$file" "$into/${name##*/}" ;;
  esac
done; }
gather
[ -n "$(ls "$into")" ] || { apt-get update && { apt-get install -y --no-install-recommends qemu-user-static || apt-get install -y --no-install-recommends qemu-user; } && gather; }
