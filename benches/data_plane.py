"""group, select and corpus on N verdict rows, beside the same work as a hand-written polars query.

    cargo build --release
    python benches/data_plane.py [--rows 10000000] [--dir DIR] [--only STAGE]      # needs polars; 4 GB of disk

Each command and each query runs in a process of its own; wall seconds and peak memory are the
kernel's account of it (wait4). The last column is gristmill's time over polars's. What both wrote
is compared: rows, and sums over the columns that the stage decides.
"""
import argparse, importlib.metadata, os, pathlib, shutil, subprocess, sys, tempfile, time


GROUP = 16
SHARD = 500_000


def make(root: pathlib.Path, rows: int) -> None:
    """Prompts, completions and verdicts in gristmill's columns: ids as random as hashes, texts of
    30 words out of 4,096, so that they compress about as English does."""
    import polars as pl

    letters = pl.Series(["ba", "cor", "del", "est", "fi", "gra", "hol", "in", "jum", "ka", "lo", "men", "nor", "op", "pri", "qua"])
    code = pl.Series(range(4096))
    words = letters.gather(code // 256) + letters.gather(code // 16 % 16) + letters.gather(code % 16)
    for name in ("prompts", "completions", "verdicts"):
        (root / name).mkdir(parents=True, exist_ok=True)
    prompts = rows // GROUP
    digits = lambda index, seed: (index.hash(seed) % 10**16).cast(pl.String).str.pad_start(16, "0")
    ids = lambda index: pl.concat_str(digits(index, 1), digits(index, 2))
    null = lambda kind: pl.lit(None, dtype=kind)
    turn = pl.struct(role=pl.lit("user"), content=pl.format("What is {} plus {}?", pl.col("i"), pl.col("i") + 7))
    pl.DataFrame({"i": pl.arange(0, prompts, eager=True)}).select(
        prompt_id=ids(pl.col("i")), messages=pl.concat_list(turn), gold=(2 * pl.col("i") + 7).cast(pl.String),
        solution=null(pl.String), verification=null(pl.String), domain=pl.when(pl.col("i") % 3 == 0).then(pl.lit("math")).otherwise(pl.lit("code")),
        language=pl.lit("en"), difficulty=null(pl.Float64), source=pl.lit("bench"), license=pl.lit("CC0-1.0"), extra=null(pl.String),
    ).write_parquet(root / "prompts/part-00000.parquet", row_group_size=65_536)
    for shard, start in enumerate(range(0, rows, SHARD)):
        r = pl.DataFrame({"r": pl.arange(start, min(start + SHARD, rows), eager=True)}).with_columns(
            i=pl.col("r") // GROUP, s=(pl.col("r") % GROUP).cast(pl.UInt32), good=(pl.col("r").hash(7) % 10) < 4)
        completion = ids(pl.col("r") + 10**12)
        # Common words are common: the product of two uniform numbers picks low indices more often.
        word = lambda k: (pl.col("r").hash(100 + k) % 64) * (pl.col("r").hash(200 + k) % 64)
        spoken = r.select(pl.col("r"), *(word(k).alias(f"w{k}") for k in range(30)))
        spoken = pl.DataFrame([spoken["r"], *(words.gather(spoken[f"w{k}"]).alias(f"w{k}") for k in range(30))])
        spoken = spoken.select(pl.concat_str([f"w{k}" for k in range(30)], separator=" "))["w0"]
        r = r.with_columns(spoken=spoken)
        text = pl.format("<think>{}</think> The answer is {}.", pl.col("spoken"), pl.col("r"))
        r.select(
            prompt_id=ids(pl.col("i")), sample_index=pl.col("s"), completion_id=completion, text=text,
            token_ids=null(pl.List(pl.UInt32)), logprobs=null(pl.List(pl.Float32)), prompt_token_ids=null(pl.List(pl.UInt32)),
            finish_reason=pl.lit("stop"), stop_reason=null(pl.String), prompt_tokens=null(pl.UInt32),
            completion_tokens=(pl.col("r") % 90 + 10).cast(pl.UInt32), engine=pl.lit("replay"), model=pl.lit("bench"),
            model_digest=pl.lit("0"), policy_step=pl.lit(0, dtype=pl.UInt64), seed=null(pl.UInt64), sampling=pl.lit("{}"),
            label=null(pl.String), error=null(pl.String),
        ).write_parquet(root / f"completions/part-{shard:05}.parquet", row_group_size=65_536)
        outcome = pl.when(pl.col("good")).then(pl.lit("correct")).otherwise(pl.lit("wrong"))
        reward = pl.col("good").cast(pl.Float64)
        score = pl.struct(rule=pl.lit("accuracy"), score=reward, outcome=outcome, reason=pl.lit("equal"), evidence=null(pl.String))
        r.select(
            prompt_id=ids(pl.col("i")), sample_index=pl.col("s"), completion_id=completion, reward=reward, outcome=outcome,
            reason=pl.lit("equal"), scores=pl.concat_list(score), rules_digest=pl.lit("0"),
        ).write_parquet(root / f"verdicts/part-{shard:05}.parquet", row_group_size=65_536)


def query(kind: str, root: pathlib.Path) -> None:
    """What a person would write in polars for the same result."""
    import polars as pl

    out = root / f"polars_{kind}.parquet"
    if kind == "group":
        completions = pl.scan_parquet(root / "completions/*.parquet")
        verdicts = pl.scan_parquet(root / "verdicts/*.parquet").drop("prompt_id", "sample_index")
        prompts = pl.scan_parquet(root / "prompts/*.parquet").select("prompt_id", "domain", "language", "difficulty")
        over = ["prompt_id", "policy_step"]
        reward = pl.col("reward")
        (completions.drop("engine", "seed", "error", "label", "stop_reason", "prompt_tokens")
            .join(verdicts, on="completion_id", maintain_order="left").join(prompts, on="prompt_id", maintain_order="left")
            .with_columns(group_size=pl.len().over(over), reward_mean=reward.mean().over(over), reward_std=reward.std(ddof=0).over(over),
                          pass_rate=(pl.col("outcome") == "correct").mean().over(over))
            .with_columns(advantage=(reward - pl.col("reward_mean")) / (pl.col("reward_std") + 1e-6))
            .sink_parquet(out, compression="zstd", compression_level=3))
    elif kind == "select":
        (pl.scan_parquet(root / "out_group/1_group/*.parquet").filter(pl.col("outcome") == "correct")
            .with_columns(rank=pl.col("completion_tokens").rank("ordinal").over("prompt_id")).filter(pl.col("rank") <= 2).drop("rank")
            .sink_parquet(out, compression="zstd", compression_level=3))
    else:
        prompts = pl.scan_parquet(root / "prompts/*.parquet").select("prompt_id", "messages", "source", "license")
        rows = pl.scan_parquet(root / "out_select/1_select/*.parquet").join(prompts, on="prompt_id")
        parts = pl.col("text").str.split_exact("</think>", 1)
        turn = pl.concat_list(pl.struct(role=pl.lit("assistant"), content=pl.col("text")))
        (rows.with_columns(messages=pl.concat_list("messages", turn), reasoning=parts.struct[0].str.strip_prefix("<think>"),
                           answer=parts.struct[1].str.strip_chars(), track=pl.lit("reasoning"))
            .drop("token_ids", "logprobs", "prompt_token_ids", "scores").collect().sample(fraction=1.0, shuffle=True, seed=1)
            .write_parquet(out, compression="zstd", compression_level=3))


def check(kind: str, root: pathlib.Path) -> None:
    """That both wrote the same rows with the same values, up to rounding."""
    import polars as pl

    number = {"group": ["reward", "advantage", "reward_mean", "pass_rate", "group_size"], "select": ["completion_tokens", "sample_index"],
              "corpus": ["completion_tokens", "sample_index"]}[kind]
    text = {"group": ["domain", "text"], "select": ["completion_id", "text"], "corpus": ["answer", "reasoning"]}[kind]
    account = lambda files: (
        pl.scan_parquet(files).select(pl.len().alias("rows"), *(pl.col(c).cast(pl.Float64).sum() for c in number), *(pl.col(c).str.len_bytes().sum() for c in text))
        .collect(engine="streaming").row(0))
    ours, theirs = account(root / f"out_{kind}/1_{kind}/**/*.parquet"), account(root / f"polars_{kind}.parquet")
    if any(abs(a - b) > 1e-9 * max(abs(a), abs(b)) + 1e-3 for a, b in zip(ours, theirs)):
        sys.exit(f"{kind}: gristmill and polars differ: {ours} and {theirs}")


def timed(command: list[str]) -> tuple[float, float]:
    start = time.monotonic()
    # This process stays small: a child's account of its peak begins with what its parent held.
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        if status != 0:
            said.seek(0)
            sys.exit(f"failed: {' '.join(command)}\n{said.read().decode()[-2000:]}")
    return time.monotonic() - start, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--dir", type=pathlib.Path, default=pathlib.Path("target/bench-data-plane"))
    parser.add_argument("--binary", default="target/release/gristmill")
    parser.add_argument("--only", choices=["group", "select", "corpus"], help="this stage alone, on what an earlier bench left")
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    root = args.dir / str(args.rows)
    if args.step:
        step, kind = args.step
        return {"make": lambda: make(root, args.rows), "query": lambda: query(kind, root), "check": lambda: check(kind, root)}[step]()
    step = lambda *which: [sys.executable, __file__, "--rows", str(args.rows), "--dir", str(args.dir), "--step", *which]
    if not (root / "done").exists():
        timed(step("make", "all"))
        (root / "done").touch()
    stages = {
        "group": ["group", "--prompts", f"{root}/prompts", "--completions", f"{root}/completions", "--verdicts", f"{root}/verdicts"],
        "select": ["select", "--groups", f"{root}/out_group/1_group", "--set", "policy=shortest", "--set", "per_prompt=2"],
        "corpus": ["corpus", "--set", f'tracks=[{{name="reasoning",groups="{root}/out_select/1_select",prompts="{root}/prompts"}}]'],
    }
    print(f"{args.rows} verdict rows, {os.cpu_count()} cores, polars {importlib.metadata.version('polars')}")
    print(f"{'stage':8} {'gristmill s':>12} {'MiB':>7} {'polars s':>10} {'MiB':>7} {'ratio':>6}")
    for kind, command in stages.items():
        if args.only not in (None, kind):
            continue
        out = root / f"out_{kind}"
        shutil.rmtree(out, ignore_errors=True)
        ours, our_memory = timed([args.binary, *command, "--output", str(out)])
        theirs, their_memory = timed(step("query", kind))
        timed(step("check", kind))
        print(f"{kind:8} {ours:12.1f} {our_memory:7.0f} {theirs:10.1f} {their_memory:7.0f} {ours / theirs:6.2f}", flush=True)


if __name__ == "__main__":
    main()
