#!/bin/sh
# Takes out of a Debian root what nobody uses in a container that builds: texts, package management, Perl, the parts of git
# that serve others, and the programs that runc's developers test it with.
set -eu
cd /usr/lib/git-core
rm -f git-gui* git-http-push git-http-fetch git-http-backend git-imap-send git-daemon git-shell scalar git-cvs* git-svn* git-p4 git-instaweb \
  git-send-email git-add--interactive git-archimport git-request-pull git-quiltimport git-web--browse
# Debian has the same program in both places.
cmp -s git /usr/bin/git && ln -sf /usr/bin/git git
rm -rf /usr/bin/git-shell /usr/bin/scalar \
  /usr/share/doc /usr/share/man /usr/share/info /usr/share/locale /usr/share/lintian /usr/share/bash-completion /usr/share/perl* \
  /usr/share/zoneinfo /usr/share/bug /usr/share/pixmaps /usr/share/common-licenses /usr/share/gitweb /usr/share/debconf \
  /usr/lib/*/perl* /usr/lib/*/libperl* /usr/lib/*/libdb-5* /usr/lib/*/libapt* /usr/lib/*/*.a /usr/lib/*/gconv /usr/lib/*/libmvec* \
  /usr/lib/systemd /usr/lib/udev /usr/lib/apt /usr/lib/locale /usr/bin/apt* /usr/bin/perl* /usr/bin/gpgv /etc/apt \
  /usr/bin/rootless* /usr/bin/slirp4netns /usr/bin/newuidmap /usr/bin/newgidmap /usr/lib/*/libslirp* /usr/lib/*/libsubid* \
  /usr/lib/*/libglib-* /usr/lib/*/libgio-* /usr/lib/*/libgobject-* /usr/lib/*/libgmodule-* /usr/lib/*/libgthread-* \
  /usr/lib/*/systemd /usr/sbin/pidfd-kill /usr/sbin/recvtty /usr/sbin/sd-helper /usr/sbin/remap-rootfs /usr/sbin/seccompagent \
  /usr/sbin/fs-idmap /usr/bin/openssl /usr/bin/localedef /usr/lib/gnupg/keyboxd /usr/bin/ssh-keyscan /usr/sbin/e2fsck /usr/sbin/fsck.ext* \
  /usr/sbin/mke2fs /usr/sbin/mkfs.ext* /usr/sbin/resize2fs /usr/sbin/tune2fs /usr/sbin/debugfs /usr/share/zsh /usr/share/polkit-1 \
  /usr/lib/openssh/ssh-keysign /usr/lib/openssh/ssh-pkcs11-helper /usr/lib/openssh/ssh-sk-helper \
  /var/lib/apt /var/lib/dpkg/info /var/cache /var/log
mkdir -p /var/cache /var/log
