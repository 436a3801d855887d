#!/usr/bin/env bash
# compute-sanitizer: memcheck over every kernel and operation, racecheck over the kernels that share memory. Writes
# sanitize.txt. Errors of calls are not its business (the tests see them): libraries of NVIDIA's provoke some on purpose.
source "$(dirname "${BASH_SOURCE[0]}")/queue.sh"
begin sanitize.txt
if ! command -v compute-sanitizer >/dev/null; then
  PATH=$PATH:$(ls -d /usr/local/cuda*/bin /usr/local/cuda*/compute-sanitizer 2>/dev/null | paste -sd:)
fi
if ! command -v compute-sanitizer >/dev/null; then
  echo "compute-sanitizer: NOT RUN: it is not on this machine" | tee -a "$results/queue.txt"
  exit 1
fi
check() {
  local tool=$1 name=$2 limit=$3
  shift 3
  part "$tool: $name" "$limit" sanitize.txt env GRISTMILL_TEST_DEVICE=cuda \
    compute-sanitizer --tool "$tool" --report-api-errors no --error-exitcode 99 "$test_binary" --test-threads 1 "$@"
}
check memcheck "kernels" 120 ops:: head:: sample:: decode:: attention:: product::
check memcheck "operations" 90 backend::
# A part that runs out of time leaves no summary, so each module is one by itself, the riskiest first.
for module in attention sample decode product ops; do check racecheck "$module" 60 "$module::"; done
