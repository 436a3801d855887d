//! Every operation against finite differences, and against itself on more threads.

use std::array::from_fn;

use super::*;
use crate::seed::Rng;

fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut rng = Rng::new(seed);
    (0..len).map(|_| rng.normal() as f32).collect()
}

fn param(rows: usize, cols: usize, seed: u64) -> Param<Cpu> {
    let cpu = Cpu::new();
    let mut param = Param { value: random(rows * cols, seed), ready: cpu.ready(rows, cols, rows > 1), rows, cols };
    cpu.publish(&mut param);
    param
}

/// A loss that every output has its own share in.
fn dot(outputs: &[f32], shares: &[f32]) -> f64 {
    outputs.iter().zip(shares).map(|(y, c)| f64::from(*y) * f64::from(*c)).sum()
}

/// Compares `grad` with central differences of `loss` by every element of `x`.
fn differences(what: &str, x: &[f32], grad: &[f32], mut loss: impl FnMut(&[f32]) -> f64) {
    const STEP: f32 = 4e-3;
    let scale = grad.iter().fold(0.1f32, |a, g| a.max(g.abs()));
    let mut moved = x.to_vec();
    for i in 0..x.len() {
        moved[i] = x[i] + STEP;
        let up = loss(&moved);
        moved[i] = x[i] - STEP;
        let down = loss(&moved);
        moved[i] = x[i];
        let slope = ((up - down) / (2.0 * f64::from(STEP))) as f32;
        let error = (slope - grad[i]).abs();
        assert!(error < 4e-3 * scale + 4e-3 * grad[i].abs(), "{what}[{i}]: {} for a slope of {slope}", grad[i]);
    }
}

/// Backends whose bits must agree.
fn backends() -> [Cpu; 3] {
    [Cpu::serial(), Cpu::with_threads(2).unwrap(), Cpu::with_threads(5).unwrap()]
}

/// Runs `work` on every backend and checks that all gave the same bits.
fn same_bits(what: &str, work: impl Fn(&Cpu) -> Vec<Vec<f32>>) {
    let [one, more @ ..] = backends();
    let bits =
        |outputs: Vec<Vec<f32>>| outputs.into_iter().map(|v| v.into_iter().map(f32::to_bits).collect()).collect();
    let expected: Vec<Vec<u32>> = bits(work(&one));
    for cpu in more {
        assert_eq!(bits(work(&cpu)), expected, "{what} on {} threads", cpu.threads());
    }
}

#[test]
fn rms_norm_has_the_right_gradient() {
    let (cpu, rows, width, eps) = (Cpu::new(), 3, 21, 1e-5);
    let (x, delta, shares) = (random(rows * width, 1), random(rows * width, 2), random(rows * width, 3));
    let weight = param(1, width, 4);
    let forward = |x: &[f32], weight: &Param<Cpu>| {
        let [mut sum, mut y] = from_fn(|_| vec![0.0; rows * width]);
        let mut rstd = vec![0.0; rows];
        cpu.add_rms_norm(&x.to_vec(), &delta, weight, rows, eps, &mut sum, &mut y, &mut rstd);
        (sum, y, rstd)
    };
    let (sum, y, rstd) = forward(&x, &weight);
    let (mut plain, mut plain_rstd) = (vec![0.0; rows * width], vec![0.0; rows]);
    cpu.rms_norm(&sum, &weight, rows, eps, &mut plain, &mut plain_rstd);
    assert_eq!((&plain, &plain_rstd), (&y, &rstd), "fused and plain");
    let (mut dx, mut dweight) = (vec![0.0; rows * width], vec![0.0; width]);
    cpu.rms_norm_backward(&shares, &sum, &weight, &rstd, rows, &mut dx, &mut dweight);
    differences("dx", &x, &dx, |x| dot(&forward(x, &weight).1, &shares));
    differences("dweight", &weight.value.clone(), &dweight, |w| {
        let weight = Param { value: w.to_vec(), ready: vec![], rows: 1, cols: width };
        dot(&forward(&x, &weight).1, &shares)
    });
}

