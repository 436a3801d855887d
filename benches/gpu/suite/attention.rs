//! Causal attention by itself, counted as FlashAttention's papers do.

use gristmill::Result;
use gristmill::backend::{Backend, Heads};

use super::figure::time_sets;
use super::noise::Noise;
use super::{Card, Figure, Scale, Unit};

/// Heads of Qwen2.5 1.5B and of 0.5B.
const HEADS: [Heads; 2] = [Heads { query: 12, kv: 2, dim: 128 }, Heads { query: 14, kv: 2, dim: 64 }];

/// Multiplications and additions of a causal forward pass: Q Kᵀ and P V are 2 T² d each and head, of which the mask
/// leaves half. The backward pass has five such products.
pub fn flops(sequences: usize, length: usize, heads: Heads) -> f64 {
    4.0 * (sequences * length * length * heads.dim * heads.query) as f64 / 2.0
}

pub fn attention(card: &Card, noise: &Noise, scale: &Scale, print: &mut dyn FnMut(Figure)) -> Result<()> {
    let gpu = card.gpu();
    let (n, length) = (scale.rows.max(scale.attended), scale.attended);
    let sequences = n / length;
    let cu_seqlens: Vec<u32> = (0..=sequences).map(|i| (i * length) as u32).collect();
    for heads in HEADS {
        let size = format!("heads {}/{} of {}, {sequences} x {length} causal", heads.query, heads.kv, heads.dim);
        let (width, out) = (n * heads.qkv_width(), n * heads.out_width());
        // One set: what is read again and again is within a sequence, as in training.
        let mut sets = [(noise.act(width), gpu.act(out), gpu.f32(n * heads.query), noise.act(out), gpu.act(width))];
        let forward = time_sets(gpu, scale, &mut sets, |(qkv, out, lse, ..)| {
            gpu.attention(qkv, &cu_seqlens, heads, out, lse);
        })?;
        let flops = flops(sequences, length, heads);
        print(Figure::new("attention forward", &size, Unit::Flops, flops, forward));
        let backward = time_sets(gpu, scale, &mut sets, |(qkv, out, lse, dout, dqkv)| {
            gpu.attention_backward(dout, qkv, out, lse, &cu_seqlens, heads, dqkv);
        })?;
        print(Figure::new("attention backward", &size, Unit::Flops, 2.5 * flops, backward));
    }
    Ok(())
}
