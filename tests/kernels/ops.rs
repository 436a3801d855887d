//! The ops between the GEMMs, kernel against CPU at odd sizes.

use gristmill::backend::{AdamW, Backend, Cpu, Heads, Param};

use crate::args;
use crate::shim::{ACTS, Act, Arg, Device, available, close, collect, random};

/// A vector parameter.
pub fn vector(value: Vec<f32>) -> Param<Cpu> {
    Param { rows: 1, cols: value.len(), value, ready: Vec::new() }
}

/// Widths below, at and past a warp's eight values a lane, and not multiples of eight.
const WIDTHS: [usize; 4] = [5, 64, 261, 1032];

#[test]
fn rms_norm_and_its_fused_sum_equal_the_cpus() {
    if !available() {
        return;
    }
    for act in ACTS {
        for width in WIDTHS {
            let (cpu, rows, eps) = (Cpu::new(), 7, 1e-6);
            let (x, delta) = (act.random(rows * width, 1), act.random(rows * width, 2));
            let weight = vector(random(width, 3));
            let mut d = Device::new("rms_norm.cu", act);
            let [xb, db] = [&x, &delta].map(|v| d.act(v));
            let wb = d.f32(&weight.value);
            let [sum, y] = [0; 2].map(|_| d.act_out(rows * width));
            let rstd = d.f32_out(rows);
            let grid = [rows.div_ceil(4), 1, 1];
            d.launch("rms_norm", grid, 128, 0, args![xb, wb, rows, width, eps, y, rstd]);
            let (mut want, mut want_rstd) = (vec![0.0; rows * width], vec![0.0; rows]);
            cpu.rms_norm(&x, &weight, rows, eps, &mut want, &mut want_rstd);
            act.close("y", &d.read_act(y), &want);
            close("rstd", &d.read_f32(rstd), &want_rstd, 2e-6);

            d.launch("add_rms_norm", grid, 128, 0, args![xb, db, wb, rows, width, eps, sum, y, rstd]);
            let mut want_sum = vec![0.0; rows * width];
            cpu.add_rms_norm(&x, &delta, &weight, rows, eps, &mut want_sum, &mut want, &mut want_rstd);
            act.close("sum", &d.read_act(sum), &want_sum);
            act.close("fused y", &d.read_act(y), &want);
        }
    }
}

#[test]
fn rms_norm_backward_adds_to_dx_and_sums_dweight_over_chunks() {
    if !available() {
        return;
    }
    for act in ACTS {
        for (rows, width) in [(3, 5), (33, 261), (70, 1032)] {
            let cpu = Cpu::new();
            let [dy, x, dx] = [1, 2, 3].map(|seed| act.random(rows * width, seed));
            let weight = vector(random(width, 4));
            let rstd: Vec<f32> = random(rows, 5).into_iter().map(|x| x.abs() + 0.5).collect();
            let chunks = rows.div_ceil(32);
            let mut d = Device::new("rms_norm.cu", act);
            let [dyb, xb, dxb] = [&dy, &x, &dx].map(|v| d.act(v));
            let [wb, rb] = [&weight.value, &rstd].map(|v| d.f32(v));
            let partial = d.f32_out(chunks * width);
            d.launch(
                "rms_norm_backward",
                [chunks, 1, 1],
                128,
                4 * width,
                args![dyb, xb, wb, rb, rows, width, dxb, partial],
            );
            let (mut want, mut want_dweight) = (dx, random(width, 6));
            let dweight = add_columns(&want_dweight, &d.read_f32(partial), chunks, width);
            cpu.rms_norm_backward(&dy, &x, &weight, &rstd, rows, &mut want, &mut want_dweight);
            act.close("dx", &d.read_act(dxb), &want);
            close("dweight", &dweight, &want_dweight, 1e-5);
        }
    }
}

/// `reduce.cu` on partial sums.
pub fn add_columns(out: &[f32], partial: &[f32], chunks: usize, width: usize) -> Vec<f32> {
    let mut d = Device::new("reduce.cu", Act::F32);
    let (ob, pb) = (d.f32(out), d.f32(partial));
    d.launch("add_columns", [width.div_ceil(32), 1, 1], 1024, 0, args![ob, pb, chunks, width, width]);
    d.read_f32(ob)
}

