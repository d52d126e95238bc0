#!/usr/bin/env bash
# Builds the appliance's images with crosskit itself.
#
#   appliance/make-image.sh [STAGE]     daemon (usual), rootless or binfmt
#
#   PLATFORMS  whose machines the image is for, such as linux/amd64,linux/arm64; usual is this machine's alone
#   PROGRAM    the program for this machine, which builds the image too; usual is target/release/crosskit
#   PROGRAMS   a folder with programs for machines of other platforms, such as linux_arm64/crosskit; one that is not there
#              is compiled by appliance/cross-compile.sh
#   EMULATORS  a folder with QEMU's emulators for machines of other platforms, such as linux_arm64/qemu-x86_64
#   BASE       an image to stand on, such as debian:stable-slim; usual are Debian roots made from this machine's own packages
#   OUTPUT     where the image goes, as buildctl's --output has it; usual is an archive in target/appliance: for docker load,
#              or for several platforms an OCI layout
#   PLACE      the folder for what is needed meanwhile; usual is target/appliance
#
# tests/parts.sh makes roots and emulators that are not given.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
stage=${1:-daemon}
place=$(mkdir -p "${PLACE:-target/appliance}" && cd "${PLACE:-target/appliance}" && pwd)
parts=${CROSSKIT_TEST_PARTS:-$PWD/target/parts}

die() { echo "make-image: $*" >&2; exit 1; }

case $(uname -m) in
  x86_64) native=linux/amd64 ;;
  aarch64) native=linux/arm64 ;;
  loongarch64) native=linux/loong64 ;;
  *) native=linux/$(uname -m) ;;
esac
IFS=, read -ra platforms <<< "${PLATFORMS:-$native}"
architecture_of() { local rest=${1#*/}; echo "${rest%%/*}"; }

# The bytes of an ELF program that say whose instructions it has (e_machine).
machine_of() {
  case $(architecture_of "$1") in
    amd64) echo '3e 00' ;;
    arm64) echo 'b7 00' ;;
    riscv64) echo 'f3 00' ;;
    loong64) echo '02 01' ;;
    ppc64le) echo '15 00' ;;
    s390x) echo '00 16' ;;
    *) die "$1 is no platform that the image can be for: linux/amd64, arm64, riscv64, loong64, ppc64le and s390x are" ;;
  esac
}
check_machine() { # program platform
  local found
  found=$(od -An -t x1 -j 18 -N 2 "$1" | sed 's/^ *//')
  [ "$found" = "$(machine_of "$2")" ] || die "$1 is no program for $2"
}

# What is lacking of roots and emulators is made in one go.
wanted=()
for platform in "${platforms[@]}"; do
  machine_of "$platform" > /dev/null
  if [ "$platform" != "$native" ] && { [ -z "${BASE:-}" ] || [ ! -d "${EMULATORS:-/nowhere}/${platform//\//_}" ]; }; then
    wanted+=("$(architecture_of "$platform")")
  fi
done
[ ${#wanted[@]} = 0 ] || tests/parts.sh image "${wanted[@]}"

list=$(IFS=,; echo "${platforms[*]}")
arguments=(--local context=. --local dockerfile=. --opt target="$stage" --opt platform="$list")
mkdir -p "$place/links" "$place/base"
ln -sf "$(readlink -f "${PROGRAM:-target/release/crosskit}")" "$place/links/buildkitd"
ln -sf "$(readlink -f "${PROGRAM:-target/release/crosskit}")" "$place/links/buildctl"

for platform in "${platforms[@]}"; do
  name=${platform//\//_} architecture=$(architecture_of "$platform")
  binaries=$place/binaries/$name given=${PROGRAMS:-}/$name/crosskit
  mkdir -p "$binaries"
  if [ -n "${PROGRAMS:-}" ] && [ -f "$given" ]; then
    install -m 755 "$given" "$binaries/crosskit"
  elif [ "$platform" = "$native" ]; then
    strip -o "$binaries/crosskit" "${PROGRAM:-target/release/crosskit}"
  else
    install -m 755 "$(appliance/cross-compile.sh "$platform")" "$binaries/crosskit"
  fi
  check_machine "$binaries/crosskit" "$platform"
  emulators=${EMULATORS:-}/$name
  if [ -z "${EMULATORS:-}" ] || [ ! -d "$emulators" ]; then
    emulators=$parts/foreign/$architecture/qemu
    [ "$platform" != "$native" ] || emulators=$parts/qemu
  fi
  for emulator in "$emulators"/qemu-*; do check_machine "$emulator" "$platform"; done
  arguments+=(--local "binaries-$name=$binaries" --opt "context:binaries::$platform=local:binaries-$name")
  arguments+=(--local "emulators-$name=$emulators" --opt "context:emulators::$platform=local:emulators-$name")
  if [ -z "${BASE:-}" ]; then
    root=$parts/foreign/$architecture/root.tar
    [ "$platform" != "$native" ] || root=$parts/appliance/root.tar
    ln -f "$root" "$place/base/$architecture.tar" 2> /dev/null || cp "$root" "$place/base/$architecture.tar"
  fi
done

build() {
  # Steps for other machines are emulated by what is there, or else by what the tests have.
  PATH=$PATH:$parts/qemu BUILDKITD=$place/links/buildkitd BUILDCTL=$place/links/buildctl \
    BUILDKITD_FLAGS="--root $place/state" appliance/buildctl-daemonless.sh build --frontend dockerfile.v0 "$@"
}

if [ -n "${BASE:-}" ]; then
  arguments+=(--opt build-arg:BASE="$BASE")
else
  # shellcheck disable=SC2016 # the variable is the Dockerfile's
  printf 'FROM scratch\nARG TARGETARCH\nADD $TARGETARCH.tar /\n' > "$place/base/Dockerfile"
  build --local context="$place/base" --local dockerfile="$place/base" --opt platform="$list" --metadata-file "$place/base.json" \
    --output type=oci,tar=false,compression=uncompressed,dest="$place/layout"
  digest=$(sed -n 's/.*"containerimage.digest": "\([^"]*\)".*/\1/p' "$place/base.json")
  arguments+=(--oci-layout base="$place/layout" --opt "context:debian:stable-slim=oci-layout://base@$digest")
fi
kind=docker
[ ${#platforms[@]} = 1 ] || kind=oci
output=${OUTPUT:-type=$kind,name=crosskit:$stage,dest=$place/$stage.tar}
build "${arguments[@]}" --output "$output"
echo "made for $list: $output"
