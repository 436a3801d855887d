//! The head's kernels over tiles, against the CPU's head whole.

use gristmill::backend::{Backend, Cpu, Param};

use crate::args;
use crate::shim::{ACTS, Act, Arg, Device, available, close, random};

/// A head whose weight is the identity: logits are the inputs.
fn identity(vocab: usize) -> Param<Cpu> {
    let cpu = Cpu::new();
    let mut value = vec![0.0; vocab * vocab];
    (0..vocab).for_each(|i| value[i * vocab + i] = 1.0);
    let mut param = Param { value, ready: cpu.ready(vocab, vocab, true), rows: vocab, cols: vocab };
    cpu.publish(&mut param);
    param
}

/// Columns `first..first + count` of rows.
fn columns(x: &[f32], width: usize, first: usize, count: usize) -> Vec<f32> {
    x.chunks_exact(width).flat_map(|row| row[first..first + count].to_vec()).collect()
}

#[test]
fn a_softmax_joined_tile_by_tile_is_the_cpus() {
    if !available() {
        return;
    }
    let (rows, vocab, tile) = (6, 301, 128);
    let x: Vec<f32> = random(rows * vocab, 1).into_iter().map(|x| 3.0 * x).collect();
    // In each tile, at its edges, and in the last, short one.
    let targets = [0, 127, 128, 255, 256, 300];
    let mut d = Device::new("head.cu", Act::F32);
    let (state, tb) = (d.f32_out(rows * 4), d.u32(&targets));
    for first in (0..vocab).step_by(tile) {
        let count = tile.min(vocab - first);
        let logits = d.f32(&columns(&x, vocab, first, count));
        d.launch("head_join", [2, 1, 1], 128, 0, args![state, logits, tb, rows, first, count]);
    }
    let out = [0; 3].map(|_| d.f32_out(rows));
    d.launch("head_finish", [1, 1, 1], 128, 0, args![state, rows, out[0], out[1], out[2]]);
    let mut want = [0; 3].map(|_| vec![0.0; rows]);
    let [logprob, entropy, lse] = &mut want;
    Cpu::new().head(&x, &identity(vocab), &targets, logprob, entropy, lse, &mut vec![]);
    for ((name, out), want) in ["logprob", "entropy", "lse"].into_iter().zip(out).zip(&want) {
        close(name, &d.read_f32(out), want, 5e-6);
    }
}

#[test]
fn the_gradient_of_the_logits_is_the_cpus() {
    if !available() {
        return;
    }
    for act in ACTS {
        for with_entropy in [false, true] {
            let (rows, vocab, tile, cpu) = (5, 301, 128, Cpu::new());
            let x = random(rows * vocab, 1);
            let (targets, g, h) = ([3, 127, 128, 260, 300], random(rows, 2), random(rows, 3));
            let head = identity(vocab);
            let mut want = [0; 3].map(|_| vec![0.0; rows]);
            let [logprob, entropy, lse] = &mut want;
            cpu.head(&x, &head, &targets, logprob, entropy, lse, &mut vec![]);
            // With the identity as its weight, dx of the CPU's head is dz.
            let (mut want, mut dw) = (vec![0.0; rows * vocab], vec![0.0; vocab * vocab]);
            let gh = with_entropy.then_some(&h[..]);
            cpu.head_backward(&x, &head, &targets, entropy, lse, &mut vec![], &g, gh, &mut want, Some(&mut dw));
            let mut d = Device::new("head.cu", act);
            let tb = d.u32(&targets);
            let [eb, lb, gb, hb] = [&*entropy, &*lse, &g, &h].map(|v| d.f32(v));
            let hb = if with_entropy { Arg::Buf(hb) } else { Arg::Null };
            for first in (0..vocab).step_by(tile) {
                let count = tile.min(vocab - first);
                let logits = d.f32(&columns(&x, vocab, first, count));
                let dz = d.act_out(rows * count);
                let args = [args![dz, logits, tb, eb, lb, gb], &[hb][..], args![rows, first, count]].concat();
                d.launch("head_seed", [2, 1, 1], 128, 0, &args);
                act.close("dz", &d.read_act(dz), &columns(&want, vocab, first, count));
            }
        }
    }
}
