# The appliance: a daemon that `docker buildx create --driver docker-container` starts (daemon, the default), the same for
# an ordinary user (rootless), and an installer of emulators (binfmt). `make image` builds it; docs/appliance.md says how it is used.
#
# Programs that were built already take the place of the stage `binaries`: --build-context binaries=FOLDER, with
# `crosskit` in it; `binaries::linux/arm64=FOLDER` for one platform. In the same way `emulators`.

# What the stages stand on: Debian, or what is like it.
ARG BASE=debian:stable-slim
# What compiles.
ARG RUST=rust:slim

FROM ${RUST} AS compiled
WORKDIR /source
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,id=crosskit-target-${TARGETARCH},target=/source/target \
    cargo build --release -p crosskit && install -D -s target/release/crosskit /binaries/crosskit

FROM scratch AS binaries
COPY --from=compiled /binaries/ /

FROM ${BASE} AS gathered
COPY appliance/emulators.sh /
RUN /emulators.sh /emulators

FROM scratch AS emulators
COPY --from=gathered /emulators/ /

FROM ${BASE} AS root
COPY appliance/packages.sh appliance/trim.sh /
RUN /packages.sh
COPY --from=binaries /crosskit /usr/bin/crosskit
COPY --chmod=755 appliance/buildctl-daemonless.sh /usr/bin/
RUN cd /usr/bin && for name in buildkitd buildctl binfmt; do ln -s crosskit $name; done
RUN /trim.sh && rm /packages.sh /trim.sh

# The program with what it is linked to, and nothing else.
FROM ${BASE} AS alone
COPY appliance/libraries.sh /
COPY --from=binaries /crosskit /alone/usr/bin/binfmt
RUN /libraries.sh /alone/usr/bin/binfmt /alone && mkdir -m 1777 /alone/tmp

FROM scratch AS binfmt
COPY --from=emulators --link / /usr/bin/
COPY --from=alone --link /alone/ /
VOLUME /tmp
ENTRYPOINT ["/usr/bin/binfmt"]
LABEL org.opencontainers.image.title="crosskit binfmt" \
      org.opencontainers.image.description="Installs emulators of other processors" \
      org.opencontainers.image.licenses="Apache-2.0"

FROM ${BASE} AS unprivileged
COPY appliance/unprivileged.sh /
RUN /unprivileged.sh /unprivileged

FROM scratch AS rootless
COPY --from=emulators --link / /usr/bin/
COPY --from=root --link / /
COPY --from=unprivileged --link /unprivileged/ /
ENV HOME=/home/user USER=user XDG_RUNTIME_DIR=/run/user/1000 TMPDIR=/home/user/.local/tmp \
    BUILDKIT_HOST=unix:///run/user/1000/buildkit/buildkitd.sock
USER 1000:1000
VOLUME /home/user/.local/share/buildkit
ENTRYPOINT ["buildkitd", "--rootless"]
LABEL org.opencontainers.image.title="crosskit, rootless" \
      org.opencontainers.image.description="Container builds for many platforms, as BuildKit's daemon, by an ordinary user" \
      org.opencontainers.image.licenses="Apache-2.0"

FROM scratch AS daemon
COPY --from=emulators --link / /usr/bin/
COPY --from=root --link / /
VOLUME /var/lib/buildkit
ENTRYPOINT ["buildkitd"]
LABEL org.opencontainers.image.title="crosskit" \
      org.opencontainers.image.description="Container builds for many platforms, as BuildKit's daemon" \
      org.opencontainers.image.licenses="Apache-2.0"
