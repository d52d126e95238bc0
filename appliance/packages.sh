#!/bin/sh
# Brings what a builder needs into a Debian root: only what is not there yet, so that a base that has it needs no network.
set -eu
wanted=""
need() { command -v "$1" > /dev/null || wanted="$wanted $2"; }
need crun crun
need runc runc
need git git
need ssh openssh-client
need gpg gpg
need fuse-overlayfs fuse-overlayfs
[ -e /etc/ssl/certs/ca-certificates.crt ] || wanted="$wanted ca-certificates"
[ -z "$wanted" ] || { apt-get update && apt-get install -y --no-install-recommends $wanted; }
