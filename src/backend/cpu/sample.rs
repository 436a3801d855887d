//! Drawing a token from a row of logits.
//!
//! Temperature first, then min-p, top-k and top-p, each on what the one before
//! left, renormalised; then one number of the counter-based generator walks the
//! cumulative distribution. Candidates are ordered by logit, equal ones by id.

use super::head::Softmax;
use super::simd::{Simd, kernel, steps};
use super::{Cpu, Draw, Drawn, Shared, scratch};
use crate::backend::uniform;

/// Draws one token of each row of `logits [draws, vocab]`.
pub fn sample(cpu: &Cpu, logits: &[f32], vocab: usize, draws: &[Draw], out: &mut [Drawn]) {
    let mut pairs = vec![0.0; 2 * draws.len()];
    let shared = Shared::new(&mut pairs);
    cpu.rows(draws.len(), draws.len() * vocab * 4, |rows| {
        for row in rows {
            let logits = &logits[row * vocab..(row + 1) * vocab];
            let token = draw(logits, &draws[row]);
            // SAFETY: tasks have different rows.
            let pair = unsafe { shared.range(2 * row..2 * row + 2) };
            pair[0] = f32::from_bits(token as u32);
            pair[1] = logits[token] - Softmax::of(logits).lse();
        }
    });
    for (out, pair) in out.iter_mut().zip(pairs.chunks_exact(2)) {
        *out = Drawn { token: pair[0].to_bits(), logprob: pair[1] };
    }
}

/// The token of one row.
fn draw(logits: &[f32], draw: &Draw) -> usize {
    let best = argmax(logits);
    if draw.temperature <= 0.0 {
        return best;
    }
    scratch(logits.len(), |weights| {
        weigh(logits, logits[best], (1.0 / draw.temperature).min(f32::MAX), weights);
        let weight = |i: usize| f64::from(weights[i]);
        let u = f64::from(uniform(draw.seed, draw.index));
        let all = draw.top_k == 0 || draw.top_k as usize >= logits.len();
        if all && draw.top_p >= 1.0 && draw.min_p <= 0.0 {
            let total: f64 = (0..logits.len()).map(weight).sum();
            return walk((0..logits.len()).map(|i| (i, weight(i))), u * total, best);
        }
        let ids = candidates(logits, best, draw, &weight);
        let total: f64 = ids.iter().map(|&i| weight(i)).sum();
        walk(ids.iter().map(|&i| (i, weight(i))), u * total, best)
    })
}

kernel! {
    /// e^((z − high) · inverse): likelihoods relative to the best token's.
    fn weigh(logits: &[f32], high: f32, inverse: f32, weights: &mut [f32]) = weigh_body;
}

#[inline(always)]
fn weigh_body<S: Simd>(s: S, logits: &[f32], high: f32, inverse: f32, weights: &mut [f32]) {
    let (high, inverse) = (s.splat(high), s.splat(inverse));
    for (at, n) in steps(logits.len()) {
        let e = s.exp(s.mul(s.sub(s.load_n(logits, at, n), high), inverse));
        s.store_n(weights, at, n, e);
    }
}

/// The lowest id among the largest logits; NaN never wins.
fn argmax(logits: &[f32]) -> usize {
    let mut best = 0;
    for (i, &z) in logits.iter().enumerate() {
        if z > logits[best] || logits[best].is_nan() {
            best = i;
        }
    }
    best
}

/// The first item at which the running sum passes `goal`.
fn walk(items: impl Iterator<Item = (usize, f64)>, goal: f64, best: usize) -> usize {
    let (mut sum, mut last) = (0.0, best);
    for (i, weight) in items {
        sum += weight;
        if weight > 0.0 {
            last = i;
        }
        if sum > goal {
            return i;
        }
    }
    last
}

