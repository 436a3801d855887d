#!/usr/bin/env python3
"""Makes tests/parity/vectors: what PyTorch and transformers say of small models.

    python3 tests/parity/make_vectors.py

installs torch and transformers into a virtual environment under
$XDG_CACHE_HOME/gristmill-parity (several GB, once) and writes, for each layout,
a random checkpoint as `save_pretrained` writes it and `expected.safetensors`:
logits, log-probabilities, entropies, the gradient of each parameter, greedy
tokens, and the losses of ten AdamW steps. `chat.json` holds conversations as
`apply_chat_template` renders them. The vectors are frozen in the repository, so
`cargo test` needs none of this.
"""

import json
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
VECTORS = HERE / "vectors"
PACKAGES = ["torch", "transformers", "numpy", "safetensors", "jinja2"]


def enter_environment():
    """Runs this script again inside the virtual environment."""
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "gristmill-parity"
    python = cache / "bin" / "python"
    if not (cache / "ready").exists():
        subprocess.check_call([sys.executable, "-m", "venv", str(cache)])
        subprocess.check_call([str(python), "-m", "pip", "install", "-q", *PACKAGES])
        (cache / "ready").touch()
    os.execv(python, [str(python), __file__, "--inside"])


if "--inside" not in sys.argv:
    enter_environment()

import torch
import transformers
from safetensors.torch import save_file

SEQUENCES = [[3, 14, 15, 9, 26, 5, 35, 8, 9, 7, 9, 32, 3], [2, 7, 18, 28, 1, 8, 2], [31, 31]]
FIRST_SCORED = [4, 1, 1]
SHAPE = dict(
    vocab_size=37, hidden_size=24, intermediate_size=40, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
    bos_token_id=0, eos_token_id=36, pad_token_id=None,
)
LLAMA3 = dict(rope_type="llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=16, rope_theta=10000.0)


def models():
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM
    yield "llama", LlamaForCausalLM(LlamaConfig(**SHAPE, rope_parameters=LLAMA3, attention_bias=True,
                                                tie_word_embeddings=False))
    yield "qwen2", Qwen2ForCausalLM(Qwen2Config(**SHAPE, tie_word_embeddings=True))
    yield "qwen3", Qwen3ForCausalLM(Qwen3Config(**SHAPE, head_dim=8, tie_word_embeddings=False))


def randomise(model):
    """Weights large enough that no term of a gradient vanishes."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0.0, 0.2)
            if "norm" in name:
                parameter.add_(1.0)


def score(model):
    """Logits, log-probabilities and entropies of the scored tokens."""
    logits, targets = [], []
    for tokens, first in zip(SEQUENCES, FIRST_SCORED):
        logits.append(model(torch.tensor([tokens])).logits[0, first - 1 : -1].float())
        targets += tokens[first:]
    logits = torch.cat(logits)
    logp = torch.log_softmax(logits, -1)
    picked = logp.gather(-1, torch.tensor(targets)[:, None])[:, 0]
    return logits, picked, -(logp.exp() * logp).sum(-1)


def layout(name, model):
    randomise(model)
    model.eval()
    folder = VECTORS / name
    model.save_pretrained(folder)
    out = {}
    logits, logprobs, entropies = score(model)
    # A loss in which every token has its own weight, and entropy a share.
    weight = torch.linspace(-1.0, 0.5, len(logprobs))
    (weight * logprobs).sum().add(0.3 * (weight * entropies).sum()).backward()
    out["logits"], out["logprobs"], out["entropies"], out["weight"] = logits, logprobs, entropies, weight
    for key, parameter in model.named_parameters():
        out[f"grad.{key}"] = parameter.grad.clone()
    with torch.no_grad():
        tokens = list(SEQUENCES[0])
        for _ in range(16):
            tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
        out["greedy"] = torch.tensor(tokens[len(SEQUENCES[0]):], dtype=torch.int32)
    decay = [p for p in model.parameters() if p.dim() == 2]
    plain = [p for p in model.parameters() if p.dim() != 2]
    optimizer = torch.optim.AdamW(
        [dict(params=decay, weight_decay=0.1), dict(params=plain, weight_decay=0.0)],
        lr=1e-2, betas=(0.9, 0.95), eps=1e-8)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = -score(model)[1].mean()
        loss.backward()
        losses.append(loss.detach())
        optimizer.step()
    losses.append(-score(model)[1].mean().detach())
    out["losses"] = torch.stack(losses)
    save_file({k: v.detach().contiguous() for k, v in out.items()}, folder / "expected.safetensors")


CONVERSATIONS = [
    [("user", "What is 7 × 8?")],
    [("system", "Answer in one word."), ("user", "  Is <b> a tag & 'x' a quote?\n")],
    [("user", "Hi"), ("assistant", "<think>\ngreet back\n</think>\n\nHello!"), ("user", "Again")],
    [("system", "You sum."), ("user", "1+1"), ("assistant", "<think>\neasy\n</think>\n\n2")],
    [("user", "Weather?"), ("assistant", "Let me see."), ("tool", "sunny \"21°\""), ("user", "Thanks")],
]
SPECIAL = {
    "qwen2.5": dict(eos_token="<|im_end|>"),
    "qwen3": dict(eos_token="<|im_end|>"),
    "llama3": dict(bos_token="<|begin_of_text|>", eos_token="<|eot_id|>"),
    "llama3.1": dict(bos_token="<|begin_of_text|>", eos_token="<|eot_id|>"),
    "deepseek-r1-distill": dict(bos_token="<｜begin▁of▁sentence｜>", eos_token="<｜end▁of▁sentence｜>"),
}


def chats():
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    cases = []
    for name, special in SPECIAL.items():
        source = (HERE / "templates" / f"{name}.jinja").read_text()
        words = {token: i for i, token in enumerate(["<unk>", *special.values()])}
        tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(WordLevel(words, unk_token="<unk>")), **special)
        tokenizer.chat_template = source
        for conversation in CONVERSATIONS:
            messages = [dict(role=role, content=content) for role, content in conversation]
            for generate in [False, True]:
                text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generate)
                cases.append(dict(template=name, special=special, messages=messages, generate=generate, text=text))
    (VECTORS / "chat.json").write_text(json.dumps(cases, ensure_ascii=False, indent=1) + "\n")


def main():
    torch.manual_seed(20)
    torch.set_num_threads(1)
    VECTORS.mkdir(exist_ok=True)
    for name, model in models():
        layout(name, model)
    chats()
    versions = dict(torch=torch.__version__, transformers=transformers.__version__)
    batch = dict(sequences=SEQUENCES, first_scored=FIRST_SCORED, made_with=versions)
    (VECTORS / "batch.json").write_text(json.dumps(batch) + "\n")
    # What transformers writes beside the weights names the machine's versions only.
    for extra in VECTORS.glob("*/README.md"):
        extra.unlink()


main()
