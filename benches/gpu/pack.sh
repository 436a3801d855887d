#!/usr/bin/env bash
# Packs the executables and the scripts for a GPU machine with no Rust toolchain and no network: target/gpu-pack.tar.gz.
# A run of r1_mini on the CPU (pack.sh RUN; by default target/gpu-runs/r1_mini_cpu, where there is one) goes along as the
# figures that r1_mini.sh compares with.
set -e
rm -f benches/gpu/kernels-test benches/gpu/gpu-bench benches/gpu/gristmill
source "$(dirname "${BASH_SOURCE[0]}")/queue.sh"
pack=$(mktemp -d)
trap 'rm -rf "$pack"' EXIT
mkdir -p "$pack/benches/gpu" target
cp benches/gpu/*.sh benches/gpu/*.py "$pack/benches/gpu/"
strip -o "$pack/benches/gpu/kernels-test" "$test_binary"
strip -o "$pack/benches/gpu/gpu-bench" "$bench_binary"
strip -o "$pack/benches/gpu/gristmill" "$gristmill_binary"
run=${1:-target/gpu-runs/r1_mini_cpu}
if [ -d "$run" ]; then
  for stage in "$run"/*_*/; do
    to=$pack/benches/gpu/r1_mini_cpu/$(basename "$stage")
    mkdir -p "$to"
    cp "$stage/_manifest.json" "$to/"
    last=$(ls -d "$stage"checkpoints/step-* 2>/dev/null | sort | tail -n 1)
    if [ -n "$last" ]; then
      mkdir -p "$to/checkpoints/$(basename "$last")"
      cp "$last/session.json" "$to/checkpoints/$(basename "$last")/"
    fi
  done
else
  echo "no run of r1_mini on the CPU in $run: the GPU machine makes its own (gristmill run r1_mini --out $run)"
fi
tar -czf target/gpu-pack.tar.gz -C "$pack" .
ls -l target/gpu-pack.tar.gz
