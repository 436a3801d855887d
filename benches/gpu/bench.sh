#!/usr/bin/env bash
# Speed: training, scoring and decoding on random weights, and the same training step in PyTorch where it is installed
# (PYTHON names the interpreter). Prints one JSON object a line; writes benches/gpu/bench.jsonl.
set -euo pipefail
cd "$(dirname "$0")/../.."
source benches/gpu/binaries.sh
{
  for size in 0.5B 1.5B; do
    for work in train logprobs decode; do
      "$bench_binary" "$work" "$size"
    done
    "${PYTHON:-python3}" benches/gpu/bench_torch.py "$size" || true
  done
} | tee benches/gpu/bench.jsonl
