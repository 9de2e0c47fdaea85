# Dask for Python with the native programs first on PATH: takes the place of ghcr.io/dask/dask and daskdev/dask.
ARG RUST_IMAGE=rust:1.95-bookworm
ARG PYTHON_IMAGE=python:3.12-slim-bookworm
ARG BINARIES=build

FROM ${RUST_IMAGE} AS build
WORKDIR /source
COPY . .
# The program has its C library inside and so runs in any image; the module inside of it has that of the Python that
# loads it.
RUN cargo build --profile image --locked --package oxidask-worker-module \
    && OXIDASK_WORKER_MODULE=/source/target/image/liboxidask_worker_module.so \
       RUSTFLAGS="-C target-feature=+crt-static" \
       cargo build --profile image --locked --target "$(rustc -vV | sed -n 's/^host: //p')" --package oxidask --bin oxidask \
    && mkdir -p /dist/full/opt/oxidask/bin \
    && cp target/*/image/oxidask /dist/full/opt/oxidask/bin/ \
    && for name in dask-scheduler dask-worker dask; do ln -s oxidask /dist/full/opt/oxidask/bin/$name; done \
    && find /dist -depth -exec touch -h -d @1000000000 {} +

FROM scratch AS dist
COPY dist/ /dist/

FROM ${BINARIES} AS binaries

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG DASK_VERSION=2026.8.0
# Where pip looks, if not at PyPI: for builds without a network.
ARG PIP_OPTIONS=
LABEL org.opencontainers.image.title="oxidask" \
      org.opencontainers.image.description="Dask with a native scheduler and worker" \
      org.opencontainers.image.licenses="BSD-3-Clause" \
      org.opencontainers.image.version="${VERSION}"
# Packages live in an environment of their own, so that users can add to it without being root.
RUN --mount=type=bind,from=binaries,source=/dist,target=/dist \
    python3 -m venv /opt/dask \
    && /opt/dask/bin/python -m pip install --no-cache-dir --no-compile ${PIP_OPTIONS} "dask[distributed]==${DASK_VERSION}" \
    && groupadd --gid 65532 dask \
    && useradd --uid 65532 --gid dask --create-home dask \
    && chown -R dask:dask /opt/dask
COPY --from=binaries /dist/full/ /
COPY docker/entrypoint.sh docker/healthcheck.sh /opt/oxidask/
# The native programs come first, also after EXTRA_PIP_PACKAGES has replaced Dask.
ENV PATH=/opt/oxidask/bin:/opt/dask/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
WORKDIR /home/dask
EXPOSE 8786 8787
HEALTHCHECK --interval=20s --timeout=5s --start-period=5s CMD ["/opt/oxidask/healthcheck.sh"]
ENTRYPOINT ["/opt/oxidask/entrypoint.sh"]
CMD ["dask-scheduler"]
