#!/usr/bin/env bash
# Packs the executables and the scripts for a GPU machine with no Rust toolchain and no network: target/gpu-pack.tar.gz.
# Its files are under 64 MiB together, executables compressed one by one: queue.sh unpacks them where they are run.
# A run of r1_mini on the CPU (pack.sh RUN; by default target/gpu-runs/r1_mini_cpu, where there is one) goes along as the
# figures that r1_mini.sh compares with.
set -e
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
rm -f benches/gpu/{kernels-test,gpu-bench,gristmill}{,.gz}
source benches/gpu/queue.sh
pack=$(mktemp -d)
trap 'rm -rf "$pack"' EXIT
mkdir -p "$pack/benches/gpu" target
cp benches/gpu/*.sh benches/gpu/*.py "$pack/benches/gpu/"
for one in "kernels-test $test_binary" "gpu-bench $bench_binary" "gristmill $gristmill_binary"; do
  read -r name binary <<<"$one"
  strip -o "$pack/benches/gpu/$name" "$binary"
  gzip -9n "$pack/benches/gpu/$name"
done
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
bytes=$(find "$pack" -type f -printf '%s\n' | awk '{ sum += $1 } END { print sum }')
echo "target/gpu-pack.tar.gz: $(stat -c %s target/gpu-pack.tar.gz) bytes; its files: $bytes"
if [ "$bytes" -gt $((64 << 20)) ]; then
  echo "error: the pack's files are over 64 MiB" >&2
  exit 1
fi
