//! Every operation of the CUDA backend through the trait, against the CPU's: on the GPU where one was asked for
//! (`GRISTMILL_TEST_DEVICE=cuda`), else with the kernels on the host.

use std::sync::Arc;

use gristmill::backend::cuda::Buffer;
use gristmill::backend::{AdamW, Adapter, Backend, Cpu, Cuda, Draw, Drawn, Heads, Muon};

use crate::host::Host;
use crate::pair::{Pair, ROUNDED};
use crate::shim::{close_together, on_host, random};

#[test]
pub fn embedding_and_rows_by_index() {
    let Some(p) = Pair::new() else { return };
    let (vocab, width) = (11, 264);
    let tokens: Vec<u32> = (0..70).map(|t| (t * t + 3 * (t / 40)) % vocab as u32).collect();
    let rows = tokens.len();
    let (table, there) = p.param(vocab, width, false, 1);
    let (tokens, tokens_there) = p.u32(&tokens);
    let (mut want, mut found) = (vec![0.0; rows * width], p.gpu.act(rows * width));
    p.cpu.embed(&table, &tokens, rows, &mut want);
    p.gpu.embed(&there, &tokens_there, rows, &mut found);
    p.acts("embed", &found, &want, 0.0);

    let (dout, dout_there) = p.act(rows * width, 2);
    let (mut grad, mut grad_there) = p.f32(random(vocab * width, 3));
    p.cpu.embed_backward(&dout, &tokens, rows, width, &mut grad);
    p.gpu.embed_backward(&dout_there, &tokens_there, rows, width, &mut grad_there);
    p.f32s("embed_backward", &grad_there, &grad, 0.0);

    let index = [4, 0, 69, 9];
    let (mut want, mut found) = (vec![0.0; 4 * width], p.gpu.act(4 * width));
    p.cpu.gather(&dout, &index, width, &mut want);
    p.gpu.gather(&dout_there, &index, width, &mut found);
    p.acts("gather", &found, &want, 0.0);
    let (mut back, mut back_there) = p.act(rows * width, 4);
    p.cpu.scatter(&want, &index, width, rows, &mut back);
    p.gpu.scatter(&found, &index, width, rows, &mut back_there);
    p.acts("scatter", &back_there, &back, 0.0);
    p.gpu.zero_act(&mut back_there, 5 * width);
    back[..5 * width].fill(0.0);
    p.acts("zero_act", &back_there, &back, 0.0);
}

#[test]
pub fn rms_norm_alone_fused_and_backward() {
    let Some(p) = Pair::new() else { return };
    for (rows, width) in [(3, 40), (70, 261), (33, 1032)] {
        let (all, eps) = (rows * width, 1e-6);
        let ((x, xg), (delta, deltag), (weight, weightg)) = (p.act(all, 1), p.act(all, 2), p.param(1, width, false, 3));
        let (mut y, mut sum, mut rstd) = (vec![0.0; all], vec![0.0; all], vec![0.0; rows]);
        let (mut yg, mut sumg, mut rstdg) = (p.gpu.act(all), p.gpu.act(all), p.gpu.f32(rows));
        p.cpu.rms_norm(&x, &weight, rows, eps, &mut y, &mut rstd);
        p.gpu.rms_norm(&xg, &weightg, rows, eps, &mut yg, &mut rstdg);
        p.acts("y", &yg, &y, ROUNDED);
        p.f32s("rstd", &rstdg, &rstd, 2e-6);
        p.cpu.add_rms_norm(&x, &delta, &weight, rows, eps, &mut sum, &mut y, &mut rstd);
        p.gpu.add_rms_norm(&xg, &deltag, &weightg, rows, eps, &mut sumg, &mut yg, &mut rstdg);
        p.acts("sum", &sumg, &sum, ROUNDED);
        p.acts("fused y", &yg, &y, ROUNDED);

        let ((dy, dyg), (mut dx, mut dxg)) = (p.act(all, 4), p.act(all, 5));
        let (mut dw, mut dwg) = p.f32(random(width, 6));
        let (rstd, rstdg) = p.f32(rstd);
        p.cpu.rms_norm_backward(&dy, &x, &weight, &rstd, rows, &mut dx, &mut dw);
        p.gpu.rms_norm_backward(&dyg, &xg, &weightg, &rstdg, rows, &mut dxg, &mut dwg);
        p.acts("dx", &dxg, &dx, ROUNDED);
        p.f32s("dweight", &dwg, &dw, 1e-5);
    }
}

