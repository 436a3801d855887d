//! Attention over packed sequences, forward and backward: tensor-core passes and their plain twins against the CPU.

use gristmill::backend::cuda::geometry::attention_tiles;
use gristmill::backend::{Backend, Cpu, Heads};

use crate::args;
use crate::shim::{ACTS, Act, Device, available, close};

/// Sequences of one token, of less than a tile, of exactly one, of one and a bit, and none.
const MIXED: &[u32] = &[0, 1, 38, 102, 102, 173];
/// One token alone; a token short of a tile, a tile, a token more, twice that.
const ALONE: &[u32] = &[0, 1];
const EDGES: &[u32] = &[0, 63, 127, 192, 321];

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

/// The forward pass of one kernel; `dim` is an argument of the plain one only.
fn forward(act: Act, case: &Case, kernel: &str, tolerance: f32) {
    let dim = case.heads.dim;
    let mut d = Device::new("attention.cu", act);
    let tiles = attention_tiles(case.cu_seqlens);
    let grid = [tiles.len() / 3, case.heads.query, 1];
    let (qkv, tb) = (d.act(&case.qkv), d.u32(&tiles));
    let (out, lse) = (d.act_out(case.out.len()), d.f32_out(case.lse.len()));
    match kernel {
        "attention_plain" => {
            d.launch(kernel, grid, 128, 0, args![qkv, tb, case.heads.query, case.heads.kv, dim, out, lse]);
        }
        _ => d.launch(kernel, grid, 128, 512 * dim, args![qkv, tb, case.heads.query, case.heads.kv, out, lse]),
    }
    close("out", &d.read_act(out), &case.out, tolerance);
    close("lse", &d.read_f32(lse), &case.lse, 5e-6);
}

#[test]
fn the_plain_twin_equals_the_cpu() {
    if !available() {
        return;
    }
    for (act, tolerance) in [(Act::F32, 5e-6), (Act::Bf16, 8e-3)] {
        forward(act, &case(act, Heads { dim: 40, ..HEADS }, MIXED), "attention_plain", tolerance);
    }
}

#[test]
fn tensor_cores_equal_the_cpu_to_the_rounding_of_their_weights() {
    if !available() {
        return;
    }
    // Weights are rounded to bf16 before they meet the values: 2⁻⁹ of each, on sums of up to 71 terms.
    for dim in [64, 128] {
        let case = case(Act::Bf16, Heads { dim, ..HEADS }, MIXED);
        forward(Act::Bf16, &case, &format!("attention_{dim}"), 0.02);
    }
}

fn backward(act: Act, case: &Case, suffix: &str, tolerance: f32) {
    let Heads { query, kv, dim } = case.heads;
    let mut d = Device::new("attention_backward.cu", act);
    let tiles = attention_tiles(case.cu_seqlens);
    let n = tiles.len() / 3;
    let [dout, qkv, out] = [&case.dout, &case.qkv, &case.out].map(|v| d.act(v));
    let (lse, tb, delta) = (d.f32(&case.lse), d.u32(&tiles), d.f32_out(case.lse.len()));
    let dqkv = d.act_out(case.qkv.len());
    let items = case.lse.len();
    d.launch("attention_delta", [items.div_ceil(4), 1, 1], 128, 0, args![dout, out, items, dim, delta]);
    for (pass, heads) in [("dq", query), ("dkv", kv)] {
        let kernel = format!("attention_{pass}_{suffix}");
        let args: &[_] = args![dout, qkv, lse, delta, tb, query, kv, dim, dqkv];
        match suffix {
            "plain" => d.launch(&kernel, [n, heads, 1], 128, 0, args),
            _ => d.launch(&kernel, [n, heads, 1], 128, 512 * dim, &[&args[..7], &args[8..]].concat()),
        }
    }
    close("dqkv", &d.read_act(dqkv), &case.dqkv, tolerance);
}

#[test]
fn plain_gradients_equal_the_cpus() {
    if !available() {
        return;
    }
    for act in ACTS {
        let case = case(act, Heads { dim: 24, ..HEADS }, MIXED);
        backward(act, &case, "plain", if act == Act::F32 { 2e-5 } else { 0.02 });
    }
}

#[test]
fn tensor_core_gradients_equal_the_cpus() {
    if !available() {
        return;
    }
    for dim in [64, 128] {
        let case = case(Act::Bf16, Heads { dim, ..HEADS }, MIXED);
        backward(Act::Bf16, &case, &dim.to_string(), 0.04);
    }
}

#[test]
fn sequences_at_the_edges_of_tiles_and_groups_of_other_sizes() {
    if !available() {
        return;
    }
    let groups = [(1, 1), (3, 3), (3, 1), (7, 1)];
    for (cu_seqlens, (query, kv)) in [ALONE, EDGES].into_iter().zip([(7, 1), (3, 1)]).chain(groups.map(|g| (ALONE, g)))
    {
        let case = case(Act::Bf16, Heads { query, kv, dim: 64 }, cu_seqlens);
        forward(Act::Bf16, &case, "attention_64", 0.02);
        backward(Act::Bf16, &case, "64", 0.04);
    }
    // Heads that are no multiple of anything, as r1_mini's student has.
    for (heads, cu_seqlens) in [
        (Heads { query: 4, kv: 2, dim: 12 }, EDGES),
        (Heads { query: 7, kv: 1, dim: 6 }, MIXED),
        (Heads { query: 3, kv: 3, dim: 2 }, ALONE),
    ] {
        let case = case(Act::Bf16, heads, cu_seqlens);
        forward(Act::Bf16, &case, "attention_plain", 8e-3);
        backward(Act::Bf16, &case, "plain", 0.02);
    }
}
