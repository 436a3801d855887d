#!/usr/bin/env python3
"""read_corpus.py DIR: reads a corpus with polars, pyarrow and Hugging Face datasets, and
checks what they find against the manifest and the card. Needs no gristmill."""

import json
import pathlib
import re
import sys

import datasets
import polars
import pyarrow.parquet


def expected(folder):
    """Rows by split, out of the manifest's list of files."""
    rows = {}
    for shard in json.loads((folder / "_manifest.json").read_text())["shards"]:
        split = pathlib.PurePath(shard["file"]).name.split("-")[0]
        rows[split] = rows.get(split, 0) + shard["rows"]
    return rows


def on_card(folder):
    """Rows by split, out of the card's front matter."""
    text = (folder / "README.md").read_text()
    assert text.startswith("---\n"), "the card has no front matter"
    found = re.findall(r"- name: (\w+)\n\s+num_examples: (\d+)", text.split("---\n")[1])
    return {split: int(rows) for split, rows in found}


def check(what, found, wanted):
    assert found == wanted, f"{what}: {found}, the manifest says {wanted}"


def main():
    folder = pathlib.Path(sys.argv[1])
    rows = expected(folder)
    check("the card", on_card(folder), rows)

    for split, count in rows.items():
        pattern = str(folder / "data" / f"{split}-*.parquet")
        frame = polars.scan_parquet(pattern).select("prompt_id", "messages", "answer", "track").collect()
        check(f"polars, {split}", frame.height, count)
        assert frame["messages"].list.len().min() >= 2, "a conversation has a question and an answer"
        assert frame["answer"].null_count() == 0
        files = sorted((folder / "data").glob(f"{split}-*.parquet"))
        check(f"pyarrow, {split}", sum(pyarrow.parquet.read_table(file).num_rows for file in files), count)
        for file in files:
            columns = pyarrow.parquet.ParquetFile(file).schema_arrow.names
            assert {"messages", "reasoning", "answer", "prompt_id", "model", "rules_digest"} <= set(columns), columns

    # Both ways of loading: by the card's configuration, and as plain Parquet files.
    by_card = datasets.load_dataset(str(folder))
    check("datasets, by the card", {split: part.num_rows for split, part in by_card.items()}, rows)
    plain = datasets.load_dataset(
        "parquet", data_files={split: str(folder / "data" / f"{split}-*.parquet") for split in rows}
    )
    check("datasets, as Parquet", {split: part.num_rows for split, part in plain.items()}, rows)
    roles = [turn["role"] for turn in by_card["train"][0]["messages"]]
    assert roles[-1] == "assistant", roles

    prompts = {split: set(part["prompt_id"]) for split, part in by_card.items()}
    if "validation" in prompts:
        assert not prompts["train"] & prompts["validation"], "a prompt is in both splits"
    print(
        f"{sum(rows.values())} rows {rows} read by polars {polars.__version__}, "
        f"pyarrow {pyarrow.__version__}, datasets {datasets.__version__}"
    )


if __name__ == "__main__":
    main()
