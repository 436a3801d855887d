"""The same training step in PyTorch, on the same card: sdpa attention, torch.compile, fused AdamW.

Prints one JSON object a size, as `cargo bench --bench gpu` does. Needs torch with CUDA and transformers;
without them it says so and stops. Weights are random: nothing is downloaded.
"""

import json
import sys
import time

STEPS, RUNS, LENGTH, MICRO = 10, 5, 1024, 16_384
SHAPES = {
    "0.5B": dict(hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2),
    "1.5B": dict(hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12, num_key_value_heads=2),
}


def main() -> None:
    try:
        import torch
        from transformers import Qwen2Config, Qwen2ForCausalLM
    except ImportError as missing:
        sys.exit(f"not run: {missing}")
    if not torch.cuda.is_available():
        sys.exit("not run: torch finds no GPU")
    for size in sys.argv[1:] or SHAPES:
        config = Qwen2Config(vocab_size=151_936, tie_word_embeddings=True, attn_implementation="sdpa", use_cache=False, **SHAPES[size])
        torch.manual_seed(1)
        model = Qwen2ForCausalLM(config).to("cuda", torch.bfloat16)
        # f32 masters are what gristmill updates; fused AdamW over bf16 weights is PyTorch's faster, less exact way.
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
        forward = torch.compile(model)
        tokens = torch.randint(0, 151_000, (MICRO // LENGTH, LENGTH), device="cuda")

        def steps() -> None:
            for _ in range(STEPS):
                loss = forward(input_ids=tokens, labels=tokens).loss
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            torch.cuda.synchronize()

        steps()
        runs = []
        for _ in range(RUNS):
            start = time.perf_counter()
            steps()
            runs.append(STEPS * MICRO / (time.perf_counter() - start))
        used = torch.cuda.max_memory_allocated()
        print(json.dumps({"bench": "train", "size": size, "by": "torch " + torch.__version__, "tokens_per_second": max(runs), "runs": runs, "memory_used": used}))
        del model, optimizer, forward
        torch.cuda.empty_cache()


main()