#[test]
pub fn linear_layers_and_their_three_gradients() {
    let Some(p) = Pair::new() else { return };
    for (rows, out, input) in [(1, 24, 40), (70, 264, 32)] {
        let ((w, wg), (bias, biasg)) = (p.param(out, input, true, 1), p.param(1, out, false, 2));
        let ((x, xg), (dy, dyg)) = (p.act(rows * input, 3), p.act(rows * out, 4));
        for with_bias in [false, true] {
            let (mut y, mut yg) = (vec![0.0; rows * out], p.gpu.act(rows * out));
            p.cpu.linear(&x, &w, with_bias.then_some(&bias), rows, &mut y);
            p.gpu.linear(&xg, &wg, with_bias.then_some(&biasg), rows, &mut yg);
            p.acts("y", &yg, &y, 2.0 * ROUNDED);
        }
        let (mut dx, mut dxg) = (vec![0.0; rows * input], p.gpu.act(rows * input));
        p.cpu.linear_dx(&dy, &w, rows, &mut dx);
        p.gpu.linear_dx(&dyg, &wg, rows, &mut dxg);
        p.acts("dx", &dxg, &dx, ROUNDED);
        let ((mut dw, mut dwg), (mut db, mut dbg)) = (p.f32(random(out * input, 5)), p.f32(random(out, 6)));
        p.cpu.linear_dw(&dy, &x, &w, rows, &mut dw, Some(&mut db));
        p.gpu.linear_dw(&dyg, &xg, &wg, rows, &mut dwg, Some(&mut dbg));
        p.cpu.linear_dw(&dy, &x, &w, rows, &mut dw, None);
        p.gpu.linear_dw(&dyg, &xg, &wg, rows, &mut dwg, None);
        p.f32s("dw", &dwg, &dw, 1e-4);
        p.f32s("dbias", &dbg, &db, 1e-4);
    }
}

#[test]
pub fn linear_layers_whose_sums_are_cut_into_parts() {
    let Some(p) = Pair::new() else { return };
    let mut pairs = vec![p];
    if on_host() {
        // A library that has no algorithm for the parts, nor for the whole.
        pairs.push(Pair { cpu: Cpu::new(), gpu: Cuda::on(Arc::new(Host::without_algorithms())) });
    }
    let (out, input) = (24, 3072);
    for p in pairs {
        let ((w, wg), (bias, biasg)) = (p.param(out, input, true, 1), p.param(1, out, false, 2));
        for (rows, with_bias) in [(1, false), (5, true), (513, true)] {
            let (x, xg) = p.act(rows * input, 3);
            let (mut y, mut yg) = (vec![0.0; rows * out], p.gpu.act(rows * out));
            p.cpu.linear(&x, &w, with_bias.then_some(&bias), rows, &mut y);
            p.gpu.linear(&xg, &wg, with_bias.then_some(&biasg), rows, &mut yg);
            p.acts(&format!("{rows} rows"), &yg, &y, 2.0 * ROUNDED);

            // The same added to a residual stream and normalised.
            let ((residual, residualg), (norm, normg)) = (p.act(rows * out, 4), p.param(1, out, false, 5));
            let (w, wg) = ((&w, with_bias.then_some(&bias)), (&wg, with_bias.then_some(&biasg)));
            let (mut sum, mut sumg) = (y.clone(), p.gpu.act(rows * out));
            let (mut normed, mut normedg) = (y.clone(), p.gpu.act(rows * out));
            let (mut rstd, mut rstdg) = (vec![0.0; rows], p.gpu.f32(rows));
            let eps = 1e-6;
            p.cpu.linear_add_rms_norm(&x, w, &mut y, &residual, &norm, rows, eps, &mut sum, &mut normed, &mut rstd);
            p.gpu.linear_add_rms_norm(
                &xg,
                wg,
                &mut yg,
                &residualg,
                &normg,
                rows,
                eps,
                &mut sumg,
                &mut normedg,
                &mut rstdg,
            );
            p.acts(&format!("{rows} rows, sum"), &sumg, &sum, 2.0 * ROUNDED);
            p.acts(&format!("{rows} rows, normed"), &normedg, &normed, 2.0 * ROUNDED);
            p.f32s(&format!("{rows} rows, rstd"), &rstdg, &rstd, ROUNDED);
        }
    }
}