#[test]
fn linear_has_the_right_gradients() {
    let (cpu, rows, input, out) = (Cpu::new(), 5, 19, 37);
    let (x, shares) = (random(rows * input, 1), random(rows * out, 2));
    let (w, bias) = (param(out, input, 3), param(1, out, 4));
    let forward = |x: &[f32], w: &Param<Cpu>, bias: &Param<Cpu>| {
        let mut y = vec![0.0; rows * out];
        cpu.linear(&x.to_vec(), w, Some(bias), rows, &mut y);
        dot(&y, &shares)
    };
    let [mut dx, mut dw, mut dbias] = [rows * input, out * input, out].map(|len| vec![0.0; len]);
    cpu.linear_dx(&shares, &w, rows, &mut dx);
    cpu.linear_dw(&shares, &x, &w, rows, &mut dw, Some(&mut dbias));
    differences("dx", &x, &dx, |x| forward(x, &w, &bias));
    differences("dw", &w.value.clone(), &dw, |value| {
        let mut w = Param { value: value.to_vec(), ready: w.ready.clone(), rows: out, cols: input };
        cpu.publish(&mut w);
        forward(&x, &w, &bias)
    });
    differences("dbias", &bias.value.clone(), &dbias, |value| {
        forward(&x, &w, &Param { value: value.to_vec(), ready: vec![], rows: 1, cols: out })
    });
}

#[test]
fn rope_turns_back_and_its_transpose_is_its_inverse() {
    let (cpu, heads) = (Cpu::new(), Heads { query: 2, kv: 1, dim: 6 });
    let (positions, rows) = (vec![0, 7, 3], 3);
    let angles = random(10 * 3, 1);
    let table: Vec<f32> = angles
        .chunks_exact(3)
        .flat_map(|a| a.iter().map(|a| a.cos()).chain(a.iter().map(|a| a.sin())).collect::<Vec<_>>())
        .collect();
    let (x, shares) = (random(rows * heads.qkv_width(), 2), random(rows * heads.qkv_width(), 3));
    let forward = |x: &[f32]| {
        let mut y = x.to_vec();
        cpu.rope(&mut y, &positions, &table, heads, rows, false);
        y
    };
    let mut dx = shares.clone();
    cpu.rope(&mut dx, &positions, &table, heads, rows, true);
    differences("dx", &x, &dx, |x| dot(&forward(x), &shares));
    assert_eq!(forward(&x)[2 * 24 + 18..], x[2 * 24 + 18..], "values are not turned");
}

#[test]
fn qk_norm_has_the_right_gradients() {
    let (cpu, heads, rows, eps) = (Cpu::new(), Heads { query: 2, kv: 1, dim: 10 }, 3, 1e-5);
    let len = rows * heads.qkv_width();
    let (x, shares) = (random(len, 1), random(len, 2));
    let (q, k) = (param(1, 10, 3), param(1, 10, 4));
    let forward = |x: &[f32], q: &Param<Cpu>, k: &Param<Cpu>| {
        let (mut y, mut before, mut rstd) = (x.to_vec(), vec![0.0; len], vec![0.0; rows * 3]);
        cpu.qk_norm(&mut y, &mut before, (q, k), heads, rows, eps, &mut rstd);
        (y, before, rstd)
    };
    let (_, before, rstd) = forward(&x, &q, &k);
    let (mut dx, mut dq, mut dk) = (shares.clone(), vec![0.0; 10], vec![0.0; 10]);
    cpu.qk_norm_backward(&mut dx, &before, (&q, &k), &rstd, heads, rows, (&mut dq, &mut dk));
    differences("dx", &x, &dx, |x| dot(&forward(x, &q, &k).0, &shares));
    let vector = |v: &[f32]| Param { value: v.to_vec(), ready: vec![], rows: 1, cols: 10 };
    differences("dq", &q.value.clone(), &dq, |v| dot(&forward(&x, &vector(v), &k).0, &shares));
    differences("dk", &k.value.clone(), &dk, |v| dot(&forward(&x, &q, &vector(v)).0, &shares));
}

/// Softmax attention as its definition says, in f64.
fn naive_attention(qkv: &[f32], cu_seqlens: &[u32], heads: Heads) -> Vec<f32> {
    let (width, dim) = (heads.qkv_width(), heads.dim);
    let mut out = vec![0.0; *cu_seqlens.last().unwrap() as usize * heads.out_width()];
    let at = |row: usize, head: usize| &qkv[row * width + head * dim..][..dim];
    for sequence in cu_seqlens.windows(2) {
        for row in sequence[0] as usize..sequence[1] as usize {
            for head in 0..heads.query {
                let kv = head / heads.group();
                let seen = sequence[0] as usize..row + 1;
                let scores: Vec<f64> = seen
                    .clone()
                    .map(|key| dot(at(row, head), at(key, heads.query + kv)) / (dim as f64).sqrt())
                    .collect();
                let total: f64 = scores.iter().map(|s| s.exp()).sum();
                for (score, key) in scores.iter().zip(seen) {
                    let value = at(key, heads.query + heads.kv + kv);
                    for (d, v) in value.iter().enumerate() {
                        out[row * heads.out_width() + head * dim + d] += (score.exp() / total) as f32 * v;
                    }
                }
            }
        }
    }
    out
}

