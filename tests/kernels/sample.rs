//! Drawing tokens: the kernel takes the CPU's draws.

use gristmill::backend::{Backend, Cpu, Draw, Drawn};

use crate::args;
use crate::shim::{Act, Device, available, close, random};

/// Draws of the kernel and of the CPU.
fn both(logits: &[f32], vocab: usize, draws: &[Draw]) -> (Vec<Drawn>, Vec<Drawn>) {
    let words: Vec<u32> = draws
        .iter()
        .flat_map(|d| {
            let [seed, index] = [d.seed, d.index].map(|x| [x as u32, (x >> 32) as u32]);
            [
                d.temperature.to_bits(),
                d.top_k,
                d.top_p.to_bits(),
                d.min_p.to_bits(),
                seed[0],
                seed[1],
                index[0],
                index[1],
            ]
        })
        .collect();
    let mut d = Device::new("sample.cu", Act::F32);
    let (lb, wb, out) = (d.f32(logits), d.u32(&words), d.u32(&vec![u32::MAX; draws.len() * 2]));
    let count = vocab.div_ceil(512);
    let segments = d.f32_out(draws.len() * count * 4);
    d.launch("sample_segments", [count.div_ceil(8), draws.len(), 1], 256, 0, args![lb, wb, vocab, segments]);
    d.launch("sample", [draws.len(), 1, 1], 512, 0, args![lb, wb, segments, vocab, out]);
    let found = d.read_u32(out);
    let found = found.chunks_exact(2).map(|w| Drawn { token: w[0], logprob: f32::from_bits(w[1]) }).collect();
    let mut want = vec![Drawn::default(); draws.len()];
    Cpu::new().sample(&logits.to_vec(), vocab, draws, &mut want);
    (found, want)
}

#[track_caller]
fn same(logits: &[f32], vocab: usize, draws: &[Draw]) {
    let (found, want) = both(logits, vocab, draws);
    let tokens = |drawn: &[Drawn]| drawn.iter().map(|d| d.token).collect::<Vec<_>>();
    assert_eq!(tokens(&found), tokens(&want), "{draws:?}");
    let logprobs = |drawn: &[Drawn]| drawn.iter().map(|d| d.logprob).collect::<Vec<_>>();
    close("logprob", &logprobs(&found), &logprobs(&want), 5e-6);
}

#[test]
fn every_filter_and_temperature_draws_the_cpus_token() {
    if !available() {
        return;
    }
    let plain = Draw { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 0, index: 0 };
    let rules = [
        plain,
        Draw { temperature: 0.0, ..plain },
        Draw { temperature: 0.6, ..plain },
        Draw { top_k: 5, ..plain },
        Draw { top_p: 0.9, ..plain },
        Draw { min_p: 0.1, ..plain },
        Draw { temperature: 1.3, top_k: 40, top_p: 0.7, min_p: 0.01, ..plain },
        Draw { top_k: 10_000, top_p: 0.0, ..plain },
    ];
    // Less than a segment of 512, several with rows at every alignment, and more than a block's eight.
    for (vocab, count) in [(5, 40), (255, 40), (1003, 40), (9224, 16)] {
        let draws: Vec<Draw> = (0..count)
            .map(|i| Draw { seed: i * 0x9e37_79b9_7f4a_7c15, index: i << 30, ..rules[i as usize % rules.len()] })
            .collect();
        let logits: Vec<f32> = random(draws.len() * vocab, vocab as u64).into_iter().map(|x| 2.0 * x).collect();
        same(&logits, vocab, &draws);
    }
}

#[test]
fn equal_logits_are_taken_in_the_order_of_ids() {
    if !available() {
        return;
    }
    let vocab = 300;
    let draws: Vec<Draw> = (0..24)
        .map(|i| Draw {
            temperature: if i == 0 { 0.0 } else { 1.0 },
            top_k: [7, 0, 33][i as usize % 3],
            top_p: if i % 2 == 0 { 0.5 } else { 1.0 },
            min_p: 0.0,
            seed: 3,
            index: i,
        })
        .collect();
    let logits: Vec<f32> = (0..draws.len() * vocab).map(|i| (i % 4) as f32).collect();
    same(&logits, vocab, &draws);
}

#[test]
fn logits_too_flat_for_a_list_are_told_apart_by_their_bits_and_then_by_ids() {
    if !available() {
        return;
    }
    // Over 2,048 candidates within 1/64: of a few values, and of as many as there are candidates.
    let vocab = 5003;
    let draws: Vec<Draw> = (0..12)
        .map(|i| Draw {
            temperature: [1.0, 2.0][i as usize % 2],
            top_k: [0, 3001, 4000][i as usize % 3],
            top_p: [0.9, 0.55, 1.0, 0.01][i as usize / 3],
            min_p: if i == 11 { 0.5 } else { 0.0 },
            seed: 11,
            index: i,
        })
        .collect();
    let few = (0..draws.len() * vocab).map(|i| 3.0 + (i * 7 % 5) as f32 * 1e-3).collect::<Vec<_>>();
    same(&few, vocab, &draws);
    let many = random(draws.len() * vocab, 4).into_iter().map(|x| -2.0 + 2e-3 * x).collect::<Vec<_>>();
    same(&many, vocab, &draws);
}

#[test]
fn tokens_that_are_ruled_out_or_far_off_are_never_drawn() {
    if !available() {
        return;
    }
    // One segment has nothing but what is ruled out, one has candidates, one lies too far below them to weigh.
    let vocab = 1301;
    let mut logits = vec![f32::NEG_INFINITY; 8 * vocab];
    for (row, values) in logits.chunks_exact_mut(vocab).zip(random(8 * 20, 5).chunks_exact(20)) {
        values.iter().enumerate().for_each(|(i, x)| row[600 + 13 * i] = *x);
        row[1100..].fill(-200.0);
    }
    let draws: Vec<Draw> = (0..8)
        .map(|i| Draw {
            temperature: 1.0,
            top_k: [0, 30][i as usize % 2],
            top_p: [1.0, 0.8][i as usize / 2 % 2],
            min_p: 0.0,
            seed: 2,
            index: i,
        })
        .collect();
    same(&logits, vocab, &draws);
    let (found, _) = both(&logits, vocab, &draws);
    assert!(found.iter().all(|drawn| (600..848).contains(&drawn.token)), "{found:?}");
}

#[test]
fn a_rows_draw_does_not_depend_on_its_place() {
    if !available() {
        return;
    }
    // An odd vocabulary: the same row at four alignments.
    let vocab = 2001;
    let row = random(vocab, 8);
    let draw = Draw { temperature: 0.8, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 9, index: 1 };
    let (found, _) = both(&row.repeat(4), vocab, &[draw; 4]);
    assert!(found.iter().all(|drawn| *drawn == found[0]), "{found:?}");
}

#[test]
fn greedy_never_takes_what_is_not_a_number() {
    if !available() {
        return;
    }
    let mut logits = random(70, 1);
    logits[0] = f32::NAN;
    logits[9] = f32::NEG_INFINITY;
    let draw = Draw { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 1, index: 0 };
    let (found, want) = both(&logits, 70, &[draw]);
    assert_eq!(found[0].token, want[0].token);
}
