#!/usr/bin/env bash
# Speed: scoring, decoding and training on random weights, and the same training step in PyTorch where it is installed
# (PYTHON names the interpreter). Writes bench.jsonl, a JSON object a line.
source "$(dirname "${BASH_SOURCE[0]}")/queue.sh"
begin bench.jsonl
for size in 0.5B 1.5B; do
  part "speed, $size" 90 bench.jsonl "$bench_binary" all "$size"
  part "speed of PyTorch, $size" 100 bench.jsonl "${PYTHON:-python3}" benches/gpu/bench_torch.py "$size"
done
