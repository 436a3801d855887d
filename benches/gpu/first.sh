#!/usr/bin/env bash
# The first call on a card, within 10 minutes: whether it is right (op_parity.sh), then how fast, if time is left.
source "$(dirname "${BASH_SOURCE[0]}")/queue.sh"
begin queue.txt
# However slow the tests are, some of the time is speed's.
left=$((GRISTMILL_DEADLINE - $(date +%s)))
GRISTMILL_DEADLINE=$((GRISTMILL_DEADLINE - left / 4)) bash benches/gpu/op_parity.sh
bash benches/gpu/bench.sh
bash benches/gpu/results.sh
all_passed
