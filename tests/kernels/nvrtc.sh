#!/usr/bin/env bash
# Prints the folder of NVIDIA's compiler library, installed from PyPI into a cache outside the checkout if it is not there.
# Pinned: tests/kernels/nvrtc.rs keeps ptxas's report as a snapshot. Fails, saying why, where it cannot be installed.
set -euo pipefail
version=12.8.93
cache=${GRISTMILL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/gristmill}/nvrtc-$version
lib=$cache/nvidia/cuda_nvrtc/lib
if [ ! -e "$lib/libnvrtc.so.12" ]; then
  mkdir -p "$(dirname "$cache")"
  fresh=$(mktemp -d "$cache.XXXXXX")
  trap 'rm -rf "$fresh"' EXIT
  python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$fresh" "nvidia-cuda-nvrtc-cu12==$version" >&2
  # Two tests may install at once: the first to finish keeps the place.
  mv -T "$fresh" "$cache" 2>/dev/null || [ -e "$lib/libnvrtc.so.12" ]
fi
echo "$lib"