#[test]
pub fn query_key_norm_and_rotation() {
    let Some(p) = Pair::new() else { return };
    for (dim, rows) in [(12, 5), (40, 17), (128, 33)] {
        let (heads, eps) = (Heads { query: 4, kv: 2, dim }, 1e-6);
        let (all, normed) = (rows * heads.qkv_width(), rows * (heads.query + heads.kv));
        let ((q, qg), (k, kg)) = (p.param(1, dim, false, 1), p.param(1, dim, false, 2));
        let (mut x, mut xg) = p.act(all, 3);
        let (mut kept, mut rstd) = (vec![0.0; all], vec![0.0; normed]);
        let (mut keptg, mut rstdg) = (p.gpu.act(all), p.gpu.f32(normed));
        p.cpu.qk_norm(&mut x, &mut kept, (&q, &k), heads, rows, eps, &mut rstd);
        p.gpu.qk_norm(&mut xg, &mut keptg, (&qg, &kg), heads, rows, eps, &mut rstdg);
        p.acts("qkv", &xg, &x, ROUNDED);
        p.acts("before", &keptg, &kept, 0.0);
        p.f32s("rstd", &rstdg, &rstd, 2e-6);

        let ((mut d, mut dg), (rstd, rstdg)) = (p.act(all, 4), p.f32(rstd));
        let ((mut dq, mut dqg), (mut dk, mut dkg)) = (p.f32(random(dim, 5)), p.f32(random(dim, 6)));
        p.cpu.qk_norm_backward(&mut d, &kept, (&q, &k), &rstd, heads, rows, (&mut dq, &mut dk));
        p.gpu.qk_norm_backward(&mut dg, &keptg, (&qg, &kg), &rstdg, heads, rows, (&mut dqg, &mut dkg));
        p.acts("dqkv", &dg, &d, ROUNDED);
        p.f32s("dq", &dqg, &dq, 1e-5);
        p.f32s("dk", &dkg, &dk, 1e-5);

        let positions: Vec<u32> = (0..rows as u32).map(|i| i * 7 % 12).collect();
        let ((positions, positionsg), (table, tableg)) = (p.u32(&positions), p.f32(random(12 * dim, 7)));
        for inverse in [false, true] {
            let (mut x, mut xg) = p.act(all, 8);
            p.cpu.rope(&mut x, &positions, &table, heads, rows, inverse);
            p.gpu.rope(&mut xg, &positionsg, &tableg, heads, rows, inverse);
            p.acts("rope", &xg, &x, ROUNDED);
        }
    }
}

#[test]
pub fn attention_over_packed_sequences() {
    let Some(p) = Pair::new() else { return };
    // One token, less than a tile, none, one tile and a bit. All three families of kernels.
    let cu_seqlens = [0, 1, 38, 38, 168];
    for dim in [12, 16, 40, 64, 128] {
        let (heads, rows) = (Heads { query: 4, kv: 2, dim }, 168);
        let ((qkv, qkvg), (dout, doutg)) = (p.act(rows * heads.qkv_width(), 1), p.act(rows * heads.out_width(), 2));
        let (mut out, mut lse) = (vec![0.0; rows * heads.out_width()], vec![0.0; rows * heads.query]);
        let (mut outg, mut lseg) = (p.gpu.act(out.len()), p.gpu.f32(lse.len()));
        p.cpu.attention(&qkv, &cu_seqlens, heads, &mut out, &mut lse);
        p.gpu.attention(&qkvg, &cu_seqlens, heads, &mut outg, &mut lseg);
        p.acts("out", &outg, &out, 0.02);
        p.f32s("lse", &lseg, &lse, 1e-5);
        let (mut d, mut dg) = (vec![0.0; qkv.len()], p.gpu.act(qkv.len()));
        p.cpu.attention_backward(&dout, &qkv, &out, &lse, &cu_seqlens, heads, &mut d);
        p.gpu.attention_backward(&doutg, &qkvg, &outg, &lseg, &cu_seqlens, heads, &mut dg);
        p.acts("dqkv", &dg, &d, 0.06);
        close_together("dqkv", &p.gpu.get_act(&dg, d.len()), &d, 0.005);
    }
}

