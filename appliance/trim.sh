#!/bin/sh
# Takes out of a Debian root what nobody uses in a container that builds: texts, package management, Perl, and the parts of git
# that serve others.
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
  /usr/lib/openssh/ssh-keysign /usr/lib/openssh/ssh-pkcs11-helper /usr/lib/openssh/ssh-sk-helper \
  /var/lib/apt /var/lib/dpkg/info /var/cache /var/log
mkdir -p /var/cache /var/log