#[test]
fn a_bias_is_added_and_its_gradient_summed() {
    if !available() {
        return;
    }
    for act in ACTS {
        for (rows, width) in [(1, 9), (65, 264), (130, 31)] {
            let (x, bias) = (act.random(rows * width, 1), random(width, 2));
            let mut d = Device::new("cast.cu", act);
            let (y, bb) = (d.act(&x), d.f32(&bias));
            d.launch("add_bias", [width.div_ceil(1024), rows, 1], 128, 0, args![y, bb, width]);
            let want: Vec<f32> = x.iter().enumerate().map(|(i, x)| act.round(x + bias[i % width])).collect();
            assert_eq!(d.read_act(y), want);

            let mut d = Device::new("reduce.cu", act);
            let chunks = rows.div_ceil(64);
            let (xb, partial) = (d.act(&x), d.f32_out(chunks * width));
            d.launch("column_sum", [width.div_ceil(256), chunks, 1], 32, 0, args![partial, xb, rows, width]);
            let mut want: Vec<f64> = bias.iter().map(|&b| f64::from(b)).collect();
            x.iter().enumerate().for_each(|(i, &x)| want[i % width] += f64::from(x));
            let want: Vec<f32> = want.into_iter().map(|x| x as f32).collect();
            close("dbias", &add_columns(&bias, &d.read_f32(partial), chunks, width), &want, 1e-5);
        }
    }
}

#[test]
fn publishing_rounds_to_nearest_even_and_keeps_what_is_not_finite() {
    if !available() {
        return;
    }
    let mut values = random(4099, 1);
    values.extend([f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, 3.4e38, 1e-40]);
    let mut d = Device::new("cast.cu", Act::Bf16);
    let (to, from) = (d.act_out(values.len()), d.f32(&values));
    d.launch("publish", [values.len().div_ceil(2048), 1, 1], 256, 0, args![to, from, values.len() as u64]);
    let want: Vec<u32> = values.iter().map(|&x| half::bf16::from_f32(x).to_f32().to_bits()).collect();
    assert_eq!(d.read_act(to).into_iter().map(f32::to_bits).collect::<Vec<_>>(), want);
}

#[test]
fn swiglu_equals_the_cpus_both_ways() {
    if !available() {
        return;
    }
    for act in ACTS {
        for (rows, width) in [(3, 7), (2, 1032), (5, 40)] {
            let cpu = Cpu::new();
            let (gate_up, dout) = (act.random(rows * 2 * width, 1), act.random(rows * width, 2));
            let mut d = Device::new("swiglu.cu", act);
            let (gb, db) = (d.act(&gate_up), d.act(&dout));
            let (out, dgate_up) = (d.act_out(rows * width), d.act_out(rows * 2 * width));
            let grid = [width.div_ceil(1024), rows, 1];
            d.launch("swiglu", grid, 128, 0, args![gb, width, out]);
            d.launch("swiglu_backward", grid, 128, 0, args![db, gb, width, dgate_up]);
            let (mut want, mut want_d) = (vec![0.0; rows * width], vec![0.0; rows * 2 * width]);
            cpu.swiglu(&gate_up, width, rows, &mut want);
            cpu.swiglu_backward(&dout, &gate_up, width, rows, &mut want_d);
            act.close("out", &d.read_act(out), &want);
            act.close("dgate_up", &d.read_act(dgate_up), &want_d);
        }
    }
}

