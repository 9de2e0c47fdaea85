#!/bin/sh
# Installs what EXTRA_APT_PACKAGES, EXTRA_CONDA_PACKAGES and EXTRA_PIP_PACKAGES name, then becomes the command. The values
# are words for the tools, so options and URLs work. A failure ends the container: tasks would miss the packages.
set -eu

if [ -n "${EXTRA_APT_PACKAGES:-}" ]; then
    echo "EXTRA_APT_PACKAGES: installing ${EXTRA_APT_PACKAGES}" >&2
    if [ "$(id -u)" != 0 ]; then
        echo "EXTRA_APT_PACKAGES needs root: run the container with runAsUser: 0" >&2
        exit 1
    fi
    apt-get update -q >&2
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends ${EXTRA_APT_PACKAGES} >&2
fi

if [ -n "${EXTRA_CONDA_PACKAGES:-}" ]; then
    echo "EXTRA_CONDA_PACKAGES: installing ${EXTRA_CONDA_PACKAGES}" >&2
    conda=$(command -v mamba || command -v conda || true)
    if [ -z "$conda" ]; then
        echo "EXTRA_CONDA_PACKAGES: this image has no conda; use EXTRA_PIP_PACKAGES" >&2
        exit 1
    fi
    # shellcheck disable=SC2086
    "$conda" install -y ${EXTRA_CONDA_PACKAGES} >&2
fi

if [ -n "${EXTRA_PIP_PACKAGES:-}" ]; then
    echo "EXTRA_PIP_PACKAGES: installing ${EXTRA_PIP_PACKAGES}" >&2
    # shellcheck disable=SC2086
    python -m pip install ${EXTRA_PIP_PACKAGES} >&2
fi

exec "$@"
