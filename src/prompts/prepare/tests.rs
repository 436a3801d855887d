use super::*;
use crate::prompts::ask::{Ask, Values};
use crate::prompts::decontam::EvalRow;
use crate::prompts::filter::tests::prompt;
use crate::prompts::read::Place;
use crate::prompts::sample::Key;

#[derive(Default)]
struct Collect {
    kept: Vec<Prompt>,
    drops: Vec<Dropped>,
    hits: Vec<Hit>,
    conflicts: Vec<GoldConflict>,
}

impl Sink for Collect {
    fn keep(&mut self, prompt: Prompt) -> Result<()> {
        self.kept.push(prompt);
        Ok(())
    }
    fn drop(&mut self, drop: Dropped) -> Result<()> {
        self.drops.push(drop);
        Ok(())
    }
    fn hit(&mut self, hit: Hit) -> Result<()> {
        self.hits.push(hit);
        Ok(())
    }
    fn conflict(&mut self, conflict: GoldConflict) -> Result<()> {
        self.conflicts.push(conflict);
        Ok(())
    }
}

fn rows(questions: &[String]) -> Vec<Result<Imported>> {
    let imported = |(row, question): (usize, &String)| {
        Ok(Imported {
            prompt: prompt(question),
            file: "test.jsonl".into(),
            place: Place { row: row as u64, line: Some(row + 1) },
        })
    };
    questions.iter().enumerate().map(imported).collect()
}

fn run(preparation: &Preparation, questions: &[String]) -> (Collect, Summary) {
    let mut sink = Collect::default();
    let summary = preparation.run(rows(questions), &mut sink).unwrap();
    assert_eq!(summary.kept, sink.kept.len() as u64);
    assert_eq!(summary.rows, summary.kept + sink.drops.len() as u64, "every row is kept or dropped");
    assert_eq!(summary.drops.values().sum::<u64>(), sink.drops.len() as u64);
    (sink, summary)
}

fn questions() -> Vec<String> {
    let story = "A train leaves the old station in the morning and reaches the next town after many long hours on the way \
        through hills and fields so how long does it take in all when it stops twice";
    [
        story,
        "tiny",
        "Find the largest prime below one hundred please.",
        "find the largest PRIME below one hundred, please",
        &story.replace("stops twice", "stops thrice"),
        "You are asked: what is the least positive integer that is divisible by every small digit?",
        "How many ways are there to seat five people in a row?",
    ]
    .map(str::to_owned)
    .to_vec()
}

fn evals() -> Vec<EvalSet> {
    let question = "What is the least positive integer that is divisible by every small digit?".to_owned();
    vec![EvalSet { name: "aime24".to_owned(), rows: vec![EvalRow { row: 3, question }] }]
}

#[test]
fn every_drop_names_its_place_reason_and_cause() {
    let config =
        PrepareConfig { filter: FilterConfig { min_words: Some(3), ..Default::default() }, ..Default::default() };
    let (sink, summary) = run(&Preparation::new(config, 0, &evals()).unwrap(), &questions());
    let told: Vec<(u64, &str)> = sink.drops.iter().map(|drop| (drop.row, drop.reason)).collect();
    assert_eq!(told, [(1, "too_short"), (3, "exact_duplicate"), (4, "near_duplicate"), (5, "contaminated")]);
    assert_eq!(sink.drops[1].detail, format!("of {}", sink.kept[1].prompt_id));
    assert!(sink.drops[2].detail.starts_with(&format!("of {}, similarity 0.", sink.kept[0].prompt_id)));
    assert!(sink.drops[3].detail.starts_with("aime24 row 3: what is the least"), "{}", sink.drops[3].detail);
    assert_eq!((sink.hits.len(), summary.hits, sink.hits[0].eval_row), (1, 1, 3));
    assert_eq!(summary.gold_conflicts, 0);
}

