#!/usr/bin/env python3
"""The speed part of RESULTS.md, out of what the benches printed: python3 benches/gpu/results.py bench.jsonl

A line of JSON is one figure: `bench`, `size`, `by`, what was counted (`unit`, `amount`), the `seconds` of each run, and more;
of several lines of one figure the last counts. Rates are the median run's. Standard library only.
"""

import json
import pathlib
import statistics
import sys

NOT_RUN = "not run yet"
OURS = "gristmill"
# What Python does in our place, the first that has a figure.
PYTHON = {"train": ["torch"], "grpo": ["trl", "transformers generate"]}
STAND_IN = "transformers generate"


def figures(text):
    """Figures by (bench, size, by), and reasons for those that are missing."""
    found, reasons = {}, {}
    for line in text.splitlines():
        if not line.startswith("{"):
            continue
        try:
            row = json.loads(line)
        except ValueError:
            continue  # Cut off with the part that wrote it.
        key = (row.get("bench"), row.get("size"), row.get("by", OURS))
        if "not_run" in row:
            reasons[key] = row["not_run"]
        else:
            found[key] = row
    return found, reasons


def seconds(row):
    return statistics.median(row["seconds"])


def rate(row):
    return row["amount"] / seconds(row)


def best(row):
    return row["amount"] / min(row["seconds"])


def named(found, bench):
    """Our figures of a bench, whatever their size says."""
    return [row for (name, _, by), row in found.items() if name == bench and by == OURS]


def bandwidth(found):
    """Bytes that the card copies a second, or None."""
    copies = named(found, "copy")
    return best(copies[-1]) if copies else None


class Row:
    """A row of the table: what was measured, and how far that is from the goal (1 is there, more is better)."""

    def __init__(self, work, goal, measured=NOT_RUN, ratio=None, beside="", met=None):
        self.work, self.goal, self.measured, self.ratio, self.beside, self.met = work, goal, measured, ratio, beside, met

    def cells(self):
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        met = self.met or ("" if self.ratio is None else "met" if self.ratio >= 1 else "not met")
        return [self.work, self.goal, self.measured, ratio, self.beside, met]


def training(found, reasons, size, goal):
    work = f"training step, {size}, 16 x 1,024 tokens"
    row = found.get(("train", size, OURS))
    if not row:
        return Row(work, f"{goal:,} tokens/s")
    measured = f"{rate(row):,.0f} tokens/s (best run {best(row):,.0f})"
    return Row(work, f"{goal:,} tokens/s", measured, rate(row) / goal, python(found, reasons, "train", size)[0])


def python(found, reasons, bench, size):
    """What Python came to, its figure and who made it."""
    for by in PYTHON[bench]:
        row = found.get((bench, size, by))
        if row:
            text = f"{seconds(row):.1f} s a step" if row["unit"] == "steps" else f"{rate(row):,.0f} tokens/s"
            return f"{by} {row['version']}: {text}", row, by
    for by in PYTHON[bench]:
        if (bench, size, by) in reasons:
            return f"{by}: not run: {reasons[bench, size, by]}", None, None
    return f"{PYTHON[bench][0]}: {NOT_RUN}", None, None


def against_torch(found, reasons, size):
    work = f"the same, {size}, against PyTorch (sdpa, compile, fused AdamW)"
    ours, (text, theirs, _) = found.get(("train", size, OURS)), python(found, reasons, "train", size)
    if not ours or not theirs:
        return Row(work, "1.3 times", beside=text)
    times = rate(ours) / rate(theirs)
    return Row(work, "1.3 times", f"{times:.2f} times", times / 1.3, text)


def attention(found, direction, goal):
    work, goal_text = f"attention {direction}, heads of 128, 4k causal", f"{goal} TFLOP/s"
    rows = [row for row in named(found, f"attention {direction}") if " of 128," in row["size"]]
    if not rows:
        return Row(work, goal_text)
    row = rows[-1]
    measured = f"{rate(row) / 1e12:.0f} TFLOP/s (best run {best(row) / 1e12:.0f})"
    return Row(work, goal_text, measured, rate(row) / 1e12 / goal)


KERNELS = [
    ("RMSNorm", "rms_norm"),
    ("RMSNorm with the residual", "add_rms_norm"),
    ("RMSNorm backward", "rms_norm_backward"),
    ("RoPE", "rope"),
    ("RoPE backward", "rope_backward"),
    ("SwiGLU", "swiglu"),
    ("SwiGLU backward", "swiglu_backward"),
    ("cross-entropy", "cross-entropy forward"),
    ("cross-entropy backward", "cross-entropy backward"),
    ("AdamW", "adamw"),
]


def kernel(found, work, bench):
    goal, rows, copied = "85% of copying", named(found, bench), bandwidth(found)
    if not rows or not copied:
        return Row(work, goal)
    share = rate(rows[-1]) / copied
    return Row(work, goal, f"{share:.0%} ({rate(rows[-1]) / 1e9:,.0f} GB/s)", share / 0.85)


