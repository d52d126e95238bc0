#!/usr/bin/env bash
# Prepares the real programs that the demo, the tests and the benchmarks run with, by Debian package name.
#
#   tests/parts.sh          everything
#   tests/parts.sh build    only what compiling needs (a C compiler, make, git)
#   tests/parts.sh list     what there is and what is missing; changes nothing, fails if something is missing
#   tests/parts.sh image ARCHITECTURE ...
#                           what appliance/make-image.sh makes images for other machines of (arm64, riscv64, loong64 ...):
#                           foreign/ARCH/root.tar and foreign/ARCH/qemu/qemu-ARCH, whose programs are for that machine
#
# Small everyday programs are installed on the machine. The rest is unpacked, not installed, into the parts
# folder (target/parts, or $CROSSKIT_TEST_PARTS), because installing it would start a service or change what
# the machine runs:
#   moto/ (a server that speaks S3, from PyPI), azurite/ (one of Azure's blobs, from npm), bin/docker-registry, bin/docker-buildx, qemu/qemu-ARCH, qemu-others/qemu-ARCH, engine/ (Docker's), appliance/root.tar, busybox/ARCH/busybox (static, one per platform),
#   bin/kubernetes-validate with kubernetes/ (the schemas of Kubernetes' API and what reads them, from PyPI),
#   attestations/ (what judges in-toto, SLSA and SPDX, from PyPI)
# QEMU, buildx and the foreign busyboxes come from a newer suite ($CROSSKIT_TEST_SUITE) of the archive that this
# machine's own apt is set up with. Nothing there: no action, well under a second.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
parts=${CROSSKIT_TEST_PARTS:-$here/target/parts}
suite=${CROSSKIT_TEST_SUITE:-forky}
what=${1:-all}
foreign=("${@:2}")

# command:package, installed on the machine when the command is not on PATH
for_building=(cc:gcc make:make git:git ar:binutils)
for_running=(crun:crun runc:runc git:git pigz:pigz zstd:zstd gzip:gzip tar:tar flock:util-linux mount:mount
  openssl:openssl ip:iproute2 nsenter:util-linux dnsmasq:dnsmasq-base
  /usr/lib/cni/bridge:containernetworking-plugins iptables:iptables
  rootlesskit:rootlesskit newuidmap:uidmap fuse-overlayfs:fuse-overlayfs
  systemd-analyze:systemd systemd-socket-activate:systemd gpg:gnupg ssh-keygen:openssh-client mmdebstrap:mmdebstrap
  python3:python3 pip3:python3-pip /usr/bin/pip3:python3-pip node:nodejs npm:npm skopeo:skopeo)

# OCI architecture:Debian architecture:QEMU's name for it ("-" where the machine itself runs it)
architectures=(
  amd64:amd64:x86_64 arm64:arm64:aarch64 arm:armhf:arm 386:i386:i386 riscv64:riscv64:riscv64
  loong64:loong64:loongarch64 ppc64le:ppc64el:ppc64le s390x:s390x:s390x
)

# QEMU's names of architectures that no build is for: only binfmt's tests want them
others=(ppc64 mips64el mips64 sparc64 alpha m68k ppc mips mipsel riscv32 hppa sh4 or1k microblaze)

# Versions of Kubernetes that examples have to be right for: the first that has all they use switched on, and a new one
kubernetes_versions=(1.33 1.37)

