"""Writes tests/parity/vectors/objectives.json: losses and gradients of the training objectives by PyTorch autograd.

    pip install torch && python tests/parity/objectives.py

Each objective is written here as its paper writes it, in float64, on padded [B, L] tensors with a
mask; `cargo test objective` compares the packed, hand-differentiated ones with the result.
"""

import json
import pathlib

import torch
import torch.nn.functional as F

torch.manual_seed(20261123)
torch.set_default_dtype(torch.float64)

LENGTHS = [5, 3, 7, 1, 4, 6]
B, L = len(LENGTHS), max(LENGTHS)
mask = torch.zeros(B, L)
for i, n in enumerate(LENGTHS):
    mask[i, :n] = 1


def f32(x):
    """Rounded to what a float32 holds, so that both sides start from the same numbers."""
    return x.float().double()


logprobs = f32(-0.2 - 2.5 * torch.rand(B, L)).requires_grad_()
entropy = f32(2.0 * torch.rand(B, L)).requires_grad_()
old = f32(logprobs.detach() + 0.3 * torch.randn(B, L))
reference = f32(logprobs.detach() + 0.6 * torch.randn(B, L))
rollout = f32(old + 0.4 * torch.randn(B, L))
advantages = f32(torch.randn(B))
A = advantages[:, None]


def sequence_mean(loss):
    return ((loss * mask).sum(1) / mask.sum(1)).mean()


def token_mean(loss):
    return (loss * mask).sum() / mask.sum()


def constant(length):
    return lambda loss: (loss * mask).sum() / (B * length)


def clipped(ratio, low, high):
    return torch.min(ratio * A, torch.clamp(ratio, 1 - low, 1 + high) * A)


def k3():
    x = reference - logprobs
    return x.exp() - x - 1


def grpo():
    return sequence_mean(-clipped((logprobs - old).exp(), 0.2, 0.2) + 0.04 * k3())


def dapo():
    return token_mean(-clipped((logprobs - old).exp(), 0.2, 0.28))


def dr_grpo():
    return constant(16)(-clipped((logprobs - old).exp(), 0.2, 0.2))


def gspo():
    log_ratio = ((logprobs - old) * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)
    return sequence_mean(-clipped(log_ratio.exp(), 0.03, 0.04).expand(B, L))


def cispo():
    weight = torch.clamp((logprobs - old).exp(), max=1.2).detach()
    return token_mean(-weight * A * logprobs)


def dual_clip_k2_entropy():
    surrogate = clipped((logprobs - old).exp(), 0.2, 0.2)
    surrogate = torch.where(A < 0, torch.max(surrogate, 1.1 * A), surrogate)
    return sequence_mean(-surrogate + 0.1 * (logprobs - reference) ** 2 / 2 - 0.05 * entropy)


def truncated_correction():
    weight = torch.clamp((old - rollout).exp(), max=1.3)
    return token_mean(-weight * clipped((logprobs - old).exp(), 0.2, 0.2) + 0.1 * (logprobs - reference))


def masked_correction():
    weight = (old - rollout).exp()
    weight = torch.where((weight >= 0.7) & (weight <= 1.4), weight, torch.zeros_like(weight))
    return token_mean(-weight * clipped((logprobs - old).exp(), 0.2, 0.2))


def margins():
    sums = ((logprobs - reference) * mask).sum(1)
    return sums[0::2] - sums[1::2]


def dpo():
    return -F.logsigmoid(0.3 * margins()).mean()


def ipo():
    return ((margins() - 1 / (2 * 0.3)) ** 2).mean()


def sft():
    return token_mean(-logprobs)


def packed(x):
    return [v for i, n in enumerate(LENGTHS) for v in x.detach()[i, :n].tolist()]


cases = {}
for objective in [grpo, dapo, dr_grpo, gspo, cispo, dual_clip_k2_entropy, truncated_correction, masked_correction,
                  dpo, ipo, sft]:
    logprobs.grad = entropy.grad = None
    loss = objective()
    loss.backward()
    cases[objective.__name__] = {
        "loss": loss.item(),
        "logprob_gradient": packed(logprobs.grad),
        "entropy_gradient": None if entropy.grad is None else packed(entropy.grad),
    }

path = pathlib.Path(__file__).parent / "vectors" / "objectives.json"
path.parent.mkdir(exist_ok=True)
path.write_text(json.dumps({
    "torch": torch.__version__.split("+")[0],
    "lengths": LENGTHS,
    "logprobs": packed(logprobs),
    "entropy": packed(entropy),
    "old": packed(old),
    "reference": packed(reference),
    "rollout": packed(rollout),
    "advantages": advantages.tolist(),
    "cases": cases,
}, indent=1) + "\n")
