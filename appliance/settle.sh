#!/bin/sh
# Does in a Debian root of another architecture, whose packages were unpacked but not installed, what of their scripts' work
# an image needs. Runs beside the root, not in it: programs of this machine only.
set -eu
root=$1
for name in passwd group; do
  [ -s "$root/etc/$name" ] || cp "$root/usr/share/base-passwd/$name.master" "$root/etc/$name"
done
# Without it names are looked for at name servers before /etc/hosts.
[ -e "$root/etc/nsswitch.conf" ] || cp "$root/usr/share/libc-bin/nsswitch.conf" "$root/etc/"
[ -e "$root/etc/profile" ] || cp "$root/usr/share/base-files/profile" "$root/etc/"
mkdir -p "$root/root" "$root/tmp" "$root/var/tmp" "$root/etc/ssl/certs"
chmod 700 "$root/root"
chmod 1777 "$root/tmp" "$root/var/tmp"
find "$root/usr/share/ca-certificates" -name '*.crt' | sort | xargs cat > "$root/etc/ssl/certs/ca-certificates.crt"
