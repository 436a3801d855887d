#!/usr/bin/env bash
# Speed, on random weights, what matters most first: training, every kernel by itself, scoring and decoding, GRPO's steps;
# then the same training step in PyTorch and the same GRPO step in TRL, where they are installed (PYTHON names the
# interpreter). Writes bench.jsonl, a JSON object a line, each as soon as it is known.
source "$(dirname "${BASH_SOURCE[0]}")/queue.sh"
begin bench.jsonl
python=${PYTHON:-python3}
part "speed: training, 0.5B" 70 bench.jsonl "$bench_binary" train 0.5B
part "speed: kernels and products, 0.5B" 80 bench.jsonl "$bench_binary" kernels 0.5B
part "speed: training, 1.5B" 80 bench.jsonl "$bench_binary" train 1.5B
part "speed: scoring, decoding and prompts, 0.5B" 70 bench.jsonl "$bench_binary" scoring decode prefill 0.5B
part "speed: GRPO, 0.5B" 90 bench.jsonl "$bench_binary" grpo 0.5B
part "speed: training in PyTorch, 0.5B" 90 bench.jsonl "$python" benches/gpu/bench_torch.py 0.5B
part "speed: GRPO in TRL, 0.5B" 110 bench.jsonl "$python" benches/gpu/bench_trl.py 0.5B
part "speed: training in PyTorch, 1.5B" 100 bench.jsonl "$python" benches/gpu/bench_torch.py 1.5B
