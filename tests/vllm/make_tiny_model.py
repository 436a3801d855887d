#!/usr/bin/env python3
"""make_tiny_model.py DIR [SEED [tied]]: a Qwen2 checkpoint with random weights, for tests against a real vLLM.

Two layers, hidden size 64, head_dim 32 (vLLM's CPU attention takes no 16), a byte-level tokenizer
without merges and a ChatML template. Two seeds give two models of the same shape: what a reload needs.
With `tied` the embedding is also the head.
Needs torch, safetensors and tokenizers, all of which a vLLM installation has.
"""

import json
import pathlib
import sys

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, INNER = 64, 2, 2, 1, 32, 128
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    tied = "tied" in sys.argv[3:]

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.save(str(folder / "tokenizer.json"))
    end = tokenizer.token_to_id("<|im_end|>")
    vocab = tokenizer.get_vocab_size()

    write = lambda name, value: (folder / name).write_text(json.dumps(value, indent=2))
    write("tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
        "model_max_length": 512, "chat_template": TEMPLATE, "clean_up_tokenization_spaces": False,
    })
    write("config.json", {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": vocab, "hidden_size": HIDDEN,
        "intermediate_size": INNER, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM, "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": tied, "hidden_act": "silu",
        "eos_token_id": end, "bos_token_id": None, "torch_dtype": "float32",
    })
    write("generation_config.json", {"eos_token_id": end})

    # Wide enough that sampled tokens differ from model to model.
    random = lambda *shape: torch.randn(*shape) * 0.2
    weights = {"model.embed_tokens.weight": random(vocab, HIDDEN), "model.norm.weight": torch.ones(HIDDEN)}
    for i in range(LAYERS):
        at = f"model.layers.{i}."
        for name, rows in (("q", HEADS * HEAD_DIM), ("k", KV_HEADS * HEAD_DIM), ("v", KV_HEADS * HEAD_DIM)):
            weights[f"{at}self_attn.{name}_proj.weight"] = random(rows, HIDDEN)
            weights[f"{at}self_attn.{name}_proj.bias"] = torch.zeros(rows)
        weights[at + "self_attn.o_proj.weight"] = random(HIDDEN, HEADS * HEAD_DIM)
        weights[at + "mlp.gate_proj.weight"] = random(INNER, HIDDEN)
        weights[at + "mlp.up_proj.weight"] = random(INNER, HIDDEN)
        weights[at + "mlp.down_proj.weight"] = random(HIDDEN, INNER)
        weights[at + "input_layernorm.weight"] = torch.ones(HIDDEN)
        weights[at + "post_attention_layernorm.weight"] = torch.ones(HIDDEN)
    if not tied:
        weights["lm_head.weight"] = random(vocab, HIDDEN)
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})


if __name__ == "__main__":
    main()
