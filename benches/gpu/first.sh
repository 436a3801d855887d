#!/usr/bin/env bash
# The first call on a card, within 10 minutes: whether it is right (op_parity.sh), then how fast, if time is left.
source "$(dirname "${BASH_SOURCE[0]}")/queue.sh"
begin queue.txt
for script in op_parity bench; do bash "benches/gpu/$script.sh"; done
bash benches/gpu/results.sh
all_passed
