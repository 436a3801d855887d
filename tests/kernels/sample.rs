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
    d.launch("sample", [draws.len(), 1, 1], 256, 0, args![lb, wb, vocab, out]);
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
    for vocab in [5, 255, 1003] {
        let draws: Vec<Draw> = (0..40u64)
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
