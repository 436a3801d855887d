#!/usr/bin/env bash
# Packs the executables and the scripts for a GPU machine with no Rust toolchain and no network.
set -euo pipefail
cd "$(dirname "$0")/../.."
source benches/gpu/binaries.sh
pack=$(mktemp -d)
trap 'rm -rf "$pack"' EXIT
mkdir -p "$pack/benches/gpu" target
cp benches/gpu/*.sh benches/gpu/*.py "$pack/benches/gpu/"
strip -o "$pack/benches/gpu/kernels-test" "$test_binary"
strip -o "$pack/benches/gpu/gpu-bench" "$bench_binary"
strip -o "$pack/benches/gpu/gristmill" "$gristmill_binary"
tar -czf target/gpu-pack.tar.gz -C "$pack" .
ls -l target/gpu-pack.tar.gz