#[test]
pub fn swiglu_both_ways() {
    let Some(p) = Pair::new() else { return };
    for (rows, width) in [(3, 1032), (5, 40)] {
        let ((x, xg), (d, dg)) = (p.act(rows * 2 * width, 1), p.act(rows * width, 2));
        let (mut out, mut outg) = (vec![0.0; rows * width], p.gpu.act(rows * width));
        p.cpu.swiglu(&x, width, rows, &mut out);
        p.gpu.swiglu(&xg, width, rows, &mut outg);
        p.acts("out", &outg, &out, ROUNDED);
        let (mut dx, mut dxg) = (vec![0.0; x.len()], p.gpu.act(x.len()));
        p.cpu.swiglu_backward(&d, &x, width, rows, &mut dx);
        p.gpu.swiglu_backward(&dg, &xg, width, rows, &mut dxg);
        p.acts("dgate_up", &dxg, &dx, ROUNDED);
    }
}

/// Scores and gradient of a head; `rows` and `vocab` past a tile's are cut into several.
fn head(rows: usize, vocab: usize, hidden: usize, with_entropy: bool) {
    let Some(p) = Pair::new() else { return };
    let ((w, wg), (x, xg)) = (p.param(vocab, hidden, true, 1), p.act(rows * hidden, 2));
    let targets: Vec<u32> = (0..rows).map(|i| ((i * 7919 + vocab - 1) % vocab) as u32).collect();
    let mut want = [0; 3].map(|_| vec![0.0; rows]);
    let mut found = [0; 3].map(|_| p.gpu.f32(rows));
    let ([logprob, entropy, lse], [logprobg, entropyg, lseg]) = (&mut want, &mut found);
    p.cpu.head(&x, &w, &targets, logprob, entropy, lse, &mut vec![]);
    let kept = &mut p.gpu.f32(0);
    p.gpu.head(&xg, &wg, &targets, logprobg, entropyg, lseg, kept);
    p.f32s("logprob", logprobg, logprob, 1e-4);
    p.f32s("entropy", entropyg, entropy, 1e-3);
    p.f32s("lse", lseg, lse, 1e-5);

    let (g, h) = (random(rows, 3), random(rows, 4));
    let h = with_entropy.then_some(&h[..]);
    let (mut dx, mut dxg) = (vec![0.0; rows * hidden], p.gpu.act(rows * hidden));
    let (mut dw, mut dwg) = p.f32(random(vocab * hidden, 5));
    p.cpu.head_backward(&x, &w, &targets, entropy, lse, &mut vec![], &g, h, &mut dx, Some(&mut dw));
    p.gpu.head_backward(&xg, &wg, &targets, entropyg, lseg, kept, &g, h, &mut dxg, Some(&mut dwg));
    // The logits' gradient is rounded to bf16 before its products.
    p.acts("dx", &dxg, &dx, 0.03);
    p.f32s("dw", &dwg, &dw, ROUNDED);

    // Logits that are kept, some of them or all, change no bit.
    let bits = |kept: &mut Buffer<f32>| {
        let mut scores = [0; 3].map(|_| p.gpu.f32(rows));
        let [logprob, entropy, lse] = &mut scores;
        let (mut dx, (_, mut dw)) = (p.gpu.act(rows * hidden), p.f32(random(vocab * hidden, 5)));
        p.gpu.head(&xg, &wg, &targets, logprob, entropy, lse, kept);
        p.gpu.head_backward(&xg, &wg, &targets, entropy, lse, kept, &g, h, &mut dx, Some(&mut dw));
        let of = |buffer: &Buffer<f32>| p.gpu.get_f32(buffer, 0..buffer.len()).into_iter().map(f32::to_bits);
        let dx = p.gpu.get_act(&dx, rows * hidden).into_iter().map(f32::to_bits);
        scores.iter().chain([&dw]).flat_map(of).chain(dx).collect::<Vec<u32>>()
    };
    let (made_again, all) = (bits(kept), Cuda::kept_logits(rows, vocab, usize::MAX));
    for room in [all / 2, all - 1, all] {
        assert!(bits(&mut p.gpu.f32(Cuda::kept_logits(rows, vocab, room))) == made_again, "{room} of {all} logits");
    }
}

