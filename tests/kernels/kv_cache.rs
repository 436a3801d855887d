//! The CUDA backend's KV cache through the trait, against the CPU's: pages that are filled, shared, copied and handed over.

use std::sync::Arc;

use gristmill::backend::{Backend, Cpu, Cuda, Heads, KV_PAGE, PageCopy, Paged, Run};
use gristmill::model::KvPages;

use crate::host::Host;
use crate::pair::{Pair, ROUNDED};
use crate::shim::{Act, close, close_together, on_host, random};

#[test]
pub fn a_cache_that_is_filled_lent_and_written_in_three_layers() {
    let Some(p) = Pair::new() else { return };
    for dim in [12, 16, 40, 104, 256] {
        let (heads, layers, prompt) = (Heads { query: 4, kv: 2, dim }, 3, 37u32);
        let mut pages = KvPages::new(3, 80, 15);
        let (mut cache, mut cacheg) =
            (p.cpu.kv_cache(layers, heads, pages.pages()), p.gpu.kv_cache(layers, heads, pages.pages()));
        // As long as cosine and sine are.
        let (angles, anglesg) = p.f32(random(80 * dim, 77).into_iter().map(|x| 0.7 * x).collect());
        let mut seed = 0;
        // (slot, position) of each row of a step; slot 1 is a sequence of its own, 2 shares the prompt of 0.
        let prefill: Vec<(u32, u32)> = (0..prompt).map(|i| (0, i)).chain((0..5).map(|i| (1, i))).collect();
        let steps = [prefill, vec![(2, 37), (1, 5), (0, 37)], vec![(0, 38), (2, 38)], vec![(1, 0), (2, 39)]];
        for (i, step) in steps.iter().enumerate() {
            if i == 1 {
                pages.share(0, 2, prompt as usize);
            }
            let copies: Vec<_> =
                step.iter().filter_map(|&(slot, position)| pages.write(slot as usize, position as usize)).collect();
            assert_eq!(copies.len(), usize::from(i == 1), "the first that writes into the shared page copies it");
            p.cpu.kv_copy(&mut cache, &copies);
            p.gpu.kv_copy(&mut cacheg, &copies);
            let (slots, positions): (Vec<u32>, Vec<u32>) = step.iter().copied().unzip();
            let ((table, tableg), (slots, slotsg), (positions, positionsg)) =
                (p.u32(pages.table()), p.u32(&slots), p.u32(&positions));
            let (pages, width, rows) = (pages.width(), heads.qkv_width(), step.len());
            let at = Paged::<Cpu> { table: &table, width: pages, slots: &slots, positions: &positions, rows };
            let atg = Paged::<Cuda> { table: &tableg, width: pages, slots: &slotsg, positions: &positionsg, rows };
            for layer in 0..layers {
                seed += 1;
                let (mut qkv, mut qkvg) = p.act(rows * heads.qkv_width(), seed);
                match layer {
                    0 => {
                        p.cpu.kv_append(&mut cache, layer, &qkv, &at);
                        p.gpu.kv_append(&mut cacheg, layer, &qkvg, &atg);
                    }
                    1 => {
                        p.cpu.rope_append(&mut qkv, &angles, heads, &mut cache, layer, &at);
                        p.gpu.rope_append(&mut qkvg, &anglesg, heads, &mut cacheg, layer, &atg);
                        p.acts(&format!("step {i}, turned"), &qkvg, &qkv, ROUNDED);
                    }
                    _ => {
                        let ((w, wg), (bias, biasg)) = (p.param(width, 8, true, 5), p.param(1, width, false, 6));
                        // Small, so that scores stay near 1.
                        let x: Vec<f32> = Act::Bf16.random(rows * 8, seed).into_iter().map(|x| x / 4.0).collect();
                        let xg = p.gpu.put_act(&x);
                        let (with, withg) = ((&w, Some(&bias)), (&wg, Some(&biasg)));
                        p.cpu.linear_rope_append(&x, with, &mut qkv, &angles, heads, &mut cache, layer, &at);
                        p.gpu.linear_rope_append(&xg, withg, &mut qkvg, &anglesg, heads, &mut cacheg, layer, &atg);
                    }
                }
                let mut out = vec![0.0; rows * heads.out_width()];
                let mut outg = p.gpu.act(out.len());
                p.cpu.attention_cached(&cache, layer, &qkv, &at, &mut out);
                p.gpu.attention_cached(&cacheg, layer, &qkvg, &atg, &mut outg);
                // Turned keys are rounded once more on their way into the cache.
                let tolerance = [1.0, 4.0, 4.0][layer] * ROUNDED;
                p.acts(&format!("step {i}, layer {layer}"), &outg, &out, tolerance);
                close_together("attended", &p.gpu.get_act(&outg, out.len()), &out, 0.008);
            }
        }
    }
}

