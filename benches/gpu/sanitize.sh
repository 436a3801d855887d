#!/usr/bin/env bash
# compute-sanitizer (memcheck, then racecheck) over every kernel and operation. Writes benches/gpu/sanitize.txt.
set -euo pipefail
cd "$(dirname "$0")/../.."
source benches/gpu/binaries.sh
for tool in memcheck racecheck; do
  GRISTMILL_TEST_DEVICE=cuda compute-sanitizer --tool "$tool" --error-exitcode 1 \
    "$test_binary" --test-threads 1 ops:: head:: sample:: attention:: decode:: backend::
done 2>&1 | tee benches/gpu/sanitize.txt
