"""The same training step in PyTorch, on the same card: sdpa attention, torch.compile, fused AdamW.

python3 bench_torch.py SIZE... prints JSON as `cargo bench --bench gpu` does, a line after each run: the last of a size counts.
Needs torch with CUDA and transformers; without them it says so and ends with status 69. Weights are random: nothing is downloaded.
"""

import json
import sys
import time

STEPS, RUNS, LENGTH, MICRO = 5, 5, 1024, 16_384
VOCAB = 151_936
DEVICE = "cuda"
# The status that the queue takes for "not run" (EX_UNAVAILABLE).
NOT_RUN = 69
SHAPES = {
    "0.5B": dict(hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2),
    "1.5B": dict(hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12, num_key_value_heads=2),
}


def missing():
    """Why PyTorch cannot run here; None if it can."""
    try:
        import torch
        import transformers  # noqa: F401
    except ImportError as error:
        return f"{error.name or error} is not installed"
    return None if torch.cuda.is_available() else "torch finds no GPU"


def fresh(size, **more):
    """A model of random weights in bf16."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(1)
    config = Qwen2Config(vocab_size=VOCAB, tie_word_embeddings=True, attn_implementation="sdpa", **SHAPES[size], **more)
    return Qwen2ForCausalLM(config).to(DEVICE, torch.bfloat16)


def optimizer_of(model, rate):
    import torch

    # f32 masters are what gristmill updates; fused AdamW over bf16 weights is PyTorch's faster, less exact way.
    return torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.1, fused=True)


def train(size):
    import torch

    model = fresh(size, use_cache=False)
    optimizer = optimizer_of(model, 1e-5)
    forward = torch.compile(model)
    tokens = torch.randint(0, VOCAB, (MICRO // LENGTH, LENGTH), device=DEVICE)

    def steps():
        start = time.perf_counter()
        for _ in range(STEPS):
            loss = forward(input_ids=tokens, labels=tokens).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        return time.perf_counter() - start

    steps()
    seconds = []
    for _ in range(RUNS):
        seconds.append(steps())
        line = {"bench": "train", "size": size, "by": "torch", "version": torch.__version__, "unit": "tokens"}
        line |= {"amount": STEPS * MICRO, "seconds": seconds, "memory_used": torch.cuda.max_memory_allocated()}
        print(json.dumps(line), flush=True)


def main():
    reason = missing()
    for size in sys.argv[1:] or SHAPES:
        if reason:
            print(json.dumps({"bench": "train", "size": size, "by": "torch", "not_run": reason}))
        else:
            train(size)
    if reason:
        sys.exit(NOT_RUN)


if __name__ == "__main__":
    main()
