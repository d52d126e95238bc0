#!/usr/bin/env bash
# Compiles crosskit for machines of another platform, and says on standard output where the program is.
#
#   appliance/cross-compile.sh linux/arm64
#
# Needs a C compiler for them, and Rust's standard library; says how to get what is not there, and changes nothing of this machine.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
die() { echo "cross-compile: $*" >&2; exit 1; }

case ${1:-} in
  linux/amd64) machine=x86_64 rust=x86_64 package=x86-64 ;;
  linux/arm64) machine=aarch64 rust=aarch64 package=aarch64 ;;
  linux/riscv64) machine=riscv64 rust=riscv64gc package=riscv64 ;;
  linux/loong64) machine=loongarch64 rust=loongarch64 package=loongarch64 ;;
  linux/ppc64le) machine=powerpc64le rust=powerpc64le package=powerpc64le ;;
  linux/s390x) machine=s390x rust=s390x package=s390x ;;
  *) die "${1:-no platform}: give linux/amd64, arm64, riscv64, loong64, ppc64le or s390x" ;;
esac
target=$rust-unknown-linux-gnu compiler=$machine-linux-gnu-gcc
cargo=${CARGO:-cargo}

command -v "$compiler" > /dev/null || die "there is no $compiler (Debian: apt-get install gcc-$package-linux-gnu)"
# The folder is named whether or not it is there.
[ -d "$(rustc --print target-libdir --target "$target" 2> /dev/null)" ] \
  || die "there is no standard library of Rust for $target (rustup target add $target; Debian's own Rust: libstd-rust-dev of that" \
    "architecture); or give the program in PROGRAMS"

name=${target//-/_}
export "CARGO_TARGET_${name^^}_LINKER=$compiler" "CC_$name=$compiler"
# By the linker: this machine's strip knows only its own programs.
CARGO_PROFILE_RELEASE_STRIP=symbols "$cargo" build --release -p crosskit --target "$target" >&2
echo "${CARGO_TARGET_DIR:-target}/$target/release/crosskit"