#[test]
fn rope_turns_queries_and_keys_and_nothing_else() {
    if !available() {
        return;
    }
    for act in ACTS {
        for dim in [6, 64, 80] {
            let (cpu, heads, rows) = (Cpu::new(), Heads { query: 3, kv: 1, dim }, 5);
            let x = act.random(rows * heads.qkv_width(), 1);
            let (positions, table) = (vec![0, 11, 3, 3, 7], random(12 * dim, 2));
            for inverse in [false, true] {
                let mut d = Device::new("rope.cu", act);
                let (qkv, pb, tb) = (d.act(&x), d.u32(&positions), d.f32(&table));
                let sign = if inverse { -1.0 } else { 1.0f32 };
                d.launch("rope", [rows, 1, 1], 128, 0, args![qkv, pb, tb, heads.query, heads.kv, dim, sign]);
                let mut want = x.clone();
                cpu.rope(&mut want, &positions, &table, heads, rows, inverse);
                let found = d.read_act(qkv);
                act.close("qkv", &found, &want);
                let value = 4 * dim;
                assert_eq!(found[value..5 * dim], x[value..5 * dim], "values are not turned");
            }
        }
    }
}

#[test]
fn qk_norm_equals_the_cpus_both_ways() {
    if !available() {
        return;
    }
    for act in ACTS {
        for (dim, rows) in [(10, 3), (64, 17), (128, 5), (256, 2)] {
            let (cpu, heads, eps) = (Cpu::new(), Heads { query: 4, kv: 2, dim }, 1e-6);
            let (len, normed) = (rows * heads.qkv_width(), heads.query + heads.kv);
            let (x, dqkv) = (act.random(len, 1), act.random(len, 2));
            let (q, k) = (vector(random(dim, 3)), vector(random(dim, 4)));
            let mut d = Device::new("qk_norm.cu", act);
            let (qkv, before, rstd) = (d.act(&x), d.act_out(len), d.f32_out(rows * normed));
            let [qb, kb] = [&q, &k].map(|w| d.f32(&w.value));
            let grid = [(rows * (heads.query + 2 * heads.kv)).div_ceil(4), 1, 1];
            d.launch("qk_norm", grid, 128, 0, args![qkv, before, qb, kb, heads.query, heads.kv, dim, rows, eps, rstd]);
            let (mut want, mut kept, mut want_rstd) = (x.clone(), vec![0.0; len], vec![0.0; rows * normed]);
            cpu.qk_norm(&mut want, &mut kept, (&q, &k), heads, rows, eps, &mut want_rstd);
            act.close("qkv", &d.read_act(qkv), &want);
            assert_eq!(d.read_act(before), kept);
            close("rstd", &d.read_f32(rstd), &want_rstd, 2e-6);

            let chunks = rows.div_ceil(16);
            let (db, rb, partial) = (d.act(&dqkv), d.f32(&want_rstd), d.f32_out(chunks * 2 * dim));
            d.launch(
                "qk_norm_backward",
                [chunks, 1, 1],
                128,
                0,
                args![db, before, qb, kb, rb, heads.query, heads.kv, dim, rows, partial],
            );
            let (mut want_d, mut dq, mut dk) = (dqkv, vec![0.0; dim], vec![0.0; dim]);
            cpu.qk_norm_backward(&mut want_d, &kept, (&q, &k), &want_rstd, heads, rows, (&mut dq, &mut dk));
            act.close("dqkv", &d.read_act(db), &want_d);
            dq.extend(dk);
            let sums = add_columns(&vec![0.0; 2 * dim], &d.read_f32(partial), chunks, 2 * dim);
            close("dweights", &sums, &dq, 1e-5);
        }
    }
}

