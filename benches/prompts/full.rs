//! Synthetic prompts and the full-size measurements, each with its time budget.

use std::time::Instant;

use gristmill::prompts::normal::Normal;
use gristmill::prompts::{DecontamConfig, Decontaminator, DedupConfig, Deduplicator, EvalRow, EvalSet};
use gristmill::seed::Rng;
use rayon::prelude::*;

/// `n` questions of 20 to 79 words with a Zipf-like vocabulary of 20,000. Every tenth is a near
/// duplicate of an earlier one (one word changed), every twentieth an exact one in capitals.
pub fn questions(n: usize, seed: u64) -> Vec<String> {
    let mut rng = Rng::new(seed);
    let vocabulary: Vec<String> =
        (0..20_000).map(|_| (0..rng.between(2, 9)).map(|_| char::from(b'a' + rng.below(26) as u8)).collect()).collect();
    let word = |rng: &mut Rng| vocabulary[(20_000f64.powf(rng.uniform()) - 1.0) as usize].as_str();
    let mut questions: Vec<String> = Vec::with_capacity(n);
    for i in 0..n {
        let earlier = (i > 0).then(|| rng.below(i.max(1) as u64) as usize);
        let question = match (i % 20, earlier) {
            (19, Some(earlier)) => questions[earlier].to_ascii_uppercase(),
            (9, Some(earlier)) => {
                let mut words: Vec<&str> = questions[earlier].split(' ').collect();
                let at = rng.below(words.len() as u64) as usize;
                words[at] = "changed";
                words.join(" ")
            }
            _ => {
                let words: Vec<&str> = (0..rng.between(20, 79)).map(|_| word(&mut rng)).collect();
                words.join(" ") + "?"
            }
        };
        questions.push(question);
    }
    questions
}

/// Evaluation questions, of which the first hundred are among `prompts`.
pub fn evaluation(n: usize, prompts: &[String]) -> EvalSet {
    let mut questions = questions(n, 99);
    for (question, prompt) in questions.iter_mut().zip(prompts.iter().step_by(997)).take(100) {
        question.clone_from(prompt);
    }
    let rows = questions.into_iter().enumerate().map(|(row, question)| EvalRow { row: row as u64, question });
    EvalSet { name: "synthetic".to_owned(), rows: rows.collect() }
}

/// Exact and near deduplication: how many stay.
pub fn dedup(questions: &[String]) -> usize {
    let mut dedup = Deduplicator::new(DedupConfig::default()).expect("the defaults are in range");
    for (batch, texts) in questions.chunks(4096).enumerate() {
        let prints: Vec<_> = texts.par_iter().map(|text| dedup.fingerprint(text, &Normal::of(text), None)).collect();
        for (i, print) in prints.iter().enumerate() {
            dedup.admit(&format!("{:032x}", batch * 4096 + i), print);
        }
    }
    dedup.len()
}

/// Index and scan: how many prompts are contaminated.
pub fn decontaminate(questions: &[String], evals: &EvalSet) -> usize {
    let index =
        Decontaminator::new(DecontamConfig::default(), std::slice::from_ref(evals)).expect("the set is not empty");
    questions.par_iter().filter(|text| !index.scan("prompt", &Normal::of(text)).is_empty()).count()
}

/// One run at the size of the promise, printed.
pub fn report(prompts: usize, evals: usize) {
    let questions = questions(prompts, 1);
    let bytes: usize = questions.iter().map(String::len).sum();
    let threads = rayon::current_num_threads();
    println!("{prompts} prompts, {} MB of text, {threads} threads", bytes / 1_000_000);
    let start = Instant::now();
    let kept = dedup(&questions);
    println!(
        "dedup, exact and MinHash 14 x 8: {:.1} s, {kept} kept (budget at 1M: 60 s on two cores)",
        start.elapsed().as_secs_f64()
    );
    let evals = evaluation(evals, &questions);
    let start = Instant::now();
    let hits = decontaminate(&questions, &evals);
    println!(
        "decontamination against {} questions, 8-grams: {:.1} s, {hits} contaminated (budget at 1M x 10k: 30 s)",
        evals.rows.len(),
        start.elapsed().as_secs_f64()
    );
}