#[test]
fn attention_is_the_definition_at_odd_sizes_and_across_blocks() {
    for heads in [
        Heads { query: 4, kv: 2, dim: 16 },
        Heads { query: 3, kv: 3, dim: 8 },
        Heads { query: 7, kv: 1, dim: 20 },
        Heads { query: 2, kv: 1, dim: 40 },
        Heads { query: 2, kv: 1, dim: 80 },
        Heads { query: 1, kv: 1, dim: 136 },
    ] {
        let cu_seqlens = [0, 1, 18, 18, 149];
        let qkv = random(149 * heads.qkv_width(), 1);
        let (mut out, mut lse) = (vec![0.0; 149 * heads.out_width()], vec![0.0; 149 * heads.query]);
        Cpu::new().attention(&qkv, &cu_seqlens, heads, &mut out, &mut lse);
        for (i, (a, b)) in out.iter().zip(naive_attention(&qkv, &cu_seqlens, heads)).enumerate() {
            assert!((a - b).abs() < 2e-5, "{heads:?} out[{i}] = {a}, not {b}");
        }
    }
}

#[test]
fn attention_has_the_right_gradient() {
    let (cpu, heads, cu_seqlens, rows) = (Cpu::new(), Heads { query: 4, kv: 2, dim: 6 }, [0, 3, 21], 21);
    let qkv = random(rows * heads.qkv_width(), 1);
    let shares = random(rows * heads.out_width(), 2);
    let forward = |qkv: &[f32]| {
        let (mut out, mut lse) = (vec![0.0; shares.len()], vec![0.0; rows * heads.query]);
        cpu.attention(&qkv.to_vec(), &cu_seqlens, heads, &mut out, &mut lse);
        (out, lse)
    };
    let (out, lse) = forward(&qkv);
    let mut dqkv = vec![f32::NAN; qkv.len()];
    cpu.attention_backward(&shares, &qkv, &out, &lse, &cu_seqlens, heads, &mut dqkv);
    differences("dqkv", &qkv, &dqkv, |qkv| dot(&forward(qkv).0, &shares));
}

#[test]
fn swiglu_has_the_right_gradient() {
    let (cpu, rows, width) = (Cpu::new(), 3, 21);
    let (x, shares) = (random(rows * 2 * width, 1), random(rows * width, 2));
    let mut dx = vec![0.0; x.len()];
    cpu.swiglu_backward(&shares, &x, width, rows, &mut dx);
    differences("dx", &x, &dx, |x| {
        let mut y = vec![0.0; rows * width];
        cpu.swiglu(&x.to_vec(), width, rows, &mut y);
        dot(&y, &shares)
    });
}

#[test]
fn embedding_adds_up_repeated_tokens() {
    let (cpu, tokens, shares) = (Cpu::new(), vec![2, 0, 2, 1], random(4 * 7, 2));
    let table = param(3, 7, 1);
    let mut grad = vec![0.0; 21];
    cpu.embed_backward(&shares, &tokens, 4, 7, &mut grad);
    differences("dtable", &table.value.clone(), &grad, |value| {
        let mut out = vec![0.0; 4 * 7];
        let table = Param { value: value.to_vec(), ready: vec![], rows: 3, cols: 7 };
        cpu.embed(&table, &tokens, 4, &mut out);
        dot(&out, &shares)
    });
}