#[test]
fn rows_are_gathered_and_scattered_back_in_order() {
    if !available() {
        return;
    }
    for act in ACTS {
        for width in [9, 264] {
            let (vocab, cpu) = (11, Cpu::new());
            let tokens: Vec<u32> = (0..70).map(|t| (t * t + 3 * (t / 40)) % vocab as u32).collect();
            let rows = tokens.len();
            let table = act.random(vocab * width, 1);
            let (dout, grad) = (act.random(rows * width, 2), random(vocab * width, 3));
            let mut d = Device::new("embedding.cu", act);
            let (tb, kb, out) = (d.act(&table), d.u32(&tokens), d.act_out(rows * width));
            d.launch("gather_rows", [rows, 1, 1], 128, 0, args![out, tb, kb, width]);
            let mut want = vec![0.0; rows * width];
            cpu.gather(&table, &tokens, width, &mut want);
            assert_eq!(d.read_act(out), want);

            let [next, first] = [0; 2].map(|_| d.u32(&vec![u32::MAX; rows]));
            d.launch("embed_chain", [rows.div_ceil(4), 1, 1], 128, 0, args![next, first, kb, rows]);
            let (db, gb) = (d.act(&dout), d.f32(&grad));
            let grid = [rows, width.div_ceil(256), 1];
            d.launch("embed_backward", grid, 32, 0, args![gb, db, kb, next, first, rows, width]);
            let mut want = grad;
            cpu.embed_backward(&dout, &tokens, rows, width, &mut want);
            assert_eq!(d.read_f32(gb), want, "same additions in the same order");

            let index: Vec<u32> = vec![4, 0, 9];
            let mut d = Device::new("embedding.cu", act);
            let (xb, ib, out) = (d.act(&table[..3 * width]), d.u32(&index), d.act(&vec![0.0; vocab * width]));
            d.launch("scatter_rows", [3, 1, 1], 128, 0, args![out, xb, ib, width]);
            let mut want = vec![1.0; vocab * width];
            cpu.scatter(&table[..3 * width].to_vec(), &index, width, vocab, &mut want);
            assert_eq!(d.read_act(out), want);
        }
    }
}

#[test]
fn adamw_takes_the_cpus_steps_bit_by_bit() {
    if !available() {
        return;
    }
    let len = 2051;
    let (mut value, grad) = (random(len, 1), random(len, 2));
    let (mut first, mut second) = (random(len, 3), random(len, 4).into_iter().map(f32::abs).collect::<Vec<_>>());
    let rule = AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, step: 3, grad_scale: 0.7 };
    let corrections = [rule.beta1, rule.beta2].map(|b| 1.0 - f64::from(b).powf(rule.step as f64));
    let (step, root) = ((f64::from(rule.lr) / corrections[0]) as f32, (1.0 / corrections[1].sqrt()) as f32);
    let mut d = Device::new("optimizer.cu", Act::F32);
    let [v, g, m, s] = [&value, &grad, &first, &second].map(|x| d.f32(x));
    let decay = 1.0 - rule.lr * rule.weight_decay;
    let rest = [rule.beta1, rule.beta2, decay, rule.grad_scale, step, root, rule.eps].map(Arg::from);
    let args = [&args![v, g, m, s, len as u64][..], &rest].concat();
    d.launch("adamw", [len.div_ceil(1024), 1, 1], 256, 0, &args);
    Cpu::new().adamw(&mut value, &grad, (&mut first, &mut second), 0..len, &rule);
    assert_eq!(d.read_f32(v), value);
    assert_eq!(d.read_f32(m), first);
    assert_eq!(d.read_f32(s), second);
}

#[test]
fn square_sums_are_taken_in_chunks() {
    if !available() {
        return;
    }
    let x = random((1 << 14) * 2 + 77, 1);
    let mut d = Device::new("reduce.cu", Act::F32);
    let (xb, partial, total) = (d.f32(&x), d.f32_out(3), d.bytes(&[0xff; 8]));
    d.launch("square_sum", [3, 1, 1], 256, 0, args![partial, xb, x.len() as u64]);
    d.launch("square_sum_total", [1, 1, 1], 256, 0, args![total, partial, Arg::Null, 3usize]);
    let found = f64::from_ne_bytes(d.read_bytes(total).try_into().unwrap());
    let want = Cpu::new().square_sum(&x);
    assert!((found - want).abs() < 1e-6 * want, "{found} for {want}");
}

