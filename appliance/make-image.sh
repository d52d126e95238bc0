#!/usr/bin/env bash
# Builds the appliance's images with crosskit itself, from the program that was built here, for this machine's platform.
#
#   appliance/make-image.sh [STAGE]     daemon (usual), rootless or binfmt
#
#   PROGRAM   the program; usual is target/release/crosskit
#   BASE      an image to stand on, such as debian:stable-slim; usual is a Debian root made from this machine's own packages
#   OUTPUT    where the image goes, as buildctl's --output has it; usual is an archive in target/appliance for docker load
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
stage=${1:-daemon}
place=target/appliance
parts=${CROSSKIT_TEST_PARTS:-target/parts}
output=${OUTPUT:-type=docker,name=crosskit:$stage,dest=$place/$stage.tar}

mkdir -p "$place/binaries" "$place/programs"
strip -o "$place/binaries/crosskit" "${PROGRAM:-target/release/crosskit}"
for name in buildkitd buildctl; do ln -sf "$PWD/$place/binaries/crosskit" "$place/programs/$name"; done
build() {
  BUILDKITD=$PWD/$place/programs/buildkitd BUILDCTL=$PWD/$place/programs/buildctl \
    BUILDKITD_FLAGS="--root $PWD/$place/state" appliance/buildctl-daemonless.sh build --frontend dockerfile.v0 "$@"
}

arguments=(--local context=. --local dockerfile=. --opt target="$stage" --output "$output")
arguments+=(--local binaries="$place/binaries" --opt context:binaries=local:binaries)
arguments+=(--local emulators="$parts/qemu" --opt context:emulators=local:emulators)
if [ -n "${BASE:-}" ]; then
  arguments+=(--opt build-arg:BASE="$BASE")
else
  mkdir -p "$place/base"
  printf 'FROM scratch\nADD base.tar /\n' > "$place/base/Dockerfile"
  ln -f "$parts/appliance/root.tar" "$place/base/base.tar" 2> /dev/null || cp "$parts/appliance/root.tar" "$place/base/base.tar"
  build --local context="$place/base" --local dockerfile="$place/base" --metadata-file "$place/base.json" \
    --output type=oci,tar=false,dest="$place/layout"
  digest=$(sed -n 's/.*"containerimage.digest": "\([^"]*\)".*/\1/p' "$place/base.json")
  arguments+=(--oci-layout base="$place/layout" --opt "context:debian:stable-slim=oci-layout://base@$digest")
fi
build "${arguments[@]}"
echo "made: $output"