say() { printf 'parts: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

# Debian keeps some programs where only root's PATH looks.
PATH=$PATH:/usr/sbin:/sbin

missing_packages() { # command:package ... -> the packages whose command is missing
  local pair
  for pair in "$@"; do
    command -v "${pair%%:*}" > /dev/null || echo "${pair#*:}"
  done | sort -u
}

missing_parts() { # -> one line per file that the parts folder lacks
  local triple oci debian qemu
  for triple in "${architectures[@]}"; do
    IFS=: read -r oci debian qemu <<< "$triple"
    [ -x "$parts/busybox/$oci/busybox" ] || echo "busybox/$oci/busybox"
    [ -x "$parts/qemu/qemu-$qemu" ] || echo "qemu/qemu-$qemu"
  done
  for qemu in "${others[@]}"; do
    [ -x "$parts/qemu-others/qemu-$qemu" ] || echo "qemu-others/qemu-$qemu"
  done
  [ -x "$parts/engine/usr/sbin/dockerd" ] || echo engine/usr/sbin/dockerd
  [ -f "$parts/appliance/root.tar" ] || echo appliance/root.tar
  [ -f "$parts/moto/moto/server.py" ] || echo moto/moto/server.py
  [ -f "$parts/attestations/sigstore/dsse/_predicate.py" ] && [ -d "$parts/attestations/spdx_tools" ] || echo attestations/sigstore
  [ -f "$parts/azurite/node_modules/azurite/dist/src/blob/main.js" ] || echo azurite/node_modules/azurite/dist/src/blob/main.js
  [ -x "$parts/bin/docker-buildx" ] || echo bin/docker-buildx
  [ -x "$parts/bin/docker-registry" ] || echo bin/docker-registry
  [ -x "$parts/bin/kubernetes-validate" ] || echo bin/kubernetes-validate
}

logged() { # runs a command with its output in the log, which is shown if it fails
  "$@" >> "$log" 2>&1 && return
  local code=$?
  tail -n 15 "$log" >&2
  say "failed: $* (all of it: $log)"
  return "$code"
}

install_packages() { # package ...
  [ $# -gt 0 ] || return 0
  command -v apt-get > /dev/null || die "these Debian packages are needed and apt-get is not here: $*"
  [ "$(id -u)" = 0 ] || die "these packages are missing and only root may install them: apt-get install $*"
  say "installing $*"
  export DEBIAN_FRONTEND=noninteractive
  local options=(-y --no-install-recommends -o DPkg::Lock::Timeout=300)
  # The first try is without an update: on most machines the lists are there.
  apt-get install "${options[@]}" "$@" >> "$log" 2>&1 && return
  logged apt-get update || die "apt-get update failed: is the package archive reachable?"
  logged apt-get install "${options[@]}" "$@" || die "could not install: $*"
}

# One apt of its own below $work: lists, cache and status of this machine stay as they are. The archive's address,
# its keys, proxies and credentials are what the machine's apt has (deb822 and one-line sources alike).
private_apt() {
  local release wanted found="" address name component keys=/usr/share/keyrings/debian-archive-keyring.gpg
  command -v apt-get > /dev/null || die "apt-get is not here; put the parts into $parts by hand and run this again"
  release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  wanted=" $release stable oldstable testing unstable sid "
  while IFS='|' read -r address name component; do
    [[ $component == main && "$wanted" == *" $name "* ]] || continue
    found=1
    break
  done < <(apt-get indextargets --format '$(REPO_URI)|$(RELEASE)|$(COMPONENT)' 'Created-By: Packages' 2>> "$log")
  [ -n "$found" ] || die "this machine's apt has no source for its own release (${release:-unknown}, component main);" \
    "the newer suite's address is taken from there. Add one, or fill $parts by hand"

  mkdir -p "$work/sources" "$work/state/lists/partial" "$work/cache/archives/partial" "$work/debs"
  : > "$work/state/status"
  local native list="" entry debian
  native=$(dpkg --print-architecture)
  for entry in "${architectures[@]}"; do
    IFS=: read -r _ debian _ <<< "$entry"
    list+="${list:+ }$debian"
  done
  [[ " $list " == *" $native "* ]] || list+=" $native"
  {
    echo "Types: deb"
    echo "URIs: $address"
    echo "Suites: $suite"
    echo "Components: main"
    echo "Architectures: $list"
    # Debian's keys by name; where they are not installed, whatever keys this machine's apt trusts.
    [ ! -e "$keys" ] || echo "Signed-By: $keys"
  } > "$work/sources/newer.sources"
  {
    echo 'Dir::Etc::sourcelist "/dev/null";'
    echo "Dir::Etc::sourceparts \"$work/sources\";"
    echo 'Dir::Etc::preferences "/dev/null";'
    echo 'Dir::Etc::preferencesparts "/dev/null";'
    echo "Dir::State \"$work/state\";"
    echo "Dir::State::status \"$work/state/status\";"
    echo "Dir::Cache \"$work/cache\";"
    echo 'Acquire::Languages "none";'
    echo 'Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";'
    echo 'Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";'
    echo 'Acquire::Retries "3";'
    echo 'APT::Sandbox::User "root";'
    echo '#clear APT::Architectures;'
    printf 'APT::Architectures {'
    printf ' "%s";' $list
    echo ' };'
    echo '#clear APT::Update::Post-Invoke;'
    echo '#clear APT::Update::Post-Invoke-Success;'
  } > "$work/apt.conf"
  newer=(apt-get -c "$work/apt.conf")
  say "reading the package lists of $suite (about 80 MB)"
  logged "${newer[@]}" update || die "the lists of suite $suite could not be had from this machine's archive;" \
    "name another with CROSSKIT_TEST_SUITE"
}

unpacked() { # package[:architecture] -> folder with its files, from the newer suite
  local into=$work/unpacked/${1/:/_}
  if [ ! -d "$into" ]; then
    mkdir -p "$work/debs/${1/:/_}" "$into"
    (cd "$work/debs/${1/:/_}" && logged "${newer[@]}" download "$1") || die "package $1 could not be had from suite $suite"
    logged dpkg-deb -x "$work/debs/${1/:/_}"/*.deb "$into" || die "package $1 could not be unpacked"
  fi
  echo "$into"
}

place() { # file target: whole or not at all
  [ -f "$1" ] || die "$1 is not in its package any more; this script needs to learn where it went"
  mkdir -p "$(dirname "$parts/$2")"
  install -m 755 "$1" "$parts/$2.new$$"
  mv -f "$parts/$2.new$$" "$parts/$2"
}

first_file() { # file ... -> the first that exists
  local file
  for file in "$@"; do [ -f "$file" ] && echo "$file" && return; done
  echo "$1"
}

# Unpacks packages of the machine's own suite, with whose libc they are linked, into $work/$1/files: installed, they would
# start services.
unpack_own() { # name, package ...
  local folder=$work/$1 deb
  shift
  say "unpacking $*"
  mkdir -p "$folder/files"
  (cd "$folder" && apt-get -o APT::Sandbox::User=root download "$@" >> "$log" 2>&1) \
    || { [ "$(id -u)" = 0 ] && logged apt-get update && (cd "$folder" && logged apt-get -o APT::Sandbox::User=root download "$@"); } \
    || die "packages $* could not be had from this machine's own suite"
  for deb in "$folder"/*.deb; do logged dpkg-deb -x "$deb" "$folder/files"; done
}

fetch_registry() {
  if command -v docker-registry > /dev/null; then
    place "$(command -v docker-registry)" bin/docker-registry
    return
  fi
  unpack_own registry docker-registry
  place "$work/registry/files/usr/bin/docker-registry" bin/docker-registry
}

# A validator of Kubernetes' manifests with the schemas of some versions. Debian has none, so it comes from PyPI, into a folder
# of its own: Debian's Python is left as it is.
fetch_kubernetes_validate() {
  local into=$work/kubernetes version keep=()
  say "unpacking kubernetes-validate"
  logged /usr/bin/python3 -m pip --disable-pip-version-check install --no-compile --target "$into" \
    "kubernetes-validate==${kubernetes_versions[-1]}.*" || die "kubernetes-validate could not be had from this machine's package index for Python"
  for version in "${kubernetes_versions[@]}"; do keep+=(! -name "v$version.0-local-strict"); done
  find "$into/kubernetes_validate/kubernetes-json-schema" -mindepth 1 -maxdepth 1 "${keep[@]}" -exec rm -rf {} +
  rm -rf "$parts/kubernetes"
  mv "$into" "$parts/kubernetes"
  cat > "$work/kubernetes-validate" << 'END'
#!/bin/sh
PYTHONPATH=$(dirname "$(readlink -f "$0")")/../kubernetes PYTHONDONTWRITEBYTECODE=1 exec /usr/bin/python3 -m kubernetes_validate "$@"
END
  place "$work/kubernetes-validate" bin/kubernetes-validate
}

# Docker's engine and its client, with the libraries that this machine may lack.
fetch_engine() {
  unpack_own engine docker.io containerd tini libdevmapper1.02.1
  rm -rf "$parts/engine"
  mv "$work/engine/files" "$parts/engine"
}

# What the appliance's image has of Debian's packages.
appliance_packages=crun,runc,git,openssh-client,gpg,ca-certificates,fuse-overlayfs,rootlesskit,slirp4netns,uidmap,libcap2-bin

own_suite() { # -> address and name of the suite that this machine is of
  local address="" name component
  while IFS='|' read -r address name component; do
    [[ $component == main && $name == "$(. /etc/os-release && echo "$VERSION_CODENAME")" ]] && break
  done < <(apt-get indextargets --format '$(REPO_URI)|$(RELEASE)|$(COMPONENT)' 'Created-By: Packages' 2>> "$log")
  echo "$address $name"
}

# The root that tests of the appliance's image stand on: Debian with the packages that it would install.
make_base() {
  local address name
  read -r address name <<< "$(own_suite)"
  say "making a root of $name with what a builder needs"
  mkdir -p "$parts/appliance"
  logged mmdebstrap --variant=minbase --include="$appliance_packages" "$name" "$work/root.tar" "deb $address $name main"
  mv "$work/root.tar" "$parts/appliance/root.tar"
}

# The same for machines of another architecture, of this machine's suite or, where that has no such architecture, of the newer one.
# The packages are unpacked, not installed: under an emulator their scripts take a quarter of an hour. What of the scripts'
# work an image needs is done by appliance/settle.sh.
make_foreign_base() { # architecture, Debian's name for it
  local address name from valid
  read -r address name <<< "$(own_suite)"
  # As this machine's apt has it: an archive may be a copy of an earlier day.
  eval "$(apt-config shell valid Acquire::Check-Valid-Until)"
  for from in "$name" "$suite"; do
    say "making a root of $from for $1"
    mmdebstrap --variant=extract --architectures="$2" --include='?essential' --include="$appliance_packages" \
      --aptopt="Acquire::Check-Valid-Until \"${valid:-true}\"" --hook-dir=/usr/share/mmdebstrap/hooks/maybe-merged-usr \
      --extract-hook="$here/appliance/settle.sh" "$from" "$work/root-$1.tar" "deb $address $from main" >> "$log" 2>&1 && break
  done
  [ -s "$work/root-$1.tar" ] || die "no root for $1 could be made of $name nor $suite; the log is $log"
  mkdir -p "$parts/foreign/$1"
  mv "$work/root-$1.tar" "$parts/foreign/$1/root.tar"
}

missing_foreign() { # architecture -> what of it is missing
  local triple qemu
  [ -f "$parts/foreign/$1/root.tar" ] || echo "foreign/$1/root.tar"
  for triple in "${architectures[@]}"; do
    qemu=${triple##*:}
    [ -x "$parts/foreign/$1/qemu/qemu-$qemu" ] || echo "foreign/$1/qemu/qemu-$qemu"
  done
}

fetch_foreign() { # architecture
  local triple oci="" debian="" qemu from wanted
  for triple in "${architectures[@]}"; do
    IFS=: read -r oci debian qemu <<< "$triple"
    [ "$oci" != "$1" ] || break
  done
  [ "$oci" = "$1" ] || die "unknown architecture '$1'"
  wanted=$(missing_foreign "$1")
  ! grep -q root.tar <<< "$wanted" || make_foreign_base "$1" "$debian"
  grep -q /qemu/ <<< "$wanted" || return 0
  [ -n "${newer:-}" ] || private_apt
  say "unpacking emulators for machines of $1"
  from=$(unpacked "qemu-user:$debian")
  for triple in "${architectures[@]}"; do
    qemu=${triple##*:}
    place "$(first_file "$from/usr/bin/qemu-$qemu" "$from/usr/bin/qemu-$qemu-static")" "foreign/$1/qemu/qemu-$qemu"
  done
}

# The versions are those that Debian 12's interpreters run: later ones of azurite want a newer node.
fetch_moto() {
  say "getting moto from PyPI"
  logged python3 -m pip install --quiet --disable-pip-version-check --no-warn-conflicts --target "$work/moto" \
    'moto[s3]==5.2.1' 'flask==3.1.3' 'flask-cors==6.0.5' || die "moto could not be had from PyPI"
  rm -rf "$parts/moto"
  mv "$work/moto" "$parts/moto"
}

# Models of in-toto and SLSA, and a validator of SPDX. The versions are those that Debian 12's Python runs.
fetch_attestations() {
  say "getting sigstore and spdx-tools from PyPI"
  logged /usr/bin/python3 -m pip install --quiet --disable-pip-version-check --no-warn-conflicts --no-compile --target "$work/attestations" \
    'sigstore==4.5.1' 'spdx-tools==0.8.5' || die "sigstore and spdx-tools could not be had from PyPI"
  rm -rf "$parts/attestations"
  mv "$work/attestations" "$parts/attestations"
}

fetch_azurite() {
  say "getting azurite from npm"
  mkdir -p "$work/azurite"
  logged npm install --silent --no-audit --no-fund --ignore-scripts --omit=dev --prefix "$work/azurite" azurite@3.35.0 \
    || die "azurite could not be had from npm"
  rm -rf "$parts/azurite"
  mv "$work/azurite" "$parts/azurite"
}

fetch_parts() {
  local triple oci debian qemu from wanted
  wanted=$(missing_parts)
  [ -n "$wanted" ] || return 0
  work=$(mktemp -d "$parts/.work.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  if grep -q '^bin/docker-registry$' <<< "$wanted"; then fetch_registry; fi
  if grep -q '^engine/usr/sbin/dockerd$' <<< "$wanted"; then fetch_engine; fi
  if grep -q '^appliance/root.tar$' <<< "$wanted"; then make_base; fi
  if grep -q '^moto/' <<< "$wanted"; then fetch_moto; fi
  if grep -q '^azurite/' <<< "$wanted"; then fetch_azurite; fi
  if grep -q '^attestations/' <<< "$wanted"; then fetch_attestations; fi
  if grep -q '^bin/kubernetes-validate$' <<< "$wanted"; then fetch_kubernetes_validate; fi
  wanted=$(missing_parts)
  [ -n "$wanted" ] || return 0
  private_apt
  say "unpacking $(wc -l <<< "$wanted") programs of $suite"
  if grep -q '^bin/docker-buildx$' <<< "$wanted"; then
    from=$(unpacked docker-buildx)
    place "$(first_file "$from"/usr/{libexec,lib}/docker/cli-plugins/docker-buildx)" bin/docker-buildx
  fi
  for triple in "${architectures[@]}"; do
    IFS=: read -r oci debian qemu <<< "$triple"
    if grep -q "^qemu/qemu-$qemu\$" <<< "$wanted"; then
      from=$(unpacked qemu-user)
      place "$(first_file "$from/usr/bin/qemu-$qemu" "$from/usr/bin/qemu-$qemu-static")" "qemu/qemu-$qemu"
    fi
    if grep -q "^busybox/$oci/busybox\$" <<< "$wanted"; then
      from=$(unpacked "busybox-static:$debian")
      place "$(first_file "$from/usr/bin/busybox" "$from/bin/busybox")" "busybox/$oci/busybox"
    fi
  done
  for qemu in "${others[@]}"; do
    if grep -q "^qemu-others/qemu-$qemu\$" <<< "$wanted"; then
      from=$(unpacked qemu-user)
      place "$(first_file "$from/usr/bin/qemu-$qemu" "$from/usr/bin/qemu-$qemu-static")" "qemu-others/qemu-$qemu"
    fi
  done
}

packages=""
files=""
case $what in
  all | build | list) packages=$(missing_packages "${for_building[@]}") ;;&
  all | list) packages+=$'\n'$(missing_packages "${for_running[@]}") files=$(missing_parts) ;;
  build) ;;
  image)
    packages=$(missing_packages mmdebstrap:mmdebstrap)
    for architecture in "${foreign[@]}"; do files+=$(missing_foreign "$architecture")$'\n'; done
    ;;
  *) die "unknown request '$what': all, build, list or image" ;;
esac
packages=$(sort -u <<< "$packages" | sed '/^$/d')
files=$(sed '/^$/d' <<< "$files")

if [ "$what" = list ]; then
  [ -n "$packages$files" ] || { say "everything is in $parts"; exit 0; }
  [ -z "$packages" ] || printf 'missing package: %s\n' $packages
  [ -z "$files" ] || printf 'missing file: %s\n' $files
  exit 1
fi
[ -n "$packages$files" ] || exit 0

mkdir -p "$parts"
log=$parts/parts.log
# Two runs at once: the second waits, then finds everything there.
exec 9> "$parts/.lock"
flock -n 9 || { say "another run is preparing the parts; waiting for it"; flock 9; }
: > "$log"
install_packages $packages
case $what in
  all) fetch_parts ;;
  image)
    work=$(mktemp -d "$parts/.work.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    for architecture in "${foreign[@]}"; do fetch_foreign "$architecture"; done
    ;;
esac

if [ "$what" = all ]; then
  left=$(missing_parts)
  [ -z "$left" ] || die "still missing in $parts: $left"
  say "ready in $parts"
fi