/// Prompts in the slots of one step, cut at some rows into steps of their own: every row's attention.
fn prefilled(p: &Pair, heads: Heads, lens: &[u32], cuts: &[usize]) -> (Vec<f32>, Vec<f32>) {
    let rows: Vec<(u32, u32)> =
        (0u32..).zip(lens).flat_map(|(slot, &len)| (0..len).map(move |position| (slot, position))).collect();
    let mut pages = KvPages::new(lens.len(), 320, 40);
    let (mut cache, mut cacheg) = (p.cpu.kv_cache(2, heads, pages.pages()), p.gpu.kv_cache(2, heads, pages.pages()));
    let (mut all, mut allg) = (Vec::new(), Vec::new());
    let (mut ends, mut first) = (cuts.to_vec(), 0);
    ends.push(rows.len());
    for end in ends {
        let step = &rows[first..end];
        for &(slot, position) in step {
            assert_eq!(pages.write(slot as usize, position as usize), None, "nothing is shared");
        }
        let mut runs: Vec<Run> = Vec::new();
        for (row, &(slot, position)) in (0u32..).zip(step) {
            match runs.last_mut() {
                Some(run) if row > 0 && step[row as usize - 1].0 == slot => run.rows += 1,
                _ => runs.push(Run { row, rows: 1, position }),
            }
        }
        let (slots, positions): (Vec<u32>, Vec<u32>) = step.iter().copied().unzip();
        let ((table, tableg), (slots, slotsg), (positions, positionsg)) =
            (p.u32(pages.table()), p.u32(&slots), p.u32(&positions));
        let (width, rows) = (pages.width(), step.len());
        let at = Paged::<Cpu> { table: &table, width, slots: &slots, positions: &positions, rows };
        let atg = Paged::<Cuda> { table: &tableg, width, slots: &slotsg, positions: &positionsg, rows };
        // A row's values do not depend on the step.
        let width = heads.qkv_width();
        let qkv = Act::Bf16.random(lens.iter().sum::<u32>() as usize * width, 3)[first * width..end * width].to_vec();
        let qkvg = p.gpu.put_act(&qkv);
        p.cpu.kv_append(&mut cache, 1, &qkv, &at);
        p.gpu.kv_append(&mut cacheg, 1, &qkvg, &atg);
        let (mut out, mut outg) = (vec![0.0; rows * heads.out_width()], p.gpu.act(rows * heads.out_width()));
        p.cpu.attention_prefill(&cache, 1, &qkv, &at, &runs, &mut out);
        p.gpu.attention_prefill(&cacheg, 1, &qkvg, &atg, &runs, &mut outg);
        p.gpu.finish().unwrap();
        allg.extend(p.gpu.get_act(&outg, out.len()));
        all.extend(out);
        first = end;
    }
    (all, allg)
}

#[test]
pub fn prompts_that_go_into_the_cache_in_pieces() {
    let Some(p) = Pair::new() else { return };
    // One token, less than a page, pages, more than a tile; cut within pages, at their ends, and within tiles of keys.
    let lens = [1, 13, 200, 48, 70];
    for (query, kv, dim) in [(4, 2, 64), (3, 1, 128), (2, 1, 12)] {
        let heads = Heads { query, kv, dim };
        let (want, found) = prefilled(&p, heads, &lens, &[]);
        close("whole", &found, &want, 0.02);
        close_together("whole", &found, &want, 0.008);
        for cuts in [&[7, 14 + 64, 14 + 129][..], &[14 + 199, 230, 262]] {
            let (again, cut) = prefilled(&p, heads, &lens, cuts);
            assert!(again == want, "the reference's bits, {heads:?} cut at {cuts:?}");
            assert!(cut == found, "{heads:?} cut at {cuts:?}");
        }
    }
}

