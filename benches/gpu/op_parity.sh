#!/usr/bin/env bash
# Every kernel, operation and product on the GPU against the CPU backend, kernels twice each; then the decoder: gradients,
# training curves, decoding, graphs, the same bits twice. Writes op_parity.txt.
source "$(dirname "${BASH_SOURCE[0]}")/queue.sh"
begin op_parity.txt
part "the machine" 120 op_parity.txt bash -c 'nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader; '"$gristmill_binary"' doctor'
tests "opening the device" 120 op_parity.txt opened::
tests "kernels" 150 op_parity.txt ops:: head:: sample:: decode:: attention:: product::
tests "products of cuBLASLt" 60 op_parity.txt matmul::
tests "operations" 120 op_parity.txt backend::
tests "models" 150 op_parity.txt model:: r1_mini:: recording::
tests "the benches, over a few tokens" 60 op_parity.txt bench::
tests "several GPUs" 60 op_parity.txt peers::
alone op_parity.txt
