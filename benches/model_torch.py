#!/usr/bin/env python3
"""The mini model of benches/model.rs in PyTorch eager: one training step and batched
decoding with a KV cache, the same shapes, threads and way of timing. Sequences all
have one length, so nothing is padded; attention is PyTorch's own fused kernel.

    python3 benches/model_torch.py [THREADS]
"""

import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

VOCAB, HIDDEN, FF, LAYERS, HEADS, KV, DIM = 110, 64, 192, 2, 4, 2, 16
PROMPT, COMPLETION, SEQUENCES, RUNS = 14, 29, 256, 7
THREADS = int(sys.argv[1]) if len(sys.argv) > 1 else 2


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(HIDDEN, 1e-6), nn.RMSNorm(HIDDEN, 1e-6)
        self.qkv = nn.Linear(HIDDEN, (HEADS + 2 * KV) * DIM, bias=False)
        self.out = nn.Linear(HEADS * DIM, HIDDEN, bias=False)
        self.gate_up = nn.Linear(HIDDEN, 2 * FF, bias=False)
        self.down = nn.Linear(FF, HIDDEN, bias=False)

    def forward(self, x, cos, sin, cache):
        b, t, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, HEADS + 2 * KV, DIM).transpose(1, 2).split([HEADS, KV, KV], 1)
        rotate = lambda z: z * cos + torch.cat([-z[..., DIM // 2:], z[..., : DIM // 2]], -1) * sin
        q, k = rotate(q), rotate(k)
        if cache is not None:
            at = cache["at"]
            cache["k"][:, :, at : at + t], cache["v"][:, :, at : at + t] = k, v
            k, v = cache["k"][:, :, : at + t], cache["v"][:, :, : at + t]
            cache["at"] = at + t
        y = F.scaled_dot_product_attention(q, k, v, is_causal=t > 1, enable_gqa=True)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, HEADS * DIM))
        gate, up = self.gate_up(self.norm2(x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


class Mini(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, HIDDEN)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.RMSNorm(HIDDEN, 1e-6)
        angle = torch.arange(128.0)[:, None] * 10000 ** (-torch.arange(0, DIM, 2) / DIM)
        self.cos, self.sin = torch.cat([angle.cos()] * 2, -1), torch.cat([angle.sin()] * 2, -1)
        nn.init.normal_(self.embed.weight, 0, 0.02)

    def forward(self, tokens, start=0, caches=None):
        x, end = self.embed(tokens), start + tokens.shape[1]
        for i, block in enumerate(self.blocks):
            x = block(x, self.cos[start:end], self.sin[start:end], caches and caches[i])
        return F.linear(self.norm(x), self.embed.weight)


def best(work):
    work()
    cpu, wall = float("inf"), float("inf")
    for _ in range(RUNS):
        c, w = time.process_time(), time.perf_counter()
        work()
        cpu, wall = min(cpu, time.process_time() - c), min(wall, time.perf_counter() - w)
    return cpu, wall


def report(what, tokens, times):
    wall, cpu = tokens / times[1], tokens / times[0] * THREADS
    print(f"{what:<43} {wall:8.0f} tokens/s by the wall clock, by CPU time {cpu:.0f} tokens/s")


def main():
    torch.set_num_threads(THREADS)
    torch.manual_seed(1)
    model = Mini()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1)
    length = PROMPT + COMPLETION
    t = torch.arange(length)
    tokens = torch.stack([(t * t + i * 7) % VOCAB for i in range(SEQUENCES)])

    def step():
        logits = model(tokens[:, :-1])[:, PROMPT - 1 :]
        loss = F.cross_entropy(logits.reshape(-1, VOCAB), tokens[:, PROMPT:].reshape(-1))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    report("torch training", SEQUENCES * length, best(step))

    @torch.inference_mode()
    def decode():
        caches = [dict(k=torch.empty(SEQUENCES, KV, length, DIM), v=torch.empty(SEQUENCES, KV, length, DIM), at=0)
                  for _ in range(LAYERS)]
        logits = model(tokens[:, :PROMPT], 0, caches)[:, -1]
        for i in range(COMPLETION):
            logp = torch.log_softmax(logits, -1)
            token = torch.multinomial(logp.exp(), 1)
            logp.gather(-1, token)
            if i + 1 < COMPLETION:
                logits = model(token, PROMPT + i, caches)[:, -1]

    report("torch decoding", SEQUENCES * COMPLETION, best(decode))


main()
