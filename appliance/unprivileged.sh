#!/bin/sh
# Gathers, in a folder, what the daemon of an ordinary user needs besides the rest: programs that give it ids and a network,
# the user (1000), and their folders.
set -eu
into=$1
wanted=""
need() { command -v "$1" > /dev/null || wanted="$wanted $2"; }
need rootlesskit rootlesskit
need slirp4netns slirp4netns
need newuidmap uidmap
need setcap libcap2-bin
[ -z "$wanted" ] || { apt-get update && apt-get install -y --no-install-recommends $wanted; }

mkdir -p "$into/usr/bin" "$into/etc"
for name in rootlesskit slirp4netns newuidmap newgidmap; do
  file=$(command -v "$name")
  cp -a "$file" "$into/usr/bin/"
  # A static program has none, and says so by failing.
  ldd "$file" 2> /dev/null | sed -n 's/.*=> \(\/[^ ]*\).*/\1/p' | while read -r library; do
    case ${library##*/} in libc.so.* | libm.so.* | libpthread.so.* | libdl.so.* | libresolv.so.*) continue ;; esac
    mkdir -p "$into/usr/lib/${library#*/lib/}" && rmdir "$into/usr/lib/${library#*/lib/}"
    cp -L "$library" "$into/usr/lib/${library#*/lib/}"
  done
done
# As programs of root's they would need CAP_SYS_ADMIN, which a container lacks.
for id in uid gid; do
  chmod u-s "$into/usr/bin/new${id}map"
  setcap "cap_set$id+ep" "$into/usr/bin/new${id}map"
done

cp /etc/passwd /etc/group "$into/etc/"
echo 'user:x:1000:1000:user:/home/user:/bin/sh' >> "$into/etc/passwd"
echo 'user:x:1000:' >> "$into/etc/group"
for file in subuid subgid; do echo user:100000:65536 > "$into/etc/$file"; done
mkdir -p "$into/home/user/.local/share/buildkit" "$into/home/user/.local/tmp" "$into/home/user/.config/buildkit" "$into/run/user/1000"
chown -R 1000:1000 "$into/home/user" "$into/run/user/1000"
chmod 700 "$into/run/user/1000"
