#!/usr/bin/env bash
# nvrtc.sh [12|13]: prints the folder of NVIDIA's compiler library of CUDA 12 (default) or 13, installed from PyPI into a cache
# outside the checkout if it is not there. Pinned: tests/kernels/nvrtc.rs keeps ptxas's report of the first as a snapshot. Fails,
# saying why, where it cannot be installed.
set -euo pipefail
case ${1:-12} in
  12) version=12.8.93 package=nvidia-cuda-nvrtc-cu12 folder=nvidia/cuda_nvrtc/lib file=libnvrtc.so.12 ;;
  13) version=13.0.88 package=nvidia-cuda-nvrtc folder=nvidia/cu13/lib file=libnvrtc.so.13 ;;
  *) echo "nvrtc.sh: no pinned version of CUDA $1" >&2; exit 2 ;;
esac
cache=${GRISTMILL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/gristmill}/nvrtc-$version
lib=$cache/$folder
if [ ! -e "$lib/$file" ]; then
  mkdir -p "$(dirname "$cache")"
  fresh=$(mktemp -d "$cache.XXXXXX")
  trap 'rm -rf "$fresh"' EXIT
  python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$fresh" "$package==$version" >&2
  # Two tests may install at once: the first to finish keeps the place.
  mv -T "$fresh" "$cache" 2>/dev/null || [ -e "$lib/$file" ]
fi
echo "$lib"
