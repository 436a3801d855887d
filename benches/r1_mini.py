#!/usr/bin/env python3
"""Runs R1's recipe in miniature with several seeds and prints the means as the README's tables.

    python3 benches/r1_mini.py [--seeds 1 2 3] [--out runs] [--gristmill target/release/gristmill] [key=value …]

needs polars. A run that is finished is not run again: only its tables are read. `key=value` goes to `--set`.
"""

import argparse
import pathlib
import subprocess

import polars as pl


def stage(run, name):
    found = [path for path in run.iterdir() if path.is_dir() and path.name.split("_", 1)[-1] == name]
    return found[0]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs"))
    parser.add_argument("--gristmill", default="target/release/gristmill")
    parser.add_argument("set", nargs="*")
    options = parser.parse_args()
    runs = []
    for seed in options.seeds:
        out = options.out / f"r1_mini_seed{seed}"
        sets = [argument for value in [f"seed={seed}", *options.set] for argument in ("--set", value)]
        subprocess.run([options.gristmill, "run", "r1_mini", "--out", str(out), *sets], check=True)
        runs.append(out)

    evals = pl.concat(pl.read_parquet(stage(run, "eval") / "evals.parquet") for run in runs)
    shown = {"pass_at_1": "pass@1", "cons_at_k": "cons@16", "score/format": "format", "score/language": "language"}
    table = evals.filter(pl.col("slice") == "all").group_by("model", maintain_order=True).agg(pl.col(*shown).mean())
    print("\n| model | " + " | ".join(shown.values()) + " |\n|" + "---|" * (len(shown) + 1))
    for row in table.iter_rows():
        print(f"| {row[0]} | " + " | ".join(f"{value:.3f}" for value in row[1:]) + " |")

    claims = pl.concat(pl.read_parquet(stage(run, "claims") / "claims.parquet") for run in runs)
    table = claims.group_by("claim", maintain_order=True).agg(
        pl.col("left", "right").mean(), pl.col("at_least").first(), pl.col("margin").min().alias("least"), pl.col("holds").sum()
    )
    print("\n| claim | left | right | wanted | least margin of a seed | holds |\n|---|---|---|---|---|---|")
    for claim, left, right, wanted, least, holds in table.iter_rows():
        verdict = "yes" if left - right >= wanted - 1e-9 else "**no**"
        print(f"| {claim} | {left:.3f} | {right:.3f} | {wanted:+.3f} | {least:+.3f} | {verdict}; {holds} of {len(runs)} seeds |")


main()