def grpo(found, reasons, size):
    work = f"GRPO step, {size}, 64 prompts x 16 completions x 512 tokens, rollouts included"
    ours, (text, theirs, by) = found.get(("grpo", size, OURS)), python(found, reasons, "grpo", size)
    if not ours:
        return Row(work, "3 times TRL", beside=text)
    measured = f"{seconds(ours):.1f} s a step"
    if ours.get("completion_tokens") is not None:
        measured += f", completions of {ours['completion_tokens']:.0f} tokens"
    if not theirs:
        return Row(work, "3 times TRL", measured, beside=text, met="not known")
    times = seconds(theirs) / seconds(ours)
    if by == STAND_IN:
        text += f" (in TRL's place: {reasons.get(('grpo', size, 'trl'), 'it has no figure')})"
    met = None if by == "trl" else f"{'met' if times >= 3 else 'not met'}, against the stand-in"
    return Row(work, "3 times TRL", f"{measured}: {times:.2f} times", times / 3, text, met)


def decoding(found, size):
    work, goal = f"decode, {size}, 256 sequences", "60% of the limit by bytes"
    row, copied = found.get(("decode", size, OURS)), bandwidth(found)
    if not row:
        return Row(work, goal)
    if not copied:
        return Row(work, goal, f"{rate(row):,.0f} tokens/s", met="not known: copying was not measured")
    limit = row["amount"] * copied / row["bytes"]
    share = rate(row) / limit
    return Row(work, goal, f"{share:.0%}: {rate(row):,.0f} of {limit:,.0f} tokens/s", share / 0.6)


def taken(row):
    """Bytes of memory, by the account that says more."""
    return max(row["allocated_bytes"], row["device_bytes"])


def scoring(found, size):
    work, goal = "logprob pass over 16k tokens x 152k vocabulary, memory beyond the model's", "at most 0.7 GB"
    row, head = found.get(("scoring", size, OURS)), found.get(("scoring, head alone", size, OURS))
    if not row:
        return Row(work, goal)
    measured = f"{taken(row) / 1e9:.2f} GB" + (f" (the head alone {taken(head) / 1e9:.2f})" if head else "")
    return Row(work, goal, measured, 0.7e9 / taken(row), "10 GB for f32 logits")


def goals(found, reasons):
    rows = [
        training(found, reasons, "0.5B", 160_000),
        training(found, reasons, "1.5B", 62_000),
        against_torch(found, reasons, "0.5B"),
        against_torch(found, reasons, "1.5B"),
        attention(found, "forward", 300),
        attention(found, "backward", 250),
    ]
    rows += [kernel(found, work, bench) for work, bench in KERNELS]
    return rows + [grpo(found, reasons, "0.5B"), decoding(found, "0.5B"), scoring(found, "0.5B")]


UNITS = {"bytes": ("GB/s", 1e9), "flops": ("TFLOP/s", 1e12), "tokens": ("tokens/s", 1), "steps": ("s a step", 1)}


def everything(found):
    copied, squares = bandwidth(found), named(found, "product")
    multiplied = best(squares[-1]) if squares else None
    for row in found.values():
        if "seconds" not in row:
            continue
        unit, scale = UNITS[row["unit"]]
        of, share = {"bytes": ("of copying", copied), "flops": ("of the square product", multiplied)}.get(row["unit"], ("", None))
        # Of steps the seconds are told, of all else the rate.
        value = (lambda s: s) if row["unit"] == "steps" else (lambda s: row["amount"] / s / scale)
        number = ",.1f" if scale > 1 or row["unit"] == "steps" else ",.0f"
        runs = ", ".join(format(value(s), number) for s in row["seconds"])
        memory = f"{row['memory_used'] / 2**30:.1f} GiB" if row.get("memory_used") else ""
        part = f"{rate(row) / share:.0%} {of}" if share else ""
        median = f"{value(seconds(row)):{number}} {unit}"
        yield [row["bench"], row["size"], " ".join([row.get("by", OURS), row.get("version", "")]).strip(), median, part, runs, memory]


def table(heads, rows):
    print("| " + " | ".join(heads) + " |")
    print("|" + " --- |" * len(heads))
    for row in rows:
        print("| " + " | ".join(row) + " |")


def main():
    path = pathlib.Path(sys.argv[1])
    found, reasons = figures(path.read_text(errors="replace") if path.is_file() else "")
    device = next((row for (bench, *_), row in found.items() if bench == "device"), None)
    name = device["name"] if device else None
    print(f"On: {name}, {device['memory'] / 1e9:.0f} GB" if device else f"On: {NOT_RUN}")
    if name and "H100" not in name:
        print(f"\nThe goals were stated for an H100; this is another card ({name}).")
    print("\nMedians of the runs. Shares are of what the card copies, or multiplies in one large product, measured in the same run.\n")
    measured = list(everything(found))
    if measured:
        table(["all that was measured", "size", "by", "median", "share", "runs", "memory used"], measured)
    print("\n### The goals\n")
    heads = ["work", "goal", "measured", "measured / goal", "beside, on the same card", "met"]
    table(heads, [row.cells() for row in goals(found, reasons)])


if __name__ == "__main__":
    main()
