#!/usr/bin/env bash
# The whole queue of GPU.md, in order; stops at the first that fails. Ends with benches/gpu/RESULTS.md, written anew.
set -euo pipefail
cd "$(dirname "$0")/../.."
command -v nvidia-smi >/dev/null || { echo "not run: there is no GPU here (no nvidia-smi)"; exit 0; }
bash benches/gpu/op_parity.sh
if command -v compute-sanitizer >/dev/null; then bash benches/gpu/sanitize.sh; else echo "skipped: no compute-sanitizer"; fi
bash benches/gpu/r1_mini.sh
bash benches/gpu/bench.sh
bash benches/gpu/results.sh
cat benches/gpu/RESULTS.md
