#!/usr/bin/env bash
# The whole queue of GPU.md, in order, with as much time as it takes. Ends with benches/gpu/RESULTS.md, written anew;
# fails if a part did, after all were tried.
command -v nvidia-smi >/dev/null || { echo "not run: there is no GPU here (no nvidia-smi)"; exit 0; }
export GRISTMILL_SECONDS=${GRISTMILL_SECONDS:-7200}
source "$(dirname "${BASH_SOURCE[0]}")/queue.sh"
begin queue.txt bench.jsonl
for script in op_parity sanitize r1_mini bench; do bash "benches/gpu/$script.sh"; done
bash benches/gpu/results.sh
cp "$results/RESULTS.md" benches/gpu/RESULTS.md
cat benches/gpu/RESULTS.md
all_passed
