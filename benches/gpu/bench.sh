#!/usr/bin/env bash
# Speed, on random weights, what fills most of the table of goals first: our training step and GRPO step, every kernel by itself,
# scoring and decoding, the larger model; then TRL's and PyTorch's steps of the same models (where they are installed; PYTHON names the
# interpreter), which start slowly.
# Writes bench.jsonl, a JSON object a line, each as soon as it is known. Another call goes on: what bench.jsonl has whole, of
# this executable and this card, is not done again.
source "$(dirname "${BASH_SOURCE[0]}")/queue.sh"
of="== of $(cksum <"$bench_binary") on $(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1)"
if ! grep -qxF "$of" "$results/bench.jsonl" 2>/dev/null; then
  begin bench.jsonl
  echo "$of" >"$results/bench.jsonl"
fi
python=${PYTHON:-python3}
once "speed: training, 0.5B" 70 bench.jsonl "$bench_binary" train 0.5B
once "speed: GRPO, 0.5B" 90 bench.jsonl "$bench_binary" grpo 0.5B
once "speed: kernels and products, 0.5B" 80 bench.jsonl "$bench_binary" kernels 0.5B
once "speed: scoring, decoding and prompts, 0.5B" 70 bench.jsonl "$bench_binary" scoring decode prefill 0.5B
once "speed: training, 1.5B" 80 bench.jsonl "$bench_binary" train 1.5B
once "speed: training in PyTorch, 0.5B" 90 bench.jsonl "$python" benches/gpu/bench_torch.py 0.5B
once "speed: GRPO in TRL, 0.5B" 110 bench.jsonl "$python" benches/gpu/bench_trl.py 0.5B
once "speed: training in PyTorch, 1.5B" 100 bench.jsonl "$python" benches/gpu/bench_torch.py 1.5B
