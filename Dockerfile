# syntax=docker/dockerfile:1
# The same Debian in both stages: the binary needs the C library it was linked against. (ring is built by the image's C compiler.)
FROM rust:1.95-slim-bookworm AS builder
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY src src
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --bin tideover \
    && install -D -m 0755 target/release/tideover /image/usr/local/bin/tideover \
    && install -d -m 0700 -o 65532 -g 65532 /image/var/lib/tideover

# No shell, no package manager, user 65532; with a trust store for rediss://.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=builder /image/usr/local/bin/tideover /usr/local/bin/tideover
COPY --from=builder --chown=65532:65532 /image/var/lib /var/lib
# Data lies in ./tideover-data by default. Not set by TIDEOVER_DATA_DIR, which would stand above a configuration file.
WORKDIR /var/lib/tideover
VOLUME /var/lib/tideover
EXPOSE 6380 9122
# There is no shell for a HEALTHCHECK with curl. This fails when tideover does not answer, not when Redis is down.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["/usr/local/bin/tideover", "status"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/tideover"]
