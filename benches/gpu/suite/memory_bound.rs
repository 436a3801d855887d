//! Kernels that move bytes: RMSNorm, RoPE, SwiGLU, embedding, AdamW, the cast. Beside each, the bytes that must move:
//! each input read once and each output written once, whatever the kernel does.

use std::cell::RefCell;

use gristmill::Result;
use gristmill::backend::{AdamW, Backend, Param};

use super::figure::time_sets;
use super::noise::Noise;
use super::shapes::tokens;
use super::{Card, Figure, Scale, Shape, Unit};

/// Bytes of an activation, of an f32 or a token.
const ACT: usize = 2;
const WORD: usize = 4;

const EPS: f32 = 1e-6;

pub fn memory_bound(
    card: &Card,
    noise: &Noise,
    shape: &Shape,
    scale: &Scale,
    print: &mut dyn FnMut(Figure),
) -> Result<()> {
    let (gpu, n) = (card.gpu(), scale.rows);
    let Shape { hidden: h, ff, heads, vocab, .. } = *shape;
    let bench = Bench { card, scale, print: RefCell::new(print) };
    let rows = |width: usize| format!("{n} x {width}");

    let weight = &noise.vector(h);
    bench.kernel(
        "rms_norm",
        rows(h),
        // x, y; rstd; weight.
        2 * ACT * n * h + WORD * n + WORD * h,
        || (noise.act(n * h), gpu.act(n * h), gpu.f32(n)),
        |(x, y, rstd)| gpu.rms_norm(x, weight, n, EPS, y, rstd),
    )?;
    bench.kernel(
        "add_rms_norm",
        rows(h),
        // x, delta, sum, y; rstd; weight.
        4 * ACT * n * h + WORD * n + WORD * h,
        || (noise.act(n * h), noise.act(n * h), gpu.act(n * h), gpu.act(n * h), gpu.f32(n)),
        |(x, delta, sum, y, rstd)| gpu.add_rms_norm(x, delta, weight, n, EPS, sum, y, rstd),
    )?;
    bench.kernel(
        "rms_norm_backward",
        rows(h),
        // dy, x, dx read and written; rstd; weight, dweight read and written.
        4 * ACT * n * h + WORD * n + 3 * WORD * h,
        || (noise.act(n * h), noise.act(n * h), noise.f32(n, 0.1), noise.act(n * h), gpu.f32(h)),
        |(dy, x, rstd, dx, dweight)| gpu.rms_norm_backward(dy, x, weight, rstd, n, dx, dweight),
    )?;

    let (width, turned) = (heads.qkv_width(), (heads.query + heads.kv) * heads.dim);
    let mut positions = gpu.u32(n);
    gpu.put_u32(&mut positions, &(0..n).map(|i| (i % scale.length) as u32).collect::<Vec<_>>());
    // Cosines and sines, so that turning again and again leaves lengths as they are.
    let angles: Vec<f32> = (0..scale.length * heads.dim)
        .map(|i| {
            let (position, j) = (i / heads.dim, i % heads.dim);
            let angle = position as f32 * 0.01 * (1 + j % (heads.dim / 2)) as f32;
            if j < heads.dim / 2 { angle.cos() } else { angle.sin() }
        })
        .collect();
    let mut table = gpu.f32(angles.len());
    gpu.put_f32(&mut table, 0, &angles);
    for inverse in [false, true] {
        bench.kernel(
            if inverse { "rope_backward" } else { "rope" },
            rows(width),
            // Query and key heads read and written; positions; the table.
            2 * ACT * n * turned + WORD * n + WORD * angles.len(),
            || noise.act(n * width),
            |qkv| gpu.rope(qkv, &positions, &table, heads, n, inverse),
        )?;
    }

    bench.kernel(
        "swiglu",
        rows(ff),
        // gate, up; out.
        3 * ACT * n * ff,
        || (noise.act(2 * n * ff), gpu.act(n * ff)),
        |(gate_up, out)| gpu.swiglu(gate_up, ff, n, out),
    )?;
    bench.kernel(
        "swiglu_backward",
        rows(ff),
        // dout; gate, up; their gradients.
        5 * ACT * n * ff,
        || (noise.act(n * ff), noise.act(2 * n * ff), gpu.act(2 * n * ff)),
        |(dout, gate_up, dgate_up)| gpu.swiglu_backward(dout, gate_up, ff, n, dgate_up),
    )?;

    // Every row of the table at most once.
    let ids = tokens(n, vocab);
    let distinct = ids.iter().collect::<std::collections::BTreeSet<_>>().len();
    let mut index = gpu.u32(n);
    gpu.put_u32(&mut index, &ids);
    let embedding = &noise.matrix(vocab, h);
    bench.kernel(
        "embed",
        rows(h),
        // The table's rows; out; tokens.
        ACT * distinct * h + ACT * n * h + WORD * n,
        || gpu.act(n * h),
        |out| gpu.embed(embedding, &index, n, out),
    )?;
    bench.kernel(
        "embed_backward",
        rows(h),
        // dout; the gradient's rows read and written; tokens.
        ACT * n * h + 2 * WORD * distinct * h + WORD * n,
        || (noise.act(n * h), gpu.f32(vocab * h)),
        |(dout, grad)| gpu.embed_backward(dout, &index, n, h, grad),
    )?;

    // The largest matrix of a layer.
    let len = 2 * ff * h;
    bench.kernel(
        "cast",
        format!("{len} weights"),
        // f32 read, bf16 written.
        (WORD + ACT) * len,
        || Param { value: noise.f32(len, 1.0), ready: gpu.ready(2 * ff, h, true), rows: 2 * ff, cols: h },
        |param| gpu.publish(param),
    )?;
    let rule = AdamW { lr: 1e-6, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, step: 1, grad_scale: 1.0 };
    bench.kernel(
        "adamw",
        format!("{len} weights"),
        // Gradient; weight and both moments read and written.
        7 * WORD * len,
        || (noise.f32(len, 0.02), noise.f32(len, 0.01), gpu.f32(len), gpu.f32(len)),
        |(value, grad, first, second)| gpu.adamw(value, grad, (first, second), 0..len, &rule),
    )
}

struct Bench<'a, 'b> {
    card: &'a Card,
    scale: &'a Scale,
    print: RefCell<&'b mut dyn FnMut(Figure)>,
}

impl Bench<'_, '_> {
    /// Times one operation over as many sets of buffers as are several times the cache.
    fn kernel<S>(
        &self,
        name: &str,
        size: String,
        bytes: usize,
        make: impl Fn() -> S,
        work: impl FnMut(&mut S),
    ) -> Result<()> {
        let mut sets: Vec<S> = (0..=self.scale.rotated / bytes).map(|_| make()).collect();
        let seconds = time_sets(self.card.gpu(), self.scale, &mut sets, work)?;
        (self.print.borrow_mut())(Figure::new(name, size, Unit::Bytes, bytes as f64, seconds));
        Ok(())
    }
}