#[test]
pub fn the_head_in_one_tile() {
    head(9, 301, 40, false);
    head(9, 301, 40, true);
}

#[test]
pub fn the_head_over_several_tiles_of_the_vocabulary() {
    head(3, 8192 + 77, 8, true);
}

#[test]
pub fn the_head_over_several_pieces_of_the_batch() {
    head(4096 + 5, 17, 8, true);
}

#[test]
pub fn logits_and_draws_from_them() {
    let Some(p) = Pair::new() else { return };
    let (rows, vocab, hidden) = (6, 301, 40);
    let ((w, wg), (x, xg)) = (p.param(vocab, hidden, true, 1), p.act(rows * hidden, 2));
    let (mut logits, mut logitsg) = (vec![0.0; rows * vocab], p.gpu.f32(rows * vocab));
    p.cpu.logits(&x, &w, rows, &mut logits);
    p.gpu.logits(&xg, &wg, rows, &mut logitsg);
    p.f32s("logits", &logitsg, &logits, 1e-5);
    let (logits, logitsg) = p.f32(random(rows * vocab, 3));
    let draw = |i: u64| Draw {
        temperature: [0.0, 1.0, 0.7][i as usize % 3],
        top_k: [0, 40][i as usize % 2],
        top_p: [1.0, 0.9][i as usize / 3],
        min_p: 0.0,
        seed: 7 + (i << 40),
        index: i,
    };
    let draws: Vec<Draw> = (0..rows as u64).map(draw).collect();
    let mut want = vec![Drawn::default(); rows];
    let mut found = want.clone();
    p.cpu.sample(&logits, vocab, &draws, &mut want);
    p.gpu.sample(&logitsg, vocab, &draws, &mut found);
    p.gpu.finish().unwrap();
    for (found, want) in found.iter().zip(&want) {
        assert_eq!(found.token, want.token);
        assert!((found.logprob - want.logprob).abs() < 1e-4, "{found:?} for {want:?}");
    }
}

#[test]
pub fn norms_and_adamw() {
    let Some(p) = Pair::new() else { return };
    let len = 2051;
    let (grad, gradg) = p.f32(random(len, 2));
    let (long, longg) = p.f32(random((1 << 14) + 77, 9));
    let (want, found) = (p.cpu.square_sums(&[&grad, &long]), p.gpu.square_sums(&[&gradg, &longg]));
    for (want, found) in want.into_iter().zip(found) {
        assert!((found - want).abs() < 1e-6 * want, "{found} for {want}");
    }
    let rule = AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, step: 3, grad_scale: 0.7 };
    let ((mut value, mut valueg), (mut first, mut firstg)) = (p.f32(random(len, 1)), p.f32(random(len, 3)));
    let (mut second, mut secondg) = p.f32(random(len, 4).into_iter().map(f32::abs).collect());
    p.cpu.adamw(&mut value, &grad, (&mut first, &mut second), 5..len - 3, &rule);
    p.gpu.adamw(&mut valueg, &gradg, (&mut firstg, &mut secondg), 5..len - 3, &rule);
    p.f32s("value", &valueg, &value, 1e-6);
    p.f32s("first", &firstg, &first, 1e-6);
    p.f32s("second", &secondg, &second, 1e-6);
    p.cpu.add_f32(&mut value, &first);
    p.gpu.add_f32(&mut valueg, &firstg);
    p.f32s("sum", &valueg, &value, 1e-6);
    p.gpu.zero_f32(&mut valueg);
    p.f32s("zero_f32", &valueg, &vec![0.0; len], 0.0);
}

