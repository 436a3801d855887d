"""The same GRPO step in TRL with its own generation, on the same card: 64 prompts of 64 tokens, 16 completions of 512.

python3 bench_trl.py SIZE prints JSON as `cargo bench --bench gpu -- grpo` does, a line after each step: the last one counts.
Needs torch with CUDA, transformers and trl. Where only trl is missing, or fails, it says so and does the same work by
itself as TRL does it (`transformers generate`: generate on the whole batch, then log-probabilities, loss and backward pass of
32 completions at a time, clipping, AdamW), and calls it that: a stand-in. Weights are random: nothing is downloaded.
"""

import inspect
import json
import sys
import tempfile
import time

from bench_torch import DEVICE, NOT_RUN, SHAPES, VOCAB, fresh, missing, optimizer_of

PROMPTS, GROUP, PROMPT, COMPLETION = 64, 16, 64, 512
# Completions of a micro-batch.
MICRO = 32
# Steps that are timed, after one that is not.
STEPS = 2
STAND_IN = "transformers generate"


def say(size, by, **more):
    print(json.dumps({"bench": "grpo", "size": size, "by": by} | more), flush=True)


def told(size, by, version, seconds, tokens):
    import torch

    used = torch.cuda.max_memory_allocated()
    say(size, by, version=version, unit="steps", amount=1, seconds=seconds, completion_tokens=tokens, memory_used=used)


def prompts():
    return [[i * 2_654_435_761 % VOCAB for i in range(p * PROMPT, (p + 1) * PROMPT)] for p in range(PROMPTS)]


def by_trl(size):
    import torch
    import trl
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    words = Tokenizer(models.WordLevel({f"t{i}": i for i in range(VOCAB)}, unk_token="t0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="t0", eos_token="t1", unk_token="t0", padding_side="left"
    )
    data = Dataset.from_list([{"prompt": " ".join(f"t{token}" for token in prompt)} for prompt in prompts()])
    lengths, seconds = [], []

    def coin(completions, completion_ids=None, **_):
        ids = completion_ids or [[int(word[1:]) for word in text.split()] for text in completions]
        lengths.append(sum(map(len, ids)) / len(ids))
        return [float(sum(completion) % 2) for completion in ids]

    class Clock(TrainerCallback):
        def on_step_begin(self, *_, **__):
            torch.cuda.synchronize()
            self.start = time.perf_counter()

        def on_step_end(self, args, state, control, **_):
            torch.cuda.synchronize()
            if state.global_step > 1:
                seconds.append(time.perf_counter() - self.start)
                told(size, "trl", trl.__version__, seconds, lengths[-1])

    wanted = dict(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=MICRO, num_generations=GROUP,
        gradient_accumulation_steps=PROMPTS * GROUP // MICRO, steps_per_generation=PROMPTS * GROUP // MICRO,
        max_prompt_length=PROMPT, max_completion_length=COMPLETION, max_steps=STEPS + 1, learning_rate=1e-6,
        lr_scheduler_type="constant", beta=0.0, temperature=1.0, top_p=1.0, num_iterations=1, bf16=True, use_vllm=False,
        gradient_checkpointing=False, max_grad_norm=1.0, optim="adamw_torch_fused", report_to=[], save_strategy="no",
        logging_strategy="no", disable_tqdm=True, seed=1, generation_kwargs={"min_new_tokens": COMPLETION},
    )
    # Settings come and go between versions.
    known = inspect.signature(GRPOConfig).parameters
    config = GRPOConfig(**{name: value for name, value in wanted.items() if name in known})
    trainer = GRPOTrainer(
        model=fresh(size), reward_funcs=coin, args=config, train_dataset=data, processing_class=tokenizer, callbacks=[Clock()]
    )
    trainer.train()
    if not seconds:
        raise RuntimeError("no step was timed")


def by_transformers(size):
    import torch
    import transformers

    model = fresh(size)
    optimizer = optimizer_of(model, 1e-6)
    asked = torch.tensor(prompts(), device=DEVICE).repeat_interleave(GROUP, dim=0)

    def step(asked, count):
        start = time.perf_counter()
        model.eval()
        with torch.no_grad():
            whole = model.generate(
                asked, attention_mask=torch.ones_like(asked), do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
                min_new_tokens=count, max_new_tokens=count, pad_token_id=0, eos_token_id=None,
            )
        model.train()
        completions = whole[:, PROMPT:]
        rewards = (completions.sum(dim=1) % 2).float().view(-1, GROUP)
        spread = rewards.std(dim=1, keepdim=True) + 1e-4
        advantages = ((rewards - rewards.mean(dim=1, keepdim=True)) / spread).view(-1)
        for rows in range(0, len(whole), MICRO):
            part = slice(rows, rows + MICRO)
            logits = model(whole[part], logits_to_keep=count + 1, use_cache=False).logits[:, :-1]
            # Row by row, as TRL does in bf16: a log-softmax of all of them does not fit.
            chosen = torch.stack(
                [row.log_softmax(dim=-1).gather(1, ids[:, None])[:, 0] for row, ids in zip(logits, completions[part])]
            )
            ratio = torch.exp(chosen - chosen.detach())
            gain = advantages[part, None]
            loss = -torch.min(ratio * gain, ratio.clamp(0.8, 1.2) * gain).mean(dim=1).sum() / len(whole)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        return time.perf_counter() - start, completions.shape[1]

    # Two micro-batches of few tokens: everything is loaded, and no time lost.
    step(asked[: 2 * MICRO], 16)
    seconds = []
    for _ in range(STEPS):
        took, tokens = step(asked, COMPLETION)
        seconds.append(took)
        told(size, STAND_IN, transformers.__version__, seconds, tokens)


def main():
    size = sys.argv[1] if len(sys.argv) > 1 else "0.5B"
    if size not in SHAPES:
        sys.exit(f"no shape {size}: {', '.join(SHAPES)}")
    reason = missing()
    if reason:
        say(size, "trl", not_run=reason)
        sys.exit(NOT_RUN)
    try:
        return by_trl(size)
    except ImportError as error:
        say(size, "trl", not_run=f"{error.name or error} is not installed")
    except Exception as error:  # Whatever its version does not take.
        say(size, "trl", not_run=f"{type(error).__name__}: {error}"[:300])
        import gc

        import torch

        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    by_transformers(size)


if __name__ == "__main__":
    main()
