#!/usr/bin/env python3
"""gristmill's math rule and Math-Verify on the same completions, one core each, in one run.

    pip install 'math-verify[antlr4_13_2]'
    python benches/math_verify.py [--data DIR] [--limit N] [--bench BINARY]

Prints completions per second of both, the ratio, and the agreement of each with the
trusted labels. Both run on the same core, one after the other, in processor time, so that
other work on the machine does not count; the whole response goes in, the verdict comes out. Math-Verify is called as its documentation says: gold and
response parsed with its default extraction, then verified.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time


def gsm8k(data):
    with open(data / "gsm8k_example_model_solutions.jsonl") as file:
        for line in file:
            row = json.loads(line)
            gold = row["ground_truth"].rsplit("A:", 1)[1].strip()
            for model in ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification"):
                yield row[model]["solution"], gold, row[model]["is_correct"]


def math(data):
    with open(data / "qwen_math_cot_100x8.jsonl") as file:
        for line in file:
            row = json.loads(line)
            for completion, score in zip(row["code"], row["score"]):
                yield completion, row["gt"], score


def ours(rows, bench):
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        for completion, gold, _ in rows:
            file.write(json.dumps({"completion": completion, "gold": gold}) + "\n")
        file.flush()
        env = dict(os.environ, GRISTMILL_PAIRS=file.name)
        command = [bench] if bench else ["cargo", "bench", "--quiet", "--bench", "math_rule"]
        out = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(out.strip().splitlines()[-1])


def theirs(rows):
    # This file has the peer's name: do not import it in the peer's place.
    here = pathlib.Path(__file__).resolve().parent
    sys.path[:] = [p for p in sys.path if pathlib.Path(p or ".").resolve() != here]
    from math_verify import parse, verify

    def grade(completion, gold):
        return bool(verify(parse(f"${gold}$"), parse(completion)))

    for completion, gold, _ in rows[:20]:
        grade(completion, gold)
    correct, each = [], []
    start = time.process_time()
    for completion, gold, _ in rows:
        begin = time.process_time()
        correct.append(grade(completion, gold))
        each.append(time.process_time() - begin)
    seconds = time.process_time() - start
    each.sort()
    return {
        "per_second": len(rows) / seconds,
        "p50_us": each[len(each) // 2] * 1e6,
        "p999_us": each[int(len(each) * 0.999)] * 1e6,
        "correct": correct,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = pathlib.Path(__file__).resolve().parent.parent
    parser.add_argument("--data", type=pathlib.Path, default=root.parent / "shared" / "data")
    parser.add_argument("--limit", type=int, default=2000)
    parser.add_argument("--bench", help="the built bench binary; by default cargo bench builds it")
    args = parser.parse_args()
    if not args.data.is_dir():
        sys.exit(f"{args.data}: no such directory\nhint: pass --data")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    for name, source in (("GSM8K", gsm8k), ("MATH", math)):
        rows = list(source(args.data))[: args.limit]
        labels = [bool(label) for _, _, label in rows]
        a, b = ours(rows, args.bench), theirs(rows)
        print(f"{name}: {len(rows)} completions, one core each")
        for who, r in (("gristmill", a), ("Math-Verify", b)):
            agree = sum(x == y for x, y in zip(r["correct"], labels))
            print(
                f"  {who:12} {r['per_second']:12,.0f} /s   p50 {r['p50_us']:9.1f} µs   "
                f"p99.9 {r['p999_us']:10.1f} µs   agrees with {agree}/{len(rows)} labels"
            )
        print(f"  ratio {a['per_second'] / b['per_second']:.0f}x; two threads do {a['two_threads']:.2f} times as much as one")


if __name__ == "__main__":
    main()
