#!/usr/bin/env python3
"""Compares two runs of the recipe r1_mini, the second on another device: python3 benches/gpu/r1_mini.py CPU_RUN GPU_RUN

Same data in the same order, other roundings (bf16 activations): losses of supervised stages must follow each other
step by step, smoothed; what is sampled parts at the first token that differs, so rewards and evaluations must agree as
two seeds of the CPU do. Standard library only; figures come from the manifests and the last checkpoints' sessions.
"""

import json
import pathlib
import sys

# Relative difference of the smoothed loss, anywhere past the first smoothed point.
LOSS = 0.05
# Difference of the mean reward over the last quarter of the steps.
REWARD = 0.10
# Difference of pass@1 of any model.
PASS = 0.08
# Steps that a point of a smoothed curve is the mean of.
WINDOW = 25


def stages(run):
    """Folders of a run by the stage's name."""
    folders = (path for path in pathlib.Path(run).iterdir() if (path / "_manifest.json").is_file())
    return {path.name.split("_", 1)[1]: path for path in folders}


def steps(folder):
    """What every optimizer step of a training stage measured; nothing for other stages."""
    sessions = sorted(folder.glob("checkpoints/step-*/session.json"))
    return json.loads(sessions[-1].read_text())["steps"] if sessions else []


def smoothed(values):
    if len(values) < WINDOW:
        return [sum(values) / len(values)]
    return [sum(values[i : i + WINDOW]) / WINDOW for i in range(len(values) - WINDOW + 1)]


def compare(name, found, wanted, tolerance, relative=False):
    difference = abs(found - wanted) / (max(abs(wanted), 1e-9) if relative else 1.0)
    within = difference <= tolerance
    print(f"{'ok  ' if within else 'FAIL'} {name}: {found:.4f} for {wanted:.4f}, difference {difference:.4f} of {tolerance}")
    return within


def main():
    ours, theirs = stages(sys.argv[2]), stages(sys.argv[1])
    good = set(ours) == set(theirs)
    print(f"{'ok  ' if good else 'FAIL'} stages: {len(ours)} for {len(theirs)}")
    for name, folder in theirs.items():
        if name not in ours:
            continue
        wanted, found = steps(folder), steps(ours[name])
        if not wanted:
            continue
        if len(wanted) != len(found):
            print(f"FAIL {name}: {len(found)} steps for {len(wanted)}")
            good = False
            continue
        rewards = [[step.get("reward_mean") for step in run] for run in (found, wanted)]
        if any(value is not None for value in rewards[1]):
            quarter = len(wanted) // 4
            means = []
            for run in rewards:
                last = [value for value in run[-quarter:] if value is not None]
                means.append(sum(last) / len(last))
            good &= compare(f"{name}, mean reward of the last {quarter} steps", *means, REWARD)
        else:
            curves = [smoothed([step["loss"] for step in run]) for run in (found, wanted)]
            worst = max(zip(*curves), key=lambda pair: abs(pair[0] - pair[1]) / max(abs(pair[1]), 1e-9))
            good &= compare(f"{name}, smoothed loss where it differs most", *worst, LOSS, relative=True)
    figures = [json.loads((run["eval"] / "_manifest.json").read_text())["facts"]["figures"] for run in (ours, theirs)]
    for key in figures[1]:
        if key.endswith(".pass_at_1"):
            good &= compare(key, figures[0][key], figures[1][key], PASS)
    print(f"r1_mini: {'the curves agree' if good else 'the curves do NOT agree'}")
    sys.exit(0 if good else 1)


main()