#[test]
fn head_has_the_right_gradients_of_logprob_and_entropy() {
    let (cpu, rows, width, vocab) = (Cpu::new(), 4, 6, 35);
    let (x, w) = (random(rows * width, 1), param(vocab, width, 2));
    let targets = [0, 34, 16, 7];
    let (g, h) = (random(rows, 3), random(rows, 4));
    let forward = |x: &[f32], w: &Param<Cpu>| {
        let [mut logprob, mut entropy, mut lse] = from_fn(|_| vec![0.0; rows]);
        cpu.head(&x.to_vec(), w, &targets, &mut logprob, &mut entropy, &mut lse, &mut vec![]);
        (logprob, entropy, lse)
    };
    let loss = |x: &[f32], w: &Param<Cpu>| {
        let (logprob, entropy, _) = forward(x, w);
        dot(&logprob, &g) + dot(&entropy, &h)
    };
    let (_, entropy, lse) = forward(&x, &w);
    let (mut dx, mut dw) = (vec![0.0; rows * width], vec![0.0; vocab * width]);
    cpu.head_backward(&x, &w, &targets, &entropy, &lse, &mut vec![], &g, Some(&h), &mut dx, Some(&mut dw));
    // Logits that were kept give the same bits as those made again.
    let [mut logprob, mut entropy, mut lse] = from_fn(|_| vec![0.0; rows]);
    let (mut kept, mut dx_kept, mut dw_kept) = (vec![0.0; rows * vocab], vec![0.0; dx.len()], vec![0.0; dw.len()]);
    cpu.head(&x, &w, &targets, &mut logprob, &mut entropy, &mut lse, &mut kept);
    cpu.head_backward(&x, &w, &targets, &entropy, &lse, &mut kept, &g, Some(&h), &mut dx_kept, Some(&mut dw_kept));
    assert_eq!((&dx_kept, &dw_kept), (&dx, &dw));
    differences("dx", &x, &dx, |x| loss(x, &w));
    differences("dw", &w.value.clone(), &dw, |value| {
        let mut w = Param { value: value.to_vec(), ready: w.ready.clone(), rows: vocab, cols: width };
        cpu.publish(&mut w);
        loss(&x, &w)
    });
}

#[test]
fn head_in_tiles_is_the_softmax_of_whole_rows() {
    let (cpu, rows, width, vocab) = (Cpu::new(), 130, 8, 5000);
    let (x, w) = (random(rows * width, 1), param(vocab, width, 2));
    let targets: Vec<u32> = (0..rows as u32).map(|i| i * 37 % 5000).collect();
    let [mut logprob, mut entropy, mut lse] = from_fn(|_| vec![0.0; rows]);
    cpu.head(&x, &w, &targets, &mut logprob, &mut entropy, &mut lse, &mut vec![]);
    let mut logits = vec![0.0; rows * vocab];
    cpu.logits(&x, &w, rows, &mut logits);
    for (row, z) in logits.chunks_exact(vocab).enumerate() {
        let total = z.iter().map(|z| f64::from(*z).exp()).sum::<f64>().ln();
        let p = |z: f32| (f64::from(z) - total).exp();
        let exact: f64 = z.iter().map(|&z| -p(z) * (f64::from(z) - total)).sum();
        assert!((f64::from(logprob[row]) - (f64::from(z[targets[row] as usize]) - total)).abs() < 1e-5);
        assert!((f64::from(entropy[row]) - exact).abs() < 2e-5, "{} {exact}", entropy[row]);
        // The sampler sees the same log-sum-exp to the bit.
        assert_eq!(head::Softmax::of(z).lse().to_bits(), lse[row].to_bits());
    }
    // Gradients over several tiles: rows of dz sum to 0, so dx is orthogonal to a shift of all logits.
    let (mut dx, mut dw) = (vec![0.0; rows * width], vec![0.0; vocab * width]);
    let g = random(rows, 5);
    cpu.head_backward(&x, &w, &targets, &entropy, &lse, &mut vec![], &g, None, &mut dx, Some(&mut dw));
    for column in 0..width {
        let sum: f64 = dw[column..].iter().step_by(width).map(|d| f64::from(*d)).sum();
        assert!(sum.abs() < 1e-3, "{sum}");
    }
}