#[test]
fn the_chunks_of_several_buffers_are_added_each_buffers_alone() {
    if !available() {
        return;
    }
    // More chunks than threads, one, none, and a few.
    let starts = [0, 700, 701, 701, 733];
    let chunks = random(733, 2);
    let mut d = Device::new("reduce.cu", Act::F32);
    let (partial, sb, totals) = (d.f32(&chunks), d.u32(&starts), d.bytes(&[0xff; 8 * 4]));
    d.launch("square_sum_total", [4, 1, 1], 256, 0, args![totals, partial, sb, 733usize]);
    let found: Vec<f64> = collect(d.read_bytes(totals));
    for (pair, found) in starts.windows(2).zip(found) {
        let want: f64 = chunks[pair[0] as usize..pair[1] as usize].iter().map(|&x| f64::from(x)).sum();
        assert!((found - want).abs() < 1e-12 * 700.0, "{pair:?}: {found} for {want}");
    }
}

#[test]
fn columns_of_many_and_few_chunks_are_added_to_what_is_there() {
    if !available() {
        return;
    }
    for (chunks, width, stride) in [(1, 5, 5), (31, 64, 70), (100, 33, 66)] {
        let (out, partial) = (random(width, 1), random((chunks - 1) * stride + width, 2));
        let mut d = Device::new("reduce.cu", Act::F32);
        let (ob, pb) = (d.f32(&out), d.f32(&partial));
        d.launch("add_columns", [width.div_ceil(32), 1, 1], 1024, 0, args![ob, pb, chunks, width, stride]);
        let sum = |j: usize| -> f64 { (0..chunks).map(|c| f64::from(partial[c * stride + j])).sum() };
        let want: Vec<f32> = (0..width).map(|j| (f64::from(out[j]) + sum(j)) as f32).collect();
        close("out", &d.read_f32(ob), &want, 1e-5);
    }
}

#[test]
fn a_buffer_is_added_to_another() {
    if !available() {
        return;
    }
    for len in [3, 2048, 2051] {
        let (out, term) = (random(len, 1), random(len, 2));
        let mut d = Device::new("reduce.cu", Act::F32);
        let (ob, tb) = (d.f32(&out), d.f32(&term));
        d.launch("add", [len.div_ceil(2048), 1, 1], 256, 0, args![ob, tb, len as u64]);
        let want: Vec<f32> = out.iter().zip(&term).map(|(a, b)| a + b).collect();
        assert_eq!(d.read_f32(ob), want);
    }
}

#[test]
fn the_parts_of_muon_are_its_formulas() {
    if !available() {
        return;
    }
    let len = 1030;
    let [update, momentum, grad] = [1, 2, 3].map(|seed| random(len, seed));
    let mut d = Device::new("optimizer.cu", Act::F32);
    let [u, m, g] = [&update, &momentum, &grad].map(|x| d.f32(x));
    let squares = d.bytes(&16.0f64.to_ne_bytes());
    let (grid, n) = ([len.div_ceil(1024), 1, 1], len as u64);
    d.launch("muon_momentum", grid, 256, 0, args![u, m, g, n, 0.9f32, 0.5f32, 1usize]);
    let (mut want_m, mut want_u) = (momentum, update);
    for i in 0..len {
        let g = 0.5 * grad[i];
        want_m[i] = 0.9f32.mul_add(want_m[i], (1.0 - 0.9) * g);
        want_u[i] = 0.9f32.mul_add(want_m[i], (1.0 - 0.9) * g);
    }
    assert_eq!((d.read_f32(m), d.read_f32(u)), (want_m.clone(), want_u.clone()));
    d.launch("muon_scale", grid, 256, 0, args![u, squares, n]);
    want_u.iter_mut().for_each(|u| *u /= 4.0 + 1e-7);
    d.launch("muon_polynomial", grid, 256, 0, args![u, g, n, -4.775f32, 2.0315f32]);
    want_u.iter_mut().zip(&grad).for_each(|(u, g)| *u = 2.0315f32.mul_add(*u, -4.775 * g));
    d.launch("muon_update", grid, 256, 0, args![m, u, n, 0.99f32, -0.02f32]);
    want_m.iter_mut().zip(&want_u).for_each(|(w, u)| *w = (-0.02f32).mul_add(*u, *w * 0.99));
    assert_eq!((d.read_f32(u), d.read_f32(m)), (want_u, want_m));
}
