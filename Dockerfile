# Tried: the stage `given`, built by buildah 1.39 and run in a chroot: a call (scripts/dist). Not run: the stage `built`.
#
# relay700 in a container, with the engine compiled: Debian and the package of scripts/dist. (podman build needs --format docker, else
# the image has no health check.)
#
#   docker build -t relay700 .        # compiles it, in some minutes
#   install -D -m 640 -g 10700 config/relay.toml /etc/relay700/relay.toml
#   docker run --network host -v relay700:/var/lib/relay700 -v /etc/relay700:/etc/relay700:ro relay700
#
# The image's user is 10700:10700, whatever relay700 is on the host: that group must be able to read the files in /etc/relay700, also one
# that the package or the unit's commands have put there (chgrp 10700).
#
# SIP names addresses in its messages, so the relay needs the host's network, or [sip] advertise with all ports published. Paths in
# /etc/relay700/relay.toml count from /var/lib/relay700, the volume: database and key are below its var/. The health check asks the
# relay by the socket beside its store, and fails while relay.toml has a fault. Stop it with `docker stop -t 60`: it drains.
#
# PACKAGE=given takes the package in dist/ instead of compiling; BASE is another Debian of the same release. `./scripts/dist image`
# uses both.
ARG BASE=debian:trixie-slim
ARG PACKAGE=built

FROM ${BASE} AS built
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-venv
COPY LICENSE pyproject.toml *.md /source/
COPY config /source/config
COPY docs /source/docs
COPY relay /source/relay
COPY requirements /source/requirements
COPY scripts /source/scripts
ARG SOURCE_DATE_EPOCH
RUN /source/scripts/dist deb && cp /source/dist/*.deb /

FROM ${BASE} AS given
COPY dist/relay700_*.deb /

FROM ${PACKAGE} AS package

FROM ${BASE}
ARG SOURCE_DATE_EPOCH
RUN --mount=type=bind,from=package,target=/package \
    groupadd --gid 10700 relay700 \
    && useradd --uid 10700 --gid 10700 --no-create-home --home-dir /var/lib/relay700 --shell /usr/sbin/nologin relay700 \
    && apt-get update \
    && apt-get install -y --no-install-recommends /package/relay700_*.deb \
    && rm -rf /var/lib/apt/lists/* /var/cache/ldconfig/* && find /var/log -type f -delete
LABEL org.opencontainers.image.title="relay700" \
    org.opencontainers.image.description="A SIP engine that masks phone numbers behind China's 700 numbers" \
    org.opencontainers.image.licenses="Apache-2.0"
USER 10700:10700
WORKDIR /var/lib/relay700
VOLUME /var/lib/relay700
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s \
    CMD ["/opt/relay700/bin/relay700", "peers", "list", "-c", "/etc/relay700/relay.toml"]
ENTRYPOINT ["/opt/relay700/bin/relay700"]
CMD ["serve", "-c", "/etc/relay700/relay.toml"]
