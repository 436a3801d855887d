#!/usr/bin/env bash
# R1's recipe in miniature on the card, beside the CPU's run of it: loss and reward curves and evaluations within the
# tolerances that r1_mini.py states. Writes r1_mini.txt. The CPU's run comes with the pack (pack.sh); else it is made
# here, after the card's. Both go on where an earlier call left them (GRISTMILL_RUNS, target/gpu-runs).
source "$(dirname "${BASH_SOURCE[0]}")/queue.sh"
begin r1_mini.txt
runs=${GRISTMILL_RUNS:-target/gpu-runs}
part "r1_mini on the card" 540 r1_mini.txt "$gristmill_binary" run r1_mini --set device=cuda --out "$runs/r1_mini_cuda"
cpu=benches/gpu/r1_mini_cpu
if [ ! -d "$cpu" ]; then
  cpu=$runs/r1_mini_cpu
  part "r1_mini on the CPU" 540 r1_mini.txt "$gristmill_binary" run r1_mini --out "$cpu"
fi
part "r1_mini, the card beside the CPU" 30 r1_mini.txt python3 benches/gpu/r1_mini.py "$cpu" "$runs/r1_mini_cuda"
