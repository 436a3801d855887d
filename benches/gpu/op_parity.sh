#!/usr/bin/env bash
# Every kernel, operation and product on the GPU against the CPU backend, kernels twice each; then the decoder: gradients,
# a training curve, decoding, the same bits twice. Writes benches/gpu/op_parity.txt.
set -euo pipefail
cd "$(dirname "$0")/../.."
source benches/gpu/binaries.sh
{
  nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
  GRISTMILL_TEST_DEVICE=cuda "$test_binary" --test-threads 1 --nocapture \
    ops:: head:: sample:: attention:: decode:: matmul:: backend:: model:: recording::
} 2>&1 | tee benches/gpu/op_parity.txt