#[test]
fn words_around_questions_are_no_part_of_what_is_compared() {
    let config =
        PrepareConfig { filter: FilterConfig { min_words: Some(3), ..Default::default() }, ..Default::default() };
    let pipeline = Preparation::new(config, 0, &evals()).unwrap();
    let places = |drops: &[Dropped]| drops.iter().map(|drop| (drop.row, drop.reason)).collect::<Vec<_>>();
    let (plain, _) = run(&pipeline, &questions());
    let ask = Ask::parse("What is the least positive integer? No: {prompt}\n\nPlease reason step by step, at length.")
        .unwrap();
    let rows = rows(&questions())
        .into_iter()
        .map(|row| row.map(|row| Imported { prompt: ask.around(row.prompt, &Values::default()), ..row }));
    let mut sink = Collect::default();
    pipeline.run(rows, &mut sink).unwrap();
    assert_eq!(places(&sink.drops), places(&plain.drops));
    for (asked, plain) in sink.kept.iter().zip(&plain.kept) {
        assert!(asked.question().ends_with("at length.") && asked.question().contains(plain.question()));
        assert_eq!(asked.bare_question().as_deref(), Some(plain.question()));
    }
}

#[test]
fn conflicting_golds_are_told_and_only_equal_texts_are_dropped() {
    let mut rows =
        rows(&["What is it then?", "What is it  then?", "what is it, THEN", "what is it then"].map(str::to_owned));
    for (row, gold) in rows.iter_mut().zip(["1", "2", "3", "1.0"]) {
        row.as_mut().unwrap().prompt.gold = Some(gold.to_owned());
    }
    let mut sink = Collect::default();
    let summary = Preparation::new(PrepareConfig::default(), 0, &[]).unwrap().run(rows, &mut sink).unwrap();
    let told: Vec<(u64, &str)> = sink.drops.iter().map(|drop| (drop.row, drop.reason)).collect();
    assert_eq!(told, [(1, "gold_conflict"), (3, "exact_duplicate")]);
    assert_eq!((summary.gold_conflicts, summary.kept, summary.kept_other_gold), (2, 2, 0));
    let conflicts: Vec<_> = sink.conflicts.iter().map(|c| (c.row, c.dropped, c.gold.as_deref(), &c.of)).collect();
    let first = &sink.kept[0].prompt_id;
    assert_eq!(conflicts, [(1, true, Some("2"), first), (2, false, Some("3"), first)]);
}

#[test]
fn a_copy_with_a_gold_takes_the_place_of_one_without_whatever_samples_or_comes_between() {
    let questions = ["One question, it is?", "A question of its own", "one question it is", "One Question, it is"];
    let graded = |golds: [Option<&str>; 4]| {
        let mut rows = rows(&questions.map(str::to_owned));
        rows.iter_mut().zip(golds).for_each(|(row, gold)| row.as_mut().unwrap().prompt.gold = gold.map(str::to_owned));
        rows
    };
    let sample = Some(SampleConfig { total: Some(2), ..Default::default() });
    for sample in [None, sample] {
        let run = |rows: Vec<Result<Imported>>| {
            let mut sink = Collect::default();
            let config = PrepareConfig { sample: sample.clone(), ..Default::default() };
            let summary = Preparation::new(config, 0, &[]).unwrap().run(rows, &mut sink).unwrap();
            assert_eq!(summary.rows, summary.kept + sink.drops.len() as u64);
            sink
        };
        let asked = |sink: &Collect| sink.kept.iter().map(|p| p.question().to_owned()).collect::<Vec<_>>();
        let sink = run(graded([None, None, Some("7"), Some("7")]));
        assert_eq!(asked(&sink), [questions[1], questions[2]], "each where it was read");
        let told: Vec<(u64, &str)> = sink.drops.iter().map(|drop| (drop.row, drop.reason)).collect();
        assert_eq!(told, [(3, "exact_duplicate"), (0, "exact_duplicate")]);
        assert_eq!(sink.drops[1].detail, format!("of {}, which can be graded", sink.kept[1].prompt_id));
        // Unit tests are as good as a gold.
        let mut rows = graded([None, None, Some("7"), None]);
        rows[0].as_mut().unwrap().prompt.verification = Some("{}".to_owned());
        assert_eq!(asked(&run(rows)), questions[..2]);
    }
}

