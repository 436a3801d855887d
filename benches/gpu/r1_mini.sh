#!/usr/bin/env bash
# R1's recipe in miniature on the card and on the CPU, side by side: loss and reward curves and evaluations within the
# tolerances that r1_mini.py states. Prints one line a figure; writes benches/gpu/r1_mini.txt. Fails where one is outside.
set -euo pipefail
cd "$(dirname "$0")/../.."
source benches/gpu/binaries.sh
runs=${GRISTMILL_RUNS:-target/gpu-runs}
{
  for device in cpu cuda; do
    "$gristmill_binary" run r1_mini --set device=$device --out "$runs/r1_mini_$device"
  done
  python3 benches/gpu/r1_mini.py "$runs/r1_mini_cpu" "$runs/r1_mini_cuda"
} 2>&1 | tee benches/gpu/r1_mini.txt
