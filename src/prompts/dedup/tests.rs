use super::*;
use crate::seed::Rng;
use proptest::prelude::*;
use rayon::prelude::*;

const KEPT: Admission = Admission::Kept { conflicts_with: None, other_gold: false };

fn id(i: usize) -> String {
    format!("{i:032}")
}

fn print(dedup: &Deduplicator, text: &str, gold: Option<&str>) -> Fingerprint {
    dedup.fingerprint(text, &Normal::of(text), gold)
}

/// Questions with their golds, an empty one being none.
fn run_with_golds(config: DedupConfig, rows: &[(&str, &str)]) -> Vec<Admission> {
    let mut dedup = Deduplicator::new(config).unwrap();
    let admit = |(i, (text, gold)): (usize, &(&str, &str))| {
        let print = print(&dedup, text, Some(*gold).filter(|gold| !gold.is_empty()));
        dedup.admit(&id(i), &print)
    };
    rows.iter().enumerate().map(admit).collect()
}

fn run(config: DedupConfig, texts: &[&str]) -> Vec<Admission> {
    run_with_golds(config, &texts.iter().map(|text| (*text, "")).collect::<Vec<_>>())
}

const STORY: &str = "Natalia sold clips to forty eight of her friends in April and then she sold half as many clips \
    in May so how many clips did Natalia sell altogether in April and May if none of them was ever given back to her";

#[test]
fn the_first_stays_and_duplicates_name_it() {
    let near = STORY.replace("back to her", "back to him");
    let out = run(DedupConfig::default(), &[STORY, &STORY.to_uppercase(), "Another question?", &near]);
    assert_eq!(out[..3], [KEPT, Admission::Exact { kept: id(0) }, KEPT]);
    assert!(matches!(&out[3], Admission::Near { kept, similarity, .. } if *kept == id(0) && *similarity > 0.8));
}

#[test]
fn similar_questions_with_other_golds_are_other_problems() {
    let other = STORY.replace("back to her", "back to him");
    let rows = [
        (STORY, "72"),
        (&*other, "71"),
        (&*other.replace("him", "them"), "72.0"),
        (&*STORY.replace("to her", "to us"), ""),
    ];
    let out = run_with_golds(DedupConfig::default(), &rows);
    assert_eq!(out[1], Admission::Kept { conflicts_with: None, other_gold: true });
    assert!(matches!(&out[2], Admission::Near { kept, .. } if *kept == id(0)), "golds that say the same: {out:?}");
    assert!(matches!(&out[3], Admission::Near { .. }), "no gold differs from none: {out:?}");
    let near = NearConfig { keep_other_gold: false, ..NearConfig::default() };
    let out = run_with_golds(DedupConfig { exact: true, near: Some(near) }, &rows);
    assert!(matches!(&out[1], Admission::Near { kept, .. } if *kept == id(0)), "{out:?}");
}

#[test]
fn equal_questions_with_other_golds_are_conflicts() {
    let exact = DedupConfig { exact: true, near: None };
    let out = run_with_golds(
        exact.clone(),
        &[("Find x.", "1"), ("Find  x.\n", "2"), ("find X", "2"), ("FIND x", "2.0"), ("find x!?", "1"), ("Find X", "")],
    );
    assert_eq!(out[1], Admission::GoldConflict { kept: id(0) }, "the same to the letter");
    assert_eq!(out[2], Admission::Kept { conflicts_with: Some(id(0)), other_gold: false }, "the normal form may err");
    assert_eq!(out[3], Admission::Exact { kept: id(2) }, "each gold has its kept prompt");
    assert_eq!(out[5], Admission::Exact { kept: id(2) }, "no gold differs from none");
    // Nothing but punctuation is one normal form, however many there are.
    let rows: Vec<(String, String)> = (0..300).map(|i| ("?".repeat(i + 1), i.to_string())).collect();
    let rows: Vec<(&str, &str)> = rows.iter().map(|(text, gold)| (text.as_str(), gold.as_str())).collect();
    let kept = run_with_golds(exact, &rows).iter().filter(|a| matches!(a, Admission::Kept { .. })).count();
    assert_eq!(kept, 300);
}

#[test]
fn what_can_be_graded_takes_the_place_of_what_cannot() {
    let near = STORY.replace("back to her", "back to him");
    let rows = [(STORY, ""), (&*STORY.to_uppercase(), "72"), (STORY, "72"), (&*near, ""), (STORY, "71")];
    let out = run_with_golds(DedupConfig::default(), &rows);
    assert_eq!(out[..3], [KEPT, Admission::Better { slot: 0, exact: true }, Admission::Exact { kept: id(1) }]);
    assert!(matches!(&out[3], Admission::Near { kept, .. } if *kept == id(1)), "{out:?}");
    assert!(matches!(&out[4], Admission::Kept { conflicts_with: Some(kept), .. } if *kept == id(1)), "{out:?}");
    let rows = [(STORY, ""), (&*near, "72"), (&*near, "71"), (&*near, "72"), (STORY, "")];
    let out = run_with_golds(DedupConfig::default(), &rows);
    assert_eq!(out[1], Admission::Better { slot: 0, exact: false });
    assert_eq!(out[2], Admission::GoldConflict { kept: id(1) }, "the same to the letter");
    assert_eq!(out[3..], [Admission::Exact { kept: id(1) }, Admission::Exact { kept: id(1) }]);
}

#[test]
fn other_numbers_are_another_problem_unless_told_otherwise() {
    let (a, b) = (format!("48 girls: {STORY}"), format!("96 girls: {STORY}"));
    assert_eq!(run(DedupConfig::default(), &[&a, &b])[1], KEPT);
    let near = NearConfig { keep_other_numbers: false, threshold: 0.7, ..NearConfig::default() };
    let out = run(DedupConfig { exact: true, near: Some(near) }, &[&a, &b]);
    assert!(matches!(out[1], Admission::Near { .. }), "{out:?}");
}