#[test]
fn threads_change_no_bit() {
    let heads = Heads { query: 4, kv: 2, dim: 16 };
    let (rows, width, vocab, input) = (1500, heads.qkv_width(), 3000, 64);
    let cu_seqlens = [0, 3, 700, 701, 1100, 1500];
    let qkv = random(rows * width, 1);
    let (w, norm) = (param(width, input, 2), param(1, input, 3));
    let (x, head) = (random(rows * input, 4), param(vocab, input, 5));
    let tokens: Vec<u32> = (0..rows as u32).map(|i| i * i % 40).collect();
    let wide: Vec<u32> = (0..rows as u32).map(|i| i * 31 % 3000).collect();
    same_bits("attention", |cpu| {
        let (mut out, mut lse) = (vec![0.0; rows * 64], vec![0.0; rows * 4]);
        cpu.attention(&qkv, &cu_seqlens, heads, &mut out, &mut lse);
        let mut dqkv = vec![0.0; qkv.len()];
        cpu.attention_backward(&x, &qkv, &out, &lse, &cu_seqlens, heads, &mut dqkv);
        vec![out, lse, dqkv]
    });
    same_bits("linear", |cpu| {
        let (mut y, mut dx) = (vec![0.0; rows * width], vec![0.0; rows * input]);
        let (mut dw, mut dbias) = (vec![0.0; width * input], vec![0.0; width]);
        cpu.linear(&x, &w, None, rows, &mut y);
        cpu.linear_dx(&qkv, &w, rows, &mut dx);
        cpu.linear_dw(&qkv, &x, &w, rows, &mut dw, Some(&mut dbias));
        vec![y, dx, dw, dbias]
    });
    same_bits("norm and embedding", |cpu| {
        let (mut y, mut rstd) = (vec![0.0; rows * input], vec![0.0; rows]);
        let (mut dx, mut dw, mut table) = (vec![0.0; rows * input], vec![0.0; input], vec![0.0; 40 * input]);
        cpu.rms_norm(&x, &norm, rows, 1e-6, &mut y, &mut rstd);
        cpu.rms_norm_backward(&y, &x, &norm, &rstd, rows, &mut dx, &mut dw);
        cpu.embed_backward(&x, &tokens, rows, input, &mut table);
        let sum = cpu.square_sum(&qkv).to_bits();
        vec![y, rstd, dx, dw, table, vec![f32::from_bits(sum as u32), f32::from_bits((sum >> 32) as u32)]]
    });
    same_bits("head", |cpu| {
        let [mut logprob, mut entropy, mut lse] = from_fn(|_| vec![0.0; rows]);
        let kept = &mut vec![];
        cpu.head(&x, &head, &wide, &mut logprob, &mut entropy, &mut lse, kept);
        let (mut dx, mut dw) = (vec![0.0; rows * input], vec![0.0; vocab * input]);
        cpu.head_backward(&x, &head, &wide, &entropy, &lse, kept, &logprob, Some(&entropy), &mut dx, Some(&mut dw));
        vec![logprob, entropy, lse, dx, dw]
    });
    same_bits("muon", |cpu| {
        let rule = Muon { lr: 0.1, momentum: 0.9, nesterov: true, weight_decay: 0.1, iterations: 5, grad_scale: 1.0 };
        let (mut value, mut momentum) = (w.value.clone(), vec![0.0; w.value.len()]);
        cpu.muon(&mut value, &qkv, &mut momentum, 0, (width, input), &rule);
        vec![value, momentum]
    });
}

#[test]
fn a_cached_row_has_the_bits_of_the_packed_row() {
    for heads in [Heads { query: 4, kv: 2, dim: 16 }, Heads { query: 6, kv: 2, dim: 12 }] {
        let (cpu, rows) = (Cpu::new(), 150);
        let qkv = random(rows * heads.qkv_width(), 1);
        let (mut packed, mut lse) = (vec![0.0; rows * heads.out_width()], vec![0.0; rows * heads.query]);
        cpu.attention(&qkv, &[0, rows as u32], heads, &mut packed, &mut lse);

        let mut cache = cpu.kv_cache(1, heads, 20);
        let positions: Vec<u32> = (0..70).collect();
        let mut cached = vec![0.0; packed.len()];
        // A prompt of 70 in pages here and there, then one token at a time with the prompt's last page copied.
        let (width, slots) = (10, vec![1; 70]);
        let mut table: Vec<u32> = (0..2 * width as u32).map(|place| (place * 7) % 20).collect();
        let at = Paged::<Cpu> { table: &table, width, slots: &slots, positions: &positions, rows: 70 };
        cpu.kv_append(&mut cache, 0, &qkv, &at);
        cpu.attention_cached(&cache, 0, &qkv, &at, &mut cached);
        let runs = [(0, 1), (1, 36), (37, 33)].map(|(row, rows)| Run { row, rows, position: row });
        let mut prefilled = vec![0.0; packed.len()];
        cpu.attention_prefill(&cache, 0, &qkv, &at, &runs, &mut prefilled);
        assert_eq!(prefilled, cached, "a run has the bits of its rows");
        for page in 0..4 {
            table[page] = table[width + page];
        }
        cpu.kv_copy(&mut cache, &[PageCopy { from: table[width + 4], to: table[4], len: 6 }]);
        for row in 70..rows {
            let one = qkv[row * heads.qkv_width()..][..heads.qkv_width()].to_vec();
            let mut out = vec![0.0; heads.out_width()];
            let at = Paged::<Cpu> { table: &table, width, slots: &vec![0], positions: &vec![row as u32], rows: 1 };
            cpu.kv_append(&mut cache, 0, &one, &at);
            cpu.attention_cached(&cache, 0, &one, &at, &mut out);
            cached[row * heads.out_width()..][..heads.out_width()].copy_from_slice(&out);
        }
        assert_eq!(cached, packed);
    }
}
