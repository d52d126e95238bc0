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
daemon= client=
leave() {
  for process in $client $daemon; do
    kill "$process" 2> /dev/null || true
    wait "$process" 2> /dev/null || true
  done
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
# Beside this shell, which hears signals only while it waits; with its standard input, which such a process has not by itself.
exec 3<&0
"$BUILDCTL" --addr="$address" "$@" <&3 3<&- &
client=$!
code=0
wait "$client" || code=$?
client=
exit "$code"
