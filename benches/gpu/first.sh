#!/usr/bin/env bash
# The first call on a card, within 10 minutes: whether it is right (op_parity.sh), then how fast (bench.sh), the most valuable
# figures first; `bench.sh` alone goes on with the others. Ends with the table of goals.
source "$(dirname "${BASH_SOURCE[0]}")/queue.sh"
begin queue.txt
# However slow the tests are, more than half of the time is speed's.
left=$((GRISTMILL_DEADLINE - $(date +%s)))
GRISTMILL_DEADLINE=$((GRISTMILL_DEADLINE - left * 11 / 20)) bash benches/gpu/op_parity.sh
bash benches/gpu/bench.sh
bash benches/gpu/results.sh
sed -n '/^### The goals/,$p' "$results/RESULTS.md"
all_passed