/// What the filters leave, likeliest first.
fn candidates(logits: &[f32], best: usize, draw: &Draw, weight: &impl Fn(usize) -> f64) -> Vec<usize> {
    let floor = f64::from(draw.min_p);
    let mut ids: Vec<usize> =
        (0..logits.len()).filter(|&i| i == best || weight(i) > 0.0 && weight(i) >= floor).collect();
    let order = |a: &usize, b: &usize| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b));
    if draw.top_k > 0 && (draw.top_k as usize) < ids.len() {
        ids.select_nth_unstable_by(draw.top_k as usize - 1, order);
        ids.truncate(draw.top_k as usize);
        ids.sort_unstable();
    }
    if draw.top_p >= 1.0 {
        ids.sort_unstable_by(order);
        return ids;
    }
    // The total is summed in id order, which no selection changes.
    let goal = f64::from(draw.top_p) * ids.iter().map(|&i| weight(i)).sum::<f64>();
    if weight(best) >= goal {
        // A trained policy is sure of most tokens: nothing to sort.
        return vec![best];
    }
    // Sorting 150,000 candidates for the few that matter would cost more than the
    // model does: sort a head of them, and a longer one only while it is too light.
    let mut head = 64;
    loop {
        if head < ids.len() {
            ids.select_nth_unstable_by(head, order);
        }
        let sorted = head.min(ids.len());
        ids[..sorted].sort_unstable_by(order);
        let mut sum = 0.0;
        for (kept, &i) in ids[..sorted].iter().enumerate() {
            sum += weight(i);
            if sum >= goal {
                ids.truncate(kept + 1);
                return ids;
            }
        }
        if sorted == ids.len() {
            return ids;
        }
        head *= 8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 5] = [1.0, 3.0, 2.0, 3.0, -4.0];

    fn counts(rule: Draw) -> [usize; 5] {
        let mut counts = [0; 5];
        for index in 0..2000 {
            counts[draw(&LOGITS, &Draw { index, ..rule })] += 1;
        }
        counts
    }

    fn plain() -> Draw {
        Draw { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 5, index: 0 }
    }

    #[test]
    fn greedy_takes_the_lowest_id_of_the_best() {
        assert_eq!(draw(&LOGITS, &Draw { temperature: 0.0, ..plain() }), 1);
    }

    #[test]
    fn frequencies_follow_the_softmax() {
        let total: f64 = LOGITS.iter().map(|&z| f64::from(z).exp()).sum();
        for (count, z) in counts(plain()).into_iter().zip(LOGITS) {
            let share = f64::from(z).exp() / total;
            assert!((count as f64 / 2000.0 - share).abs() < 0.035, "{count} of 2000 for {share}");
        }
    }

    #[test]
    fn each_filter_cuts_what_it_says() {
        assert_eq!(counts(Draw { top_k: 1, ..plain() }), [0, 2000, 0, 0, 0]);
        let two = counts(Draw { top_k: 2, ..plain() });
        assert_eq!((two[0], two[2], two[4]), (0, 0, 0));
        // The two best hold 0.798 of the mass.
        let nucleus = counts(Draw { top_p: 0.79, ..plain() });
        assert_eq!((nucleus[0], nucleus[2], nucleus[4]), (0, 0, 0));
        let wider = counts(Draw { top_p: 0.9, ..plain() });
        assert!(wider[2] > 0 && wider[0] == 0);
        // e^(1 − 3) = 0.135 is below 0.2, e^(2 − 3) = 0.37 above.
        let floor = counts(Draw { min_p: 0.2, ..plain() });
        assert!(floor[2] > 0 && floor[0] == 0);
    }

    #[test]
    fn a_token_that_is_the_nucleus_alone_is_what_a_full_sort_would_leave() {
        for (logits, top_k) in [(vec![0.0, 9.0, 1.0, 9.0 - 1e-3], 0), (vec![2.0, 7.0, -1.0, 7.0], 0), (vec![5.0; 4], 1)]
        {
            for top_p in [0.1, 0.4, 0.499, 0.5, 0.501, 0.9] {
                let rule = Draw { top_p, top_k, ..plain() };
                let best = argmax(&logits);
                let weight = |i: usize| f64::from((logits[i] - logits[best]).exp());
                let mut sorted: Vec<usize> = (0..4).collect();
                sorted.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
                sorted.truncate(if top_k > 0 { top_k as usize } else { 4 });
                let total: f64 = (0..4).filter(|i| sorted.contains(i)).map(weight).sum();
                let mut sum = 0.0;
                let kept = sorted.iter().position(|&i| {
                    sum += weight(i);
                    sum >= f64::from(top_p) * total
                });
                sorted.truncate(kept.map_or(4, |last| last + 1));
                assert_eq!(candidates(&logits, best, &rule, &weight), sorted, "{logits:?} {top_p}");
            }
        }
    }

    #[test]
    fn a_long_tail_is_cut_where_a_full_sort_would_cut_it() {
        let logits: Vec<f32> = (0..3000).map(|i| ((i * 7919 % 3000) as f32) * 1e-3).collect();
        let rule = Draw { top_p: 0.5, ..plain() };
        let weight = |i: usize| f64::from(logits[i] - 2.999).exp();
        let best = argmax(&logits);
        let kept = candidates(&logits, best, &rule, &weight);
        let mass: f64 = kept.iter().map(|&i| weight(i)).sum();
        let total: f64 = (0..logits.len()).map(weight).sum();
        let last = weight(*kept.last().unwrap());
        assert!(mass >= 0.5 * total && mass - last < 0.5 * total);
        assert!(kept.windows(2).all(|w| logits[w[0]] >= logits[w[1]]));
    }
}