#[test]
pub fn muon_on_wide_and_tall_matrices() {
    let Some(p) = Pair::new() else { return };
    for shape in [(24, 40), (40, 24)] {
        let (len, at) = (shape.0 * shape.1, 64);
        let rule = Muon { lr: 0.1, momentum: 0.9, nesterov: true, weight_decay: 0.1, iterations: 5, grad_scale: 0.5 };
        let ((mut value, mut valueg), (grad, gradg)) = (p.f32(random(at + len, 1)), p.f32(random(at + len, 2)));
        let (mut momentum, mut momentumg) = p.f32(random(at + len, 3));
        let before = value.clone();
        p.cpu.muon(&mut value, &grad, &mut momentum, at, shape, &rule);
        p.gpu.muon(&mut valueg, &gradg, &mut momentumg, at, shape, &rule);
        p.f32s("momentum", &momentumg, &momentum, 1e-6);
        // The iteration is in bf16 there: the step's direction is what counts, to a few hundredths of its size.
        let found = p.gpu.get_f32(&valueg, 0..at + len);
        assert_eq!(found[..at], before[..at], "nothing else is touched");
        let error: f32 = found.iter().zip(&value).map(|(f, w)| (f - w).powi(2)).sum();
        let step: f32 = value.iter().zip(&before).map(|(w, b)| (w - b).powi(2)).sum();
        assert!(error.sqrt() < 0.04 * step.sqrt(), "{} of a step of {}", error.sqrt(), step.sqrt());
    }
}

#[test]
pub fn adapters_folded_in_and_their_gradients() {
    let Some(p) = Pair::new() else { return };
    let (rank, shape, scale) = (4, (40, 24), 2.0);
    let (out, input) = shape;
    let ((a, ag), (b, bg)) = (p.f32(random(rank * input, 1)), p.f32(random(out * rank, 2)));
    let (here, there) = (Adapter { a, b, rank, shape, scale }, Adapter { a: ag, b: bg, rank, shape, scale });
    let (mut value, mut valueg) = p.f32(random(out * input, 3));
    let before = value.clone();
    p.cpu.adapter_merge(&mut value, &here, 1.0);
    p.gpu.adapter_merge(&mut valueg, &there, 1.0);
    p.f32s("folded in", &valueg, &value, 0.02);
    p.gpu.adapter_merge(&mut valueg, &there, -1.0);
    p.f32s("taken out", &valueg, &before, 1e-5);
    let ((dw, dwg), (mut da, mut dag), (mut db, mut dbg)) =
        (p.f32(random(out * input, 4)), p.f32(random(rank * input, 5)), p.f32(random(out * rank, 6)));
    p.cpu.adapter_backward(&dw, &here, &mut da, &mut db);
    p.gpu.adapter_backward(&dwg, &there, &mut dag, &mut dbg);
    p.f32s("da", &dag, &da, 0.02);
    p.f32s("db", &dbg, &db, 0.02);
}

#[test]
pub fn an_operation_that_cannot_be_done_is_reported_once_and_later_ones_do_nothing() {
    let Some(p) = Pair::new() else { return };
    let heads = Heads { query: 1, kv: 1, dim: 300 };
    let ((_, qkv), mut out, mut lse) = (p.act(2 * heads.qkv_width(), 1), p.gpu.act(600), p.gpu.f32(2));
    p.gpu.finish().unwrap();
    p.gpu.attention(&qkv, &[0, 2], heads, &mut out, &mut lse);
    assert!(p.gpu.get_f32(&lse, 0..2).iter().all(|x| x.is_nan()), "what was not computed is not a number");
    for _ in 0..2 {
        let said = p.gpu.finish().unwrap_err().to_string();
        assert!(said.contains("attention") && said.contains("not 300"), "{said}");
    }
}
