//! Attention over packed sequences, forward and backward: tensor-core passes and their plain twins against the CPU.

use gristmill::backend::cuda::geometry::attention_tiles;
use gristmill::backend::{Backend, Cpu, Heads};

use crate::args;
use crate::shim::{ACTS, Act, Device, available, close};

/// Sequences of one token, of less than a tile, of exactly one, of one and a bit, and none.
const CU_SEQLENS: [u32; 6] = [0, 1, 38, 102, 102, 173];

struct Case {
    heads: Heads,
    qkv: Vec<f32>,
    dout: Vec<f32>,
    out: Vec<f32>,
    lse: Vec<f32>,
    dqkv: Vec<f32>,
}

fn case(act: Act, dim: usize) -> Case {
    let (cpu, heads, rows) = (Cpu::new(), Heads { query: 4, kv: 2, dim }, CU_SEQLENS[5] as usize);
    let qkv = act.random(rows * heads.qkv_width(), 1);
    let dout = act.random(rows * heads.out_width(), 2);
    let (mut out, mut lse) = (vec![0.0; rows * heads.out_width()], vec![0.0; rows * heads.query]);
    cpu.attention(&qkv, &CU_SEQLENS, heads, &mut out, &mut lse);
    out.iter_mut().for_each(|x| *x = act.round(*x));
    let mut dqkv = vec![0.0; qkv.len()];
    cpu.attention_backward(&dout, &qkv, &out, &lse, &CU_SEQLENS, heads, &mut dqkv);
    Case { heads, qkv, dout, out, lse, dqkv }
}

/// The forward pass of one kernel; `dim` is an argument of the plain one only.
fn forward(act: Act, dim: usize, kernel: &str, tolerance: f32) {
    let case = case(act, dim);
    let mut d = Device::new("attention.cu", act);
    let tiles = attention_tiles(&CU_SEQLENS);
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
        forward(act, 40, "attention_plain", tolerance);
    }
}

#[test]
fn tensor_cores_equal_the_cpu_to_the_rounding_of_their_weights() {
    if !available() {
        return;
    }
    // Weights are rounded to bf16 before they meet the values: 2⁻⁹ of each, on sums of up to 71 terms.
    forward(Act::Bf16, 64, "attention_64", 0.02);
    forward(Act::Bf16, 128, "attention_128", 0.02);
}

fn backward(act: Act, dim: usize, suffix: &str, tolerance: f32) {
    let case = case(act, dim);
    let Heads { query, kv, .. } = case.heads;
    let mut d = Device::new("attention_backward.cu", act);
    let tiles = attention_tiles(&CU_SEQLENS);
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
        backward(act, 24, "plain", if act == Act::F32 { 2e-5 } else { 0.02 });
    }
}

#[test]
fn tensor_core_gradients_equal_the_cpus() {
    if !available() {
        return;
    }
    backward(Act::Bf16, 64, "64", 0.04);
    backward(Act::Bf16, 128, "128", 0.04);
}
