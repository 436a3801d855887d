//! Attention over packed sequences, forward and backward: tensor-core passes and their plain twins against the CPU.

use gristmill::backend::cuda::geometry::{attention_passes, attention_tiles};
use gristmill::backend::{Backend, Cpu, Heads};

use crate::args;
use crate::shim::{ACTS, Act, Device, available, close, close_together};

/// Sequences of one token, of less than a tile, of exactly one, of one and a bit, and none.
const MIXED: &[u32] = &[0, 1, 38, 102, 102, 173];
/// One token alone; a token short of a tile, a tile, a token more: tiles of 64 and of 128.
const ALONE: &[u32] = &[0, 1];
const EDGES: &[u32] = &[0, 63, 127, 192, 319, 447, 576];

const HEADS: Heads = Heads { query: 4, kv: 2, dim: 0 };

struct Case {
    cu_seqlens: &'static [u32],
    heads: Heads,
    qkv: Vec<f32>,
    dout: Vec<f32>,
    out: Vec<f32>,
    lse: Vec<f32>,
    dqkv: Vec<f32>,
}

fn case(act: Act, heads: Heads, cu_seqlens: &'static [u32]) -> Case {
    let (cpu, rows) = (Cpu::new(), cu_seqlens[cu_seqlens.len() - 1] as usize);
    let qkv = act.random(rows * heads.qkv_width(), 1);
    let dout = act.random(rows * heads.out_width(), 2);
    let (mut out, mut lse) = (vec![0.0; rows * heads.out_width()], vec![0.0; rows * heads.query]);
    cpu.attention(&qkv, cu_seqlens, heads, &mut out, &mut lse);
    out.iter_mut().for_each(|x| *x = act.round(*x));
    let mut dqkv = vec![0.0; qkv.len()];
    cpu.attention_backward(&dout, &qkv, &out, &lse, cu_seqlens, heads, &mut dqkv);
    Case { cu_seqlens, heads, qkv, dout, out, lse, dqkv }
}

/// Outputs and log-sum-exps, by the kernel for this size of head; `dim` is an argument of the plain one only.
fn run_forward(act: Act, heads: Heads, cu_seqlens: &[u32], qkv: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let Heads { query, kv, dim } = heads;
    let (passes, rows) = (attention_passes(dim).unwrap(), qkv.len() / heads.qkv_width());
    let mut d = Device::new("attention.cu", act);
    let tiles = attention_tiles(cu_seqlens, passes.tile);
    let (qkv, tb) = (d.act(qkv), d.u32(&tiles));
    let (out, lse) = (d.act_out(rows * heads.out_width()), d.f32_out(rows * query));
    let args: &[_] = args![qkv, tb, query, kv, dim, out, lse];
    let args = if passes.plain { args.to_vec() } else { [&args[..4], &args[5..]].concat() };
    let pass = passes.forward;
    d.launch(pass.kernel, [tiles.len() / 3 * pass.blocks, query, 1], 128, pass.shared, &args);
    (d.read_act(out), d.read_f32(lse))
}

fn forward(act: Act, case: &Case, tolerance: f32) {
    let (out, lse) = run_forward(act, case.heads, case.cu_seqlens, &case.qkv);
    close("out", &out, &case.out, tolerance);
    close("lse", &lse, &case.lse, 5e-6);
}

#[test]
fn the_plain_twin_equals_the_cpu() {
    if !available() {
        return;
    }
    for (act, tolerance) in [(Act::F32, 5e-6), (Act::Bf16, 8e-3)] {
        forward(act, &case(act, Heads { dim: 40, ..HEADS }, MIXED), tolerance);
    }
}

#[test]
fn tensor_cores_equal_the_cpu_to_the_rounding_of_their_weights() {
    if !available() {
        return;
    }
    // Weights are rounded to bf16 before they meet the values: 2⁻⁹ of each, on sums of up to 71 terms.
    for dim in [64, 128] {
        forward(Act::Bf16, &case(Act::Bf16, Heads { dim, ..HEADS }, MIXED), 0.02);
    }
}