#[test]
pub fn pages_copied_as_if_one_after_the_other_and_rows_handed_over() {
    let Some(p) = Pair::new() else { return };
    let (heads, layers, pages, rows) = (Heads { query: 2, kv: 1, dim: 12 }, 3, 8usize, 5 * KV_PAGE);
    let (mut cache, mut cacheg) = (p.cpu.kv_cache(layers, heads, pages), p.gpu.kv_cache(layers, heads, pages));
    // Slot i has page i; five are full.
    let whole: Vec<u32> = (0..pages as u32).collect();
    let (table, tableg) = p.u32(&whole);
    let (slots, slotsg) = p.u32(&(0..rows as u32).map(|row| row / KV_PAGE as u32).collect::<Vec<_>>());
    let (positions, positionsg) = p.u32(&(0..rows as u32).map(|row| row % KV_PAGE as u32).collect::<Vec<_>>());
    let at = Paged::<Cpu> { table: &table, width: 1, slots: &slots, positions: &positions, rows };
    let atg = Paged::<Cuda> { table: &tableg, width: 1, slots: &slotsg, positions: &positionsg, rows };
    for layer in 0..layers {
        let (qkv, qkvg) = p.act(rows * heads.qkv_width(), layer as u64);
        p.cpu.kv_append(&mut cache, layer, &qkv, &at);
        p.gpu.kv_append(&mut cacheg, layer, &qkvg, &atg);
    }
    // One reads what another has written, one writes what another has read.
    let copies = [(0, 5, 7), (1, 6, 16), (0, 4, 1), (5, 7, 3), (2, 0, 5)];
    let copies = copies.map(|(from, to, len)| PageCopy { from, to, len });
    p.cpu.kv_copy(&mut cache, &copies);
    p.gpu.kv_copy(&mut cacheg, &copies);

    // A table that knows slot 0 only, and is told of the others.
    let (mut table, mut tableg) = p.u32(&vec![0; pages]);
    let known: Vec<(u32, u32)> = whole.iter().map(|&page| (page, page)).collect();
    let [tokens, slots, positions] = [[3, 0, 10, 3, 7], [5, 6, 4, 7, 0], [6, 15, 0, 2, 4]];
    let mut here = [0; 3].map(|_| vec![0; 9]);
    let mut there = [0; 3].map(|_| p.gpu.u32(9));
    for changes in [&known[..6], &known[6..], &[]] {
        let [a, b, c] = &mut here;
        p.cpu.put_rows([(a, &tokens), (b, &positions), (c, &slots)], &mut table, changes);
        let [a, b, c] = &mut there;
        p.gpu.put_rows([(a, &tokens), (b, &positions), (c, &slots)], &mut tableg, changes);
    }
    let rows = tokens.len();
    let at = Paged::<Cpu> { table: &table, width: 1, slots: &here[2], positions: &here[1], rows };
    let atg = Paged::<Cuda> { table: &tableg, width: 1, slots: &there[2], positions: &there[1], rows };
    for layer in 0..layers {
        let (qkv, qkvg) = p.act(rows * heads.qkv_width(), 9);
        let mut out = vec![0.0; rows * heads.out_width()];
        let mut outg = p.gpu.act(out.len());
        p.cpu.attention_cached(&cache, layer, &qkv, &at, &mut out);
        p.gpu.attention_cached(&cacheg, layer, &qkvg, &atg, &mut outg);
        p.acts(&format!("layer {layer}"), &outg, &out, ROUNDED);
    }
    let (param, paramg) = p.param(11, 8, false, 1);
    let (mut out, mut outg) = (vec![0.0; rows * 8], p.gpu.act(rows * 8));
    p.cpu.embed(&param, &here[0], rows, &mut out);
    p.gpu.embed(&paramg, &there[0], rows, &mut outg);
    p.acts("tokens", &outg, &out, 0.0);
}

#[test]
fn pages_and_rows_take_few_copies_and_launches() {
    if !on_host() {
        return;
    }
    let host = Arc::new(Host::default());
    let gpu = Cuda::on(host.clone());
    let mut cache = gpu.kv_cache(24, Heads { query: 2, kv: 1, dim: 2 }, 300);
    let issued = |work: &mut dyn FnMut()| {
        let before = host.issued();
        work();
        gpu.finish().unwrap();
        let after = host.issued();
        (after.0 - before.0, after.1 - before.1)
    };
    // A prompt's last page, for each of its completions, in 24 layers.
    let copies: Vec<PageCopy> = (1..256).map(|to| PageCopy { from: 0, to, len: 3 }).collect();
    assert_eq!(issued(&mut || gpu.kv_copy(&mut cache, &copies)), (1, 1));
    let (mut rows, mut table) = ([0; 3].map(|_| gpu.u32(8)), gpu.u32(100));
    let put = &mut || {
        let [a, b, c] = &mut rows;
        gpu.put_rows([(a, &[1; 8]), (b, &[2; 8]), (c, &[3; 8])], &mut table, &[(7, 1), (99, 2)]);
    };
    assert_eq!(issued(put), (1, 1));
}
