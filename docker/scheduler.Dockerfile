# The scheduler and nothing else: a static binary in an empty image. Enough for clients that submit futures and for
# graphs that need no Python to be expanded (or with workers that can be asked, --python-host delegated).
#
#   cargo xtask image            builds the binaries on this machine and both images from them
#   docker build -f docker/scheduler.Dockerfile .          builds the binaries in the image's first stage
ARG RUST_IMAGE=rust:1.95-bookworm
ARG BINARIES=build

FROM ${RUST_IMAGE} AS build
WORKDIR /source
COPY . .
RUN RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --profile image --locked --target "$(rustc -vV | sed -n 's/^host: //p')" \
        --package oxidask-scheduler --bin dask-scheduler \
    && mkdir -p /dist/scheduler/usr/local/bin \
    && cp target/*/image/dask-scheduler /dist/scheduler/usr/local/bin/ \
    && ln -s dask-scheduler /dist/scheduler/usr/local/bin/dask \
    && find /dist -depth -exec touch -h -d @1000000000 {} +

FROM scratch AS dist
COPY dist/ /dist/

FROM ${BINARIES} AS binaries

FROM scratch
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="oxidask-scheduler" \
      org.opencontainers.image.description="Native scheduler for Dask" \
      org.opencontainers.image.licenses="BSD-3-Clause" \
      org.opencontainers.image.version="${VERSION}"
COPY --from=binaries /dist/scheduler/ /
ENV PATH=/usr/local/bin
USER 65532:65532
EXPOSE 8786 8787
HEALTHCHECK --interval=20s --timeout=5s --start-period=5s CMD ["dask-scheduler", "--check-health"]
# No entrypoint: the args of a pod are the whole command, as with stock's images.
CMD ["dask-scheduler"]
