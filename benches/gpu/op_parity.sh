#!/usr/bin/env bash
# Every kernel on the GPU against the CPU backend, each launch twice. Writes benches/gpu/op_parity.txt.
set -euo pipefail
cd "$(dirname "$0")/../.."
source benches/gpu/test_binary.sh
{
  nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
  GRISTMILL_TEST_DEVICE=cuda "$test_binary" --test-threads 1 ops:: head:: sample:: attention:: decode:: matmul::
} 2>&1 | tee benches/gpu/op_parity.txt
