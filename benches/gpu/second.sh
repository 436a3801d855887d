#!/usr/bin/env bash
# The second call on a card, within 10 minutes: the figures that the first had no time for (bench.sh), memory and races
# (sanitize.sh), then the recipe (r1_mini.sh) as far as it comes; another call goes on with it.
source "$(dirname "${BASH_SOURCE[0]}")/queue.sh"
touch "$results/queue.txt"
for script in bench sanitize r1_mini; do bash "benches/gpu/$script.sh"; done
bash benches/gpu/results.sh
all_passed