#[test]
fn short_and_empty_texts_are_compared_whole() {
    let out = run(DedupConfig::default(), &["Add 3+5", "Add 3-5", "add 3+5.", "", "?"]);
    assert_eq!(out[..2], [KEPT, KEPT]);
    assert!(matches!(out[2], Admission::Exact { .. }));
    assert_eq!(out[3], KEPT);
    assert!(matches!(out[4], Admission::Exact { .. }), "nothing but punctuation is nothing");
}

#[test]
fn chinese_is_shingled_by_characters() {
    let a =
        "小明家里养了一些鸡和兔子,一共有三十五个头和九十四只脚,请问小明家里鸡和兔子各有多少只,请写出详细的计算过程。";
    let b = a.replace("计算过程", "计算步骤");
    let out =
        run(DedupConfig { exact: true, near: Some(NearConfig { threshold: 0.6, ..NearConfig::default() }) }, &[a, &b]);
    assert!(matches!(out[1], Admission::Near { .. }), "{out:?}");
}

#[test]
fn a_template_set_stays_fast_and_bounded() {
    let texts: Vec<String> = (0..20_000)
        .map(|i| {
            format!(
                "A farmer has {i} apples and gives some of them away to each of his many friends in the village today"
            )
        })
        .collect();
    let mut dedup = Deduplicator::new(DedupConfig::default()).unwrap();
    let start = std::time::Instant::now();
    for (i, text) in texts.iter().enumerate() {
        let print = print(&dedup, text, None);
        assert_eq!(dedup.admit(&id(i), &print), KEPT);
    }
    assert!(dedup.full_buckets() > 0);
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

#[test]
fn near_duplicates_are_kept_where_the_recipe_switches_them_off() {
    let read = |near: &str| serde_json::from_str::<DedupConfig>(&format!("{{\"near\": {near}}}"));
    for off in ["false", "null"] {
        let config = read(off).unwrap();
        assert_eq!((config.exact, &config.near), (true, &None));
        let (a, b) = (format!("{STORY} Why?"), format!("{STORY} How?"));
        assert_eq!(run(DedupConfig::default(), &[&a, &b])[1], run(read("true").unwrap(), &[&a, &b])[1]);
        assert_eq!(run(config, &[&a, &b, &a])[1], KEPT);
    }
    assert_eq!(read("true").unwrap(), DedupConfig::default());
    assert_eq!(read("{\"bands\": 9}").unwrap().near, Some(NearConfig { bands: 9, ..NearConfig::default() }));
    assert!(read("{\"band\": 9}").unwrap_err().to_string().contains("unknown field `band`"));
    assert!(read("3").unwrap_err().to_string().contains("true, false or a table"));
}

#[test]
fn parameters_out_of_range_are_usage_errors() {
    for near in [
        NearConfig { rows: 0, ..NearConfig::default() },
        NearConfig { threshold: 1.5, ..NearConfig::default() },
        NearConfig { threshold: f64::NAN, ..NearConfig::default() },
        NearConfig { bands: 1 << 40, ..NearConfig::default() },
    ] {
        let error = Deduplicator::new(DedupConfig { exact: true, near: Some(near) }).err().unwrap();
        assert_eq!(error.exit_code(), 2, "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_similarity_of_edited_texts_is_estimated_within_its_error(seed: u64, edits in 0usize..6) {
        let mut rng = Rng::new(seed);
        let mut words: Vec<String> = (0..80).map(|_| format!("w{}", rng.below(5_000))).collect();
        let original = words.join(" ");
        for _ in 0..edits {
            let at = rng.below(80) as usize;
            words[at] = format!("e{}", rng.below(5_000));
        }
        let (a, b) = (shingles(&Normal::of(&original), 5), shingles(&Normal::of(&words.join(" ")), 5));
        let (mut left, mut right) = (a.clone(), b.clone());
        left.sort_unstable(); left.dedup(); right.sort_unstable(); right.dedup();
        let shared = left.iter().filter(|x| right.binary_search(x).is_ok()).count();
        let truth = shared as f64 / (left.len() + right.len() - shared) as f64;
        let hasher = MinHasher::new(112, 0x67_7269_7374);
        let estimate = similarity(&hasher.signature(&a), &hasher.signature(&b));
        let deviation = (truth * (1.0 - truth) / 112.0).sqrt();
        prop_assert!((estimate - truth).abs() <= 6.0 * deviation + 0.02, "{estimate} for {truth}");
    }
}

#[test]
fn threads_do_not_change_the_outcome() {
    let mut rng = Rng::new(5);
    let texts: Vec<String> = (0..600)
        .map(|_| (0..12).map(|i| format!("{}{}", "abc".repeat(i % 3 + 1), rng.below(3))).collect::<Vec<_>>().join(" "))
        .collect();
    let outcome = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let near = NearConfig { ngram: 2, threshold: 0.5, keep_other_numbers: false, ..NearConfig::default() };
        let mut dedup = Deduplicator::new(DedupConfig { exact: true, near: Some(near) }).unwrap();
        let prints: Vec<_> = pool.install(|| texts.par_iter().map(|text| print(&dedup, text, None)).collect());
        prints.iter().enumerate().map(|(i, print)| dedup.admit(&id(i), print)).collect::<Vec<_>>()
    };
    let one = outcome(1);
    assert_eq!(one, outcome(4));
    assert!(one.iter().any(|a| matches!(a, Admission::Near { .. })));
}
