#!/usr/bin/env python3
"""Loads a model as any user of transformers would, samples greedily, and compares
with what gristmill sampled from it at temperature 0.

    python3 tests/python/same_greedy_tokens.py MODEL COMPLETIONS.parquet PROMPTS.parquet
"""

import sys

import pyarrow.parquet as parquet
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main():
    folder, completions, prompts = sys.argv[1:4]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    asked = {row["prompt_id"]: row["messages"] for row in parquet.read_table(prompts).to_pylist()}
    rows = parquet.read_table(completions).to_pylist()
    assert rows, "there are no completions"
    differ = 0
    for row in rows:
        text = tokenizer.apply_chat_template(asked[row["prompt_id"]], add_generation_prompt=True, tokenize=False)
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
        assert ids[0].tolist() == row["prompt_token_ids"], (text, ids[0].tolist(), row["prompt_token_ids"])
        with torch.inference_mode():
            out = model.generate(ids, do_sample=False, max_new_tokens=len(row["token_ids"]))
        if out[0, ids.shape[1]:].tolist() != row["token_ids"]:
            differ += 1
            print(f"differs: {text!r}: {tokenizer.decode(out[0, ids.shape[1]:])!r} against {row['text']!r}")
    print(f"{len(rows) - differ} of {len(rows)} completions have the same tokens")
    sys.exit(1 if differ else 0)


main()