/// Gradients, by the kernels for this size of head: of dout, qkv, outputs and log-sum-exps.
fn run_backward(act: Act, heads: Heads, cu_seqlens: &[u32], given: [&[f32]; 4]) -> Vec<f32> {
    let Heads { query, kv, dim } = heads;
    let passes = attention_passes(dim).unwrap();
    let mut d = Device::new("attention_backward.cu", act);
    let tiles = attention_tiles(cu_seqlens, passes.tile);
    let [dout, qkv, out] = [given[0], given[1], given[2]].map(|v| d.act(v));
    let items = given[3].len();
    let (lse, tb, delta) = (d.f32(given[3]), d.u32(&tiles), d.f32_out(items));
    let dqkv = d.act_out(given[1].len());
    d.launch("attention_delta", [items.div_ceil(4), 1, 1], 128, 0, args![dout, out, items, dim, delta]);
    let args: &[_] = args![dout, qkv, lse, delta, tb, query, kv, dim, dqkv];
    let args = if passes.plain { args.to_vec() } else { [&args[..7], &args[8..]].concat() };
    for (pass, heads) in [(passes.dq, query), (passes.dkv, kv)] {
        d.launch(pass.kernel, [tiles.len() / 3 * pass.blocks, heads, 1], 128, pass.shared, &args);
    }
    d.read_act(dqkv)
}

fn backward(act: Act, case: &Case, tolerance: f32) {
    let given = [&case.dout[..], &case.qkv, &case.out, &case.lse];
    let found = run_backward(act, case.heads, case.cu_seqlens, given);
    close("dqkv", &found, &case.dqkv, tolerance);
    if act == Act::Bf16 {
        close_together("dqkv", &found, &case.dqkv, 0.005);
    }
}

#[test]
fn plain_gradients_equal_the_cpus() {
    if !available() {
        return;
    }
    for act in ACTS {
        let case = case(act, Heads { dim: 24, ..HEADS }, MIXED);
        backward(act, &case, if act == Act::F32 { 2e-5 } else { 0.02 });
    }
}

#[test]
fn tensor_core_gradients_equal_the_cpus() {
    if !available() {
        return;
    }
    for dim in [64, 128] {
        let case = case(Act::Bf16, Heads { dim, ..HEADS }, MIXED);
        backward(Act::Bf16, &case, 0.04);
    }
}

#[test]
fn sequences_at_the_edges_of_tiles_and_groups_of_other_sizes() {
    if !available() {
        return;
    }
    // More numbers than above, and so larger ones among their errors.
    let groups = [(1, 1), (3, 3), (3, 1), (7, 1)];
    for (cu_seqlens, (query, kv)) in [ALONE, EDGES].into_iter().zip([(7, 1), (3, 1)]).chain(groups.map(|g| (ALONE, g)))
    {
        let case = case(Act::Bf16, Heads { query, kv, dim: 64 }, cu_seqlens);
        forward(Act::Bf16, &case, 0.02);
        backward(Act::Bf16, &case, 0.06);
    }
    let wide = case(Act::Bf16, Heads { query: 2, kv: 1, dim: 128 }, EDGES);
    forward(Act::Bf16, &wide, 0.02);
    backward(Act::Bf16, &wide, 0.06);
    // Heads that are no multiple of anything, as r1_mini's student has.
    for (heads, cu_seqlens) in [
        (Heads { query: 4, kv: 2, dim: 12 }, EDGES),
        (Heads { query: 7, kv: 1, dim: 6 }, MIXED),
        (Heads { query: 3, kv: 3, dim: 2 }, ALONE),
    ] {
        let case = case(Act::Bf16, heads, cu_seqlens);
        forward(Act::Bf16, &case, 8e-3);
        backward(Act::Bf16, &case, 0.02);
    }
}

#[test]
fn a_sequence_has_the_same_bits_alone_and_packed_behind_others() {
    if !available() {
        return;
    }
    for dim in [64, 128] {
        let heads = Heads { query: 2, kv: 1, dim };
        let (before, len) = (37, 130);
        let packed = case(Act::Bf16, heads, &[0, 37, 167]);
        let tail = |v: &[f32], width: usize| v[before * width..].to_vec();
        let (wide, narrow) = (heads.qkv_width(), heads.out_width());
        let qkv = tail(&packed.qkv, wide);
        let (out, lse) = run_forward(Act::Bf16, heads, packed.cu_seqlens, &packed.qkv);
        let (tail_out, tail_lse) = (tail(&out, narrow), tail(&lse, heads.query));
        let alone = [0, len];
        assert!(
            (tail_out.clone(), tail_lse.clone()) == run_forward(Act::Bf16, heads, &alone, &qkv),
            "outputs at {dim}"
        );
        let dqkv = run_backward(Act::Bf16, heads, packed.cu_seqlens, [&packed.dout, &packed.qkv, &out, &lse]);
        let dout = tail(&packed.dout, narrow);
        let found = run_backward(Act::Bf16, heads, &alone, [&dout, &qkv, &tail_out, &tail_lse]);
        assert!(tail(&dqkv, wide) == found, "gradients at {dim}");
    }
}
