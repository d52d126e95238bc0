#!/bin/sh
# One call of buildctl with a daemon of its own, which ends with it.
#
#   BUILDCTL, BUILDKITD      the programs (buildctl, buildkitd)
#   BUILDKITD_FLAGS          more arguments of the daemon
#   ROOTLESSKIT              what starts the daemon of an ordinary user, such as rootlesskit with its options; it makes its
#                            user namespace itself if this is not set
set -eu
: "${BUILDCTL:=buildctl}" "${BUILDCTL_CONNECT_RETRIES_MAX:=10}" "${BUILDKITD:=buildkitd}" "${BUILDKITD_FLAGS:=}"

folder=$(mktemp -d "${TMPDIR:-/tmp}/buildctl-daemonless.XXXXXX")
daemon=
leave() {
  if [ -n "$daemon" ]; then
    kill "$daemon" 2> /dev/null || true
    wait "$daemon" 2> /dev/null || true
  fi
  rm -rf "$folder"
}
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

address=unix://$folder/buildkitd.sock
if [ "$(id -u)" = 0 ]; then
  # shellcheck disable=SC2086 # flags are words
  "$BUILDKITD" $BUILDKITD_FLAGS --addr="$address" > "$folder/log" 2>&1 &
else
  address=unix://${XDG_RUNTIME_DIR:-$folder}/buildkitd-$$.sock
  # shellcheck disable=SC2086
  ${ROOTLESSKIT:-} "$BUILDKITD" --rootless $BUILDKITD_FLAGS --addr="$address" > "$folder/log" 2>&1 &
fi
daemon=$!

if ! "$BUILDCTL" --addr="$address" --wait --timeout="$BUILDCTL_CONNECT_RETRIES_MAX" debug workers > /dev/null 2> "$folder/why"; then
  cat "$folder/why" >&2
  echo "could not connect to $address; the log of the daemon:" >&2
  cat "$folder/log" >&2
  exit 1
fi
code=0
"$BUILDCTL" --addr="$address" "$@" || code=$?
exit "$code"
