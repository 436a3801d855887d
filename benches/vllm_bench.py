#!/usr/bin/env python3
"""Time of `gristmill generate` beside vLLM's own benchmark client, on the same server and requests.

    python3 benches/vllm_bench.py --vllm ENVIRONMENT [--gristmill target/release/gristmill]
        [--model FOLDER | --address http://…] [--requests 512] [--tokens 128] [--concurrency 64] [--rounds 3] [--stream]

ENVIRONMENT is a Python environment with vLLM, as `tests/vllm/run` makes one for the CPU, and pandas. Without --model the
server gets a tiny one with random weights; --address takes a server that runs. Both clients send the same prompts
to `/v1/completions`, greedily, ending at --tokens whatever comes, with at most --concurrency in flight; each
round runs both, in turn first, on prompts of its own, so that neither finds the other's in the prefix cache.
vLLM's time is the one its client reports, without its start; ours is given twice: the stage alone, and the whole
command, which starts, asks the server what it is, writes Parquet and commits.
"""

import argparse
import contextlib
import json
import os
import pathlib
import random
import socket
import statistics
import subprocess
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
WORDS = "if so many apples cost seven pounds how much do nine of them and two pears cost in all".split()


def wait_until_healthy(address, server):
    for _ in range(600):
        if server.poll() is not None:
            raise SystemExit("error: the server ended; see server.log")
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{address}/health", timeout=2)
            return
        time.sleep(0.5)
    raise SystemExit("error: the server was not ready within five minutes")


@contextlib.contextmanager
def serving(options, folder):
    """A server of --model, or of a tiny one; or the one at --address."""
    if options.address:
        yield options.address, options.model
        return
    model = options.model
    if model is None:
        model = folder / "model"
        subprocess.run([options.vllm / "bin/python", ROOT / "tests/vllm/make_tiny_model.py", model, "0"], check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [options.vllm / "bin/vllm", "serve", model, "--served-model-name", "bench", "--port", str(port)]
    command += ["--host", "127.0.0.1", "--dtype", "float32", "--enforce-eager", "--max-num-batched-tokens", "16384"]
    settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    with open(folder / "server.log", "w") as log:
        server = subprocess.Popen(command, env={**os.environ, **settings}, stdout=log, stderr=log)
    try:
        wait_until_healthy(address, server)
        yield address, model
    finally:
        server.terminate()
        server.wait()


def run(command, log, **settings):
    """A command whose output is kept, and shown where it fails."""
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **settings)
    log.write_text(done.stdout)
    if done.returncode != 0:
        raise SystemExit(f"{done.stdout[-3000:]}\nerror: exit {done.returncode}: {' '.join(map(str, command))}")


def theirs(options, address, model, prompts, folder):
    rows = folder / "prompts.jsonl"
    rows.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    command = [options.vllm / "bin/vllm", "bench", "serve", "--backend", "openai", "--base-url", address]
    command += ["--model", "bench", "--tokenizer", model, "--dataset-name", "custom", "--dataset-path", rows]
    command += ["--skip-chat-template", "--custom-output-len", options.tokens, "--num-prompts", len(prompts)]
    command += ["--disable-shuffle", "--ignore-eos", "--temperature", "0", "--max-concurrency", options.concurrency]
    command += ["--num-warmups", 0, "--disable-tqdm", "--save-result", "--result-dir", folder, "--result-filename", "theirs.json"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    run(command, folder / "theirs.log", env=environment)
    result = json.loads((folder / "theirs.json").read_text())
    assert result["completed"] == len(prompts), f"vllm bench: {result['completed']} of {len(prompts)} requests completed"
    return result["duration"], result["total_output_tokens"]


def ours(options, address, prompts, folder, number):
    rows = folder / "questions.jsonl"
    rows.write_text("".join(json.dumps({"question": prompt, "answer": "0"}) + "\n" for prompt in prompts))
    recipe, out = folder / "recipe.toml", folder / f"run{number}"
    recipe.write_text(f"""
name = "vllm-bench"
seed = 1
[stages.prompts]
sources = [{{ path = "{rows}", name = "bench" }}]
[stages.generate]
samples = 1
sampling = {{ temperature = 0.0, max_tokens = {options.tokens} }}
[stages.generate.engine]
kind = "vllm"
endpoints = ["{address}"]
api = "completions"
template = "plain"
max_concurrency = {options.concurrency}
stream = {str(options.stream).lower()}
extra_body = {{ ignore_eos = true }}
""")
    began = time.perf_counter()
    run([options.gristmill, "run", recipe, "--out", out], folder / "ours.log")
    whole = time.perf_counter() - began
    lines = [json.loads(line) for line in (out / "run.jsonl").read_text().splitlines()]
    stage = next(line for line in lines if line.get("stage") == "generate" and "seconds" in line)
    assert stage["counts"]["completion_tokens"] == options.tokens * len(prompts), f"gristmill got {stage['counts']}"
    return stage["seconds"], whole


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--vllm", type=pathlib.Path, required=True)
    parser.add_argument("--gristmill", default=ROOT / "target/release/gristmill")
    parser.add_argument("--model")
    parser.add_argument("--address")
    parser.add_argument("--requests", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stream", action="store_true", help="gristmill streams, as vLLM's client always does")
    options = parser.parse_args()
    if options.address and not options.model:
        parser.error("--address needs --model: the folder whose tokenizer vLLM's client counts with")

    with tempfile.TemporaryDirectory() as folder, serving(options, pathlib.Path(folder)) as (address, model):
        folder = pathlib.Path(folder)
        words = random.Random(1)

        def prompts():
            return [" ".join(words.choices(WORDS, k=40)) for _ in range(options.requests)]

        theirs(options, address, model, prompts()[: options.concurrency], folder)  # the server's own warm-up
        stage_ratios, whole_ratios = [], []
        print("| round | vllm bench serve | gristmill's stage | whole command | stage / vllm | whole / vllm |\n|---|---|---|---|---|---|")
        for number in range(options.rounds):
            clients = [lambda: theirs(options, address, model, prompts(), folder), lambda: ours(options, address, prompts(), folder, number)]
            order = (0, 1) if number % 2 == 0 else (1, 0)
            times = {which: clients[which]() for which in order}
            (duration, tokens), (stage, whole) = times[0], times[1]
            assert tokens == options.requests * options.tokens, f"vllm bench got {tokens} tokens"
            stage_ratios.append(stage / duration)
            whole_ratios.append(whole / duration)
            print(f"| {number + 1} | {duration:.2f} s | {stage:.2f} s | {whole:.2f} s | {stage / duration:.3f} | {whole / duration:.3f} |", flush=True)
        print(f"\nmedian: the stage {statistics.median(stage_ratios):.3f}, the whole command {statistics.median(whole_ratios):.3f} times vllm bench serve")


main()
