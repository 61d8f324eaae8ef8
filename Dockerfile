# Tried: built by buildah and run by podman 5.4: calls, kill -9 in a call, drain, --read-only --cap-drop all.
#
# relay700 in a container (podman build needs --format docker, else the image has no health check):
#
#   docker build -t relay700 .        # with --build-arg EXTRAS=parquet also `calls export --format parquet`
#   docker run --network host -v relay700:/var/lib/relay700 -v /etc/relay700:/etc/relay700:ro relay700
#
# SIP names addresses in its messages, so the relay needs the host's network, or [sip] advertise with all ports published. Paths in
# /etc/relay700/relay.toml count from /var/lib/relay700, the volume: database and key are below its var/. The health check asks
# 127.0.0.1:8700 as [api] listen has it. Stop it with `docker stop -t 60`: it drains.

FROM debian:trixie-slim AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
COPY requirements /source/requirements
ARG EXTRAS=""
RUN python3 -m venv /opt/relay700 \
    && for name in run $EXTRAS; do \
        /opt/relay700/bin/pip install --no-cache-dir --require-hashes -r /source/requirements/$name.txt || exit; \
    done
COPY pyproject.toml README.md LICENSE /source/
COPY relay /source/relay
RUN /opt/relay700/bin/pip install --no-cache-dir --no-deps --no-build-isolation /source

FROM debian:trixie-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10700 relay700 \
    && useradd --uid 10700 --gid 10700 --no-create-home --home-dir /var/lib/relay700 --shell /usr/sbin/nologin relay700 \
    && install -d -o relay700 -g relay700 -m 700 /var/lib/relay700
COPY --from=build /opt/relay700 /opt/relay700
COPY config/relay.toml /etc/relay700/relay.toml
USER relay700
WORKDIR /var/lib/relay700
VOLUME /var/lib/relay700
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s \
    CMD ["/opt/relay700/bin/python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8700/healthz', timeout=4)"]
ENTRYPOINT ["/opt/relay700/bin/relay700"]
CMD ["serve", "-c", "/etc/relay700/relay.toml"]