#[test]
fn similar_questions_with_other_golds_stay_and_are_counted() {
    let questions = questions();
    let mut rows = rows(&[questions[0].clone(), questions[4].clone()]);
    rows[1].as_mut().unwrap().prompt.gold = Some("another".to_owned());
    let mut sink = Collect::default();
    let summary = Preparation::new(PrepareConfig::default(), 0, &[]).unwrap().run(rows, &mut sink).unwrap();
    assert_eq!((summary.kept, summary.kept_other_gold, summary.gold_conflicts), (2, 1, 0));
}

#[test]
fn without_dedup_ids_still_stay_unique() {
    let config = PrepareConfig { dedup: DedupConfig { exact: false, near: None }, ..Default::default() };
    let same = vec!["Same question".to_owned(), "Same question".to_owned(), "same question".to_owned()];
    let (sink, summary) = run(&Preparation::new(config, 0, &[]).unwrap(), &same);
    assert_eq!(sink.kept.len(), 2);
    assert_eq!(summary.drops, [("duplicate_id".to_owned(), 1)].into());
}

#[test]
fn pass_rates_set_difficulty_and_the_window_drops() {
    let questions = questions();
    let rate = |i: usize, correct| (prompt(&questions[i]).prompt_id, correct, 8);
    let rates: PassRates = [rate(0, 2), rate(2, 8)].into_iter().collect();
    let config = PrepareConfig { pass_rate: Some(PassWindow::default()), ..Default::default() };
    let preparation = Preparation::new(config, 0, &[]).unwrap().with_pass_rates(rates);
    let (sink, summary) = run(&preparation, &questions);
    assert_eq!(sink.kept.iter().map(|p| p.difficulty).collect::<Vec<_>>(), [Some(0.75)]);
    assert_eq!((summary.drops["pass_rate"], summary.drops["unmeasured"]), (1, 3));
}

#[test]
fn sampling_keeps_input_order_and_is_the_same_in_any_batching() {
    let questions: Vec<String> = (0..9_000).map(|i| format!("Question {i} about {}", i * 7919)).collect();
    let sample = SampleConfig { by: vec![Key::Domain], total: Some(100), ..Default::default() };
    let config = PrepareConfig { sample: Some(sample), ..Default::default() };
    let preparation = Preparation::new(config, 42, &[]).unwrap();
    let (sink, summary) = run(&preparation, &questions);
    assert_eq!((sink.kept.len(), summary.drops["sampled_out"]), (100, 8_900));
    let order: Vec<usize> =
        sink.kept.iter().map(|p| questions.iter().position(|q| q == p.question()).unwrap()).collect();
    assert!(order.is_sorted());
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let (single, _) = pool.install(|| run(&preparation, &questions));
    assert_eq!(single.kept, sink.kept);
}

#[test]
fn an_error_in_the_input_or_the_sink_stops_the_run() {
    struct Full;
    impl Sink for Full {
        fn keep(&mut self, _: Prompt) -> Result<()> {
            Err(crate::Error::new("disk full"))
        }
        fn drop(&mut self, _: Dropped) -> Result<()> {
            Ok(())
        }
        fn hit(&mut self, _: Hit) -> Result<()> {
            Ok(())
        }
        fn conflict(&mut self, _: GoldConflict) -> Result<()> {
            Ok(())
        }
    }
    let preparation = Preparation::new(PrepareConfig::default(), 0, &[]).unwrap();
    assert_eq!(preparation.run(rows(&questions()), &mut Full).unwrap_err().message(), "disk full");
    let broken = vec![Err(crate::Error::new("bad line"))];
    assert_eq!(preparation.run(broken, &mut Full).unwrap_err().message(), "bad line");
}

#[test]
fn a_configuration_is_strict() {
    let text = "[dedup.near]\nthreshold = 0.7\n[decontaminate]\nngram = 13\n[sample]\nby = ['domain']\ntotal = 10";
    let config: PrepareConfig = toml::from_str(text).unwrap();
    assert_eq!((config.dedup.near.unwrap().threshold, config.decontaminate.ngram), (0.7, 13));
    assert!(toml::from_str::<PrepareConfig>("[dedup]\nnear_threshold = 1").is_err());
}
