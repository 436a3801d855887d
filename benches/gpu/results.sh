#!/usr/bin/env bash
# Turns what the queue's scripts wrote into RESULTS.md beside it, which ends with the table of goals. What has no output
# says that it was not run.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
results=${GRISTMILL_RESULTS:-$here/results}
cd "$results" || exit 1
last() { grep -ah "$1" "$2" 2>/dev/null | tail -n "${3:-1}"; }
or_not_run() { local text; text=$(cat); if [ -n "$text" ]; then echo "$text"; else echo "not run yet"; fi; }
{
  echo "# Results on a GPU"
  echo
  echo "Written by the scripts of \`benches/gpu/\`; the queue is GPU.md. Nothing here is typed in by hand."
  echo
  echo "## Device"
  echo
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null | or_not_run
  echo
  echo "## Parts"
  echo
  last ': \(ok\|FAILED\|OUT OF TIME\|NOT RUN\)' queue.txt 100 | sed 's/^/    /' | or_not_run
  echo
  echo "## Parity and determinism"
  echo
  last '^test result\|\.\.\. FAILED$' op_parity.txt 100 | sed 's/^/    /' | or_not_run
  echo
  echo "Values of a row that change with the size of its batch, by shape of the product:"
  echo
  last 'values differ between batches' op_parity.txt 100 | sed 's/^/    /' | or_not_run
  echo
  echo "## compute-sanitizer"
  echo
  last 'ERROR SUMMARY\|RACECHECK SUMMARY' sanitize.txt 10 | sed 's/^/    /' | or_not_run
  echo
  echo "## r1_mini, CUDA against the CPU"
  echo
  last '^ok \|^FAIL\|^r1_mini:' r1_mini.txt 100 | sed 's/^/    /' | or_not_run
  echo
  echo "## Speed"
  echo
  python3 "$here/results.py" bench.jsonl
} >RESULTS.md
