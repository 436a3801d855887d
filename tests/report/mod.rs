//! `gristmill report`: one page that shows what a run did.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray, UInt64Array};
use gristmill::schema::{DatasetKind, FinishReason, GroupRow, Message, Outcome, Prompt, Role, Row, Score};
use gristmill::store::{Manifest, ShardWriter, WriterOptions};
use parquet::arrow::ArrowWriter;

use crate::support::{gristmill, write_recordings};

/// Writes columns as a Parquet file.
fn write_columns(file: &Path, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, c)| (name, c, true))).unwrap();
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(file).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn write_rows<R: Row>(folder: &Path, kind: DatasetKind, rows: &[R]) {
    let mut writer = ShardWriter::create(&folder.into(), 0, kind, WriterOptions::default()).unwrap();
    writer.push_rows(rows).unwrap();
    writer.finish().unwrap();
}

fn floats(values: impl IntoIterator<Item = Option<f64>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<Float64Array>())
}

fn counts(values: impl IntoIterator<Item = u64>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<UInt64Array>())
}

fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

/// Writes the report of `run` and reads it.
fn report(folder: &Path, run: &str, more: &[&str]) -> String {
    let told = gristmill(folder, [&["report", run], more].concat()).succeeded().stdout;
    std::fs::read_to_string(folder.join(told.trim())).unwrap()
}

/// One section of the page.
#[track_caller]
fn section<'a>(page: &'a str, id: &str) -> &'a str {
    let start = page.find(&format!("<section id=\"{id}\">")).unwrap_or_else(|| panic!("no section {id} in\n{page}"));
    let end = page[start..].find("</section>").expect("sections are closed");
    &page[start..start + end]
}

/// What the reader sees: tags off, cells and words of a line on one line.
fn seen(html: &str) -> String {
    const INLINE: [&str; 8] = ["td", "th", "b", "i", "u", "span", "code", "a"];
    let mut out = String::new();
    for piece in html.split('<') {
        let Some((tag, text)) = piece.split_once('>') else { continue };
        let name = tag.trim_start_matches('/').split(' ').next().unwrap_or_default();
        out.push(if INLINE.contains(&name) { ' ' } else { '\n' });
        out.push_str(&text.replace('\n', " "));
    }
    let lines = out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_first_commands_run_has_a_report_without_a_training_section() {
    let folder = tempfile::tempdir().unwrap();
    gristmill(folder.path(), ["run", "quickstart", "--out", "out"]).succeeded();
    let page = report(folder.path(), "out", &[]);
    assert!(folder.path().join("out/report.html").is_file());
    for id in ["funnel", "verdicts", "lengths", "groups", "stages"] {
        assert!(section(&page, id).len() > 200, "{id} is empty");
    }
    for id in ["claims", "curves", "notes"] {
        assert!(!page.contains(&format!("id=\"{id}\"")), "there is nothing to show in {id}");
    }
    let head = seen(&page[page.find("<header>").unwrap()..page.find("</header>").unwrap()]);
    assert!(head.starts_with("quickstart\nseed 7 8 stages "), "{head}");
    assert!(!section(&page, "stages").contains("not finished"));
}

#[test]
fn the_page_needs_no_network_and_runs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    gristmill(folder.path(), ["run", "quickstart", "--out", "out"]).succeeded();
    let page = report(folder.path(), "out", &["--out", "elsewhere/r.html"]).to_lowercase();
    assert!(folder.path().join("elsewhere/r.html").is_file());
    let svg = "xmlns=\"http://www.w3.org/2000/svg\"";
    for part in ["<script", "src=", "<link", "@import", "url(", "onload", "javascript:", "http://", "https://"] {
        assert!(!page.replace(svg, "").contains(part), "`{part}` is in the page");
    }
}

#[test]
fn the_funnel_counts_what_came_and_what_was_dropped_and_why() {
    let folder = tempfile::tempdir().unwrap();
    write_recordings(folder.path(), 50);
    gristmill(folder.path(), ["run", "recipe.toml", "--out", "out"]).succeeded();
    let page = report(folder.path(), "out", &[]);
    assert_told!(seen(section(&page, "funnel")));
    assert_told!(seen(section(&page, "verdicts")));
}

#[test]
fn a_line_of_what_was_measured_after_steps_begins_with_what_was_measured_before_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = vec![
        ("step", counts(0..3)),
        ("evaluation_before", floats([Some(0.125), None, None])),
        ("evaluation", floats([None, None, Some(0.75)])),
    ];
    write_columns(&folder.path().join("run/1_rl/metrics.parquet"), metrics);
    let page = report(folder.path(), "run", &[]);
    let curves = seen(section(&page, "curves"));
    assert!(curves.contains("Held-out accuracy") && curves.contains("0.125"), "{curves}");
    assert!(!curves.contains("before"), "one line: {curves}");
}

/// A run of three training stages, two of them finished, with evaluations and claims.
fn write_training(folder: &Path) {
    let n = 100u64;
    let steps = || counts(0..n);
    let metrics = vec![
        ("step", steps()),
        ("loss", floats((0..n).map(|i| Some(2.0 - i as f64 / 100.0)))),
        ("grad_norm", floats((0..n).map(|_| Some(f64::NAN)))),
        ("kl_reference", floats((0..n).map(|_| None))),
        ("learning_rate", floats((0..n).map(|_| Some(1e-3)))),
    ];
    write_columns(&folder.join("1_sft/metrics.parquet"), metrics);
    let metrics = vec![
        ("step", steps()),
        ("loss", floats((0..n).map(|i| Some(i as f64 * 1e-3)))),
        ("reward", floats((0..n).map(|i| Some(i as f64 / 100.0)))),
        ("reward_mean", floats((0..n).map(|i| Some(i as f64 / 100.0)))),
        ("reward/math<b>", floats((0..n).map(|i| Some(i as f64 / 200.0)))),
        ("held_out", floats((0..n).map(|i| (i % 20 == 0).then_some(0.25 + i as f64 / 200.0)))),
    ];
    write_columns(&folder.join("2_grpo/metrics.parquet"), metrics);
    write_rows(&folder.join("2_grpo/groups"), DatasetKind::Groups, &rollouts());
    let prompt = Prompt {
        prompt_id: "p1".into(),
        messages: vec![Message { role: Role::User, content: "What is 2 + 2 <b>?".into() }],
        gold: Some("4".into()),
        ..golden_prompt()
    };
    write_rows(&folder.join("2_grpo/prompts"), DatasetKind::Prompts, &[prompt]);
    let commit = |stage: &str, number: u32| {
        let folder = folder.join(format!("{number}_{stage}"));
        Manifest::new(stage, "grpo", None, "f", vec![]).commit(&folder.as_path().into()).unwrap();
    };
    commit("grpo", 2);
    let metrics = vec![("step", steps()), ("loss", floats((0..n).map(|i| Some(1.0 - i as f64 * 1e-3))))];
    write_columns(&folder.join("3_final_rl/metrics.parquet"), metrics);
    commit("final_rl", 3);
    let evals = vec![
        ("model", texts(&["base", "R1", "base"])),
        ("slice", texts(&["all", "all", "domain=<i>math</i>"])),
        ("prompts", counts([1000, 1000, 400])),
        ("samples", counts([16, 16, 16])),
        ("pass_at_1", floats([Some(0.412), Some(0.9), Some(0.5)])),
        ("pass_at_1_low", floats([Some(0.40), Some(0.88), None])),
        ("pass_at_1_high", floats([Some(0.43), Some(0.92), None])),
        ("pass_at_8", floats([Some(0.7), Some(0.97), None])),
        ("cons_at_k", floats([Some(0.6), Some(0.95), None])),
        ("undecided", floats([Some(0.0), Some(0.0), Some(0.0)])),
        ("score/format", floats([Some(0.62), Some(1.0), None])),
        ("mean_tokens", floats([Some(29.5), Some(31.0), Some(28.0)])),
    ];
    write_columns(&folder.join("4_eval/evals.parquet"), evals);
    let claims = vec![
        ("claim", texts(&["RL raises pass@1 by 20 points", "the vote beats pass@1 & more"])),
        ("left", floats([Some(0.9), Some(0.5)])),
        ("right", floats([Some(0.412), Some(0.6)])),
        ("margin", floats([Some(0.488), Some(-0.1)])),
        ("at_least", floats([Some(0.2), Some(0.0)])),
        ("holds", Arc::new(BooleanArray::from(vec![true, false])) as ArrayRef),
    ];
    write_columns(&folder.join("claims.parquet"), claims);
    std::fs::write(folder.join("run.json"), r#"{ "name": "mini <1>", "gristmill": "0.1.0" }"#).unwrap();
    let log = [
        r#"{"at":"2026-11-23T10:00:00.5Z","event":"run","name":"mini","seed":3}"#,
        r#"{"at":"2026-11-23T10:00:01Z","event":"done","stage":"grpo","cached":false,"seconds":90.0}"#,
        r#"{"at":"2026-11-23T11:00:00Z","event":"done","stage":"grpo","cached":true,"seconds":0.0}"#,
        r#"{"at":"2026-11-23T11:00:02Z","event":"failed","stage":"sft","error":"out of <memory>"}"#,
        r#"{"at":"2026-11-2"#,
    ];
    std::fs::write(folder.join("run.jsonl"), log.join("\n")).unwrap();
}

fn golden_prompt() -> Prompt {
    let file = crate::support::repository("datasets/golden/v1/prompts.parquet");
    let dataset = gristmill::store::Dataset::open(&file.into()).unwrap();
    dataset.rows_of::<Prompt>().next().unwrap().unwrap()
}

/// Three groups: an early one, and of the last step one without variance and one with.
fn rollouts() -> Vec<GroupRow> {
    let file = crate::support::repository("datasets/golden/v1/groups.parquet");
    let dataset = gristmill::store::Dataset::open(&file.into()).unwrap();
    let golden = dataset.rows_of::<GroupRow>().next().unwrap().unwrap();
    let row = |prompt: &str, step: u64, sample: u32, right: bool, text: &str| GroupRow {
        prompt_id: prompt.into(),
        policy_step: step,
        sample_index: sample,
        completion_id: format!("{prompt}-{step}-{sample}"),
        reward: Some(f64::from(u8::from(right))),
        advantage: Some(if right { 1.0 } else { -1.0 }),
        outcome: if right { Outcome::Correct } else { Outcome::Wrong },
        reason: if right { "equal".into() } else { "not_equal".into() },
        scores: vec![Score {
            rule: "math".into(),
            score: Some(f64::from(u8::from(right))),
            outcome: if right { Outcome::Correct } else { Outcome::Wrong },
            reason: if right { "equal".into() } else { "not_equal".into() },
            evidence: Some(r#"{"extracted":"<svg onload=alert(2)>"}"#.into()),
        }],
        finish_reason: FinishReason::Stop,
        completion_tokens: Some(10 + sample),
        text: Some(text.into()),
        ..golden.clone()
    };
    let attack = "<think>a < b</think></pre><script>alert(1)</script><img src=x onerror=alert(1)> & 4";
    vec![
        row("p0", 0, 0, true, "early"),
        row("p0", 0, 1, false, "early"),
        row("p0", 9, 0, true, "all right"),
        row("p0", 9, 1, true, "all right"),
        row("p1", 9, 0, true, attack),
        row("p1", 9, 1, false, "<think>I do not know"),
        row("p2", 9, 0, true, "as good, but of a larger id"),
        row("p2", 9, 1, false, "as good, but of a larger id"),
    ]
}

#[test]
fn claims_and_models_are_tables() {
    let folder = tempfile::tempdir().unwrap();
    write_training(&folder.path().join("run"));
    let page = report(folder.path(), "run", &[]);
    assert_told!(seen(section(&page, "claims")));
}

#[test]
fn several_evaluations_are_told_apart_and_stand_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    write_training(&folder.path().join("run"));
    let aime = vec![
        ("model", texts(&["R1", "R1"])),
        ("slice", texts(&["all", "source=aime24"])),
        ("prompts", counts([30, 15])),
        ("samples", counts([64, 64])),
        ("pass_at_1", floats([Some(0.75), Some(0.8)])),
        ("pass_at_1_low", floats([Some(0.6), None])),
        ("pass_at_1_high", floats([Some(0.875), None])),
        ("cons_at_k", floats([Some(0.8), Some(0.8)])),
        ("vote_gain", floats([Some(-0.05), Some(0.0)])),
    ];
    write_columns(&folder.path().join("run/5_aime/evals.parquet"), aime);
    let told = seen(section(&report(folder.path(), "run", &[]), "claims"));
    let lines: Vec<&str> = told.lines().collect();
    let at = |line: &str| lines.iter().position(|l| *l == line).unwrap_or_else(|| panic!("no `{line}` in\n{told}"));
    let side_by_side = at("pass@1 by model and evaluation with 95% intervals");
    assert_eq!(
        lines[side_by_side + 1..side_by_side + 4],
        ["model eval aime", "base 41.2% 40.0% to 43.0% –", "R1 90.0% 88.0% to 92.0% 75.0% 60.0% to 87.5%"]
    );
    let (first, second) = (at("eval: all prompts"), at("aime: all prompts"));
    assert!(side_by_side < first && first < second, "{told}");
    // Each with its own columns: how many samples vote is the evaluation's.
    assert!(lines[first + 1].contains("cons@16") && !lines[first + 1].contains("vote gain"), "{told}");
    assert_eq!(lines[second + 1], "model prompts samples pass@1 95% interval cons@64 vote gain");
    assert!(told.contains("60.0% to 87.5% 80.0% −5.0%") && at("source=aime24") > second, "{told}");
}

#[test]
fn the_same_metric_of_stages_of_one_kind_shares_a_plot() {
    let folder = tempfile::tempdir().unwrap();
    write_training(&folder.path().join("run"));
    let page = report(folder.path(), "run", &[]);
    let curves = section(&page, "curves");
    let plots: Vec<&str> = curves.split("<figure>").skip(1).collect();
    let titles: Vec<&str> = plots.iter().map(|plot| plot.split(['<', '>']).nth(4).unwrap()).collect();
    // What is null or not finite throughout has no plot; a metric under two names has one.
    assert_eq!(titles, ["Held-out accuracy", "Reward", "Reward: math&lt;b&gt;", "Loss: sft", "Loss: grpo"]);
    let legend = |plot: &str| seen(&plot[plot.find("<ul").unwrap()..plot.find("</ul>").unwrap()]);
    assert_eq!(legend(plots[0]), "grpo 0.25 → 0.65");
    assert_eq!(legend(plots[3]), "sft 2 → 1.01");
    assert_eq!(legend(plots[4]), "grpo 0 → 0.099\nfinal_rl 1 → 0.901");
    assert!(seen(curves).ends_with("Constant throughout: learning rate 0.001"), "{}", seen(curves));
    assert_eq!(curves.matches("<svg ").count(), 5);
}

#[test]
fn runs_with_other_seeds_are_drawn_into_the_same_plots() {
    let folder = tempfile::tempdir().unwrap();
    write_training(&folder.path().join("one"));
    write_training(&folder.path().join("two"));
    std::fs::write(folder.path().join("two/run.jsonl"), r#"{"event":"run","seed":4}"#).unwrap();
    let page = report(folder.path(), "one", &["--compare", "two"]);
    let told = seen(section(&page, "curves"));
    for label in ["mini &lt;1&gt; (seed 3) · grpo", "mini &lt;1&gt; (seed 4) · grpo"] {
        assert!(told.lines().any(|line| line.starts_with(label)), "no `{label}` in\n{told}");
    }
}

#[test]
fn what_a_model_writes_is_text_and_never_markup() {
    let folder = tempfile::tempdir().unwrap();
    write_training(&folder.path().join("run"));
    let page = report(folder.path(), "run", &[]);
    assert!(!page.contains("<script") && !page.contains("<img") && !page.contains("<svg onload"), "markup got through");
    assert!(page.contains("&lt;script&gt;alert(1)&lt;"), "the text itself is shown");
    for escaped in ["mini &lt;1&gt;", "2 + 2 &lt;b&gt;?", "out of &lt;memory&gt;", "domain=&lt;i&gt;math"] {
        assert!(page.contains(escaped), "`{escaped}` is not in the page");
    }
}

#[test]
fn the_group_shown_is_of_the_latest_policy_and_has_rewards_that_differ() {
    let folder = tempfile::tempdir().unwrap();
    write_training(&folder.path().join("run"));
    let page = report(folder.path(), "run", &[]);
    assert_told!(seen(section(&page, "groups")));
    assert_eq!(report(folder.path(), "run", &[]), page, "the same run has the same report");
}

#[test]
fn a_run_that_goes_on_shows_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    write_training(&folder.path().join("run"));
    let page = report(folder.path(), "run", &[]);
    assert_told!(seen(section(&page, "stages")));
}

#[test]
fn a_damaged_dataset_is_named_and_the_rest_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    write_training(&folder.path().join("run"));
    std::fs::write(folder.path().join("run/1_sft/metrics.parquet"), b"PAR1 but not much more PAR1").unwrap();
    let whole = std::fs::read(folder.path().join("run/2_grpo/groups/part-00000.parquet")).unwrap();
    // Its footer is whole, its pages are not.
    let mut torn = whole.clone();
    torn[4..whole.len() / 2].fill(0xff);
    std::fs::write(folder.path().join("run/2_grpo/groups/part-00000.parquet"), torn).unwrap();
    let page = report(folder.path(), "run", &[]);
    let notes = section(&page, "notes");
    assert!(notes.contains("metrics.parquet") && notes.contains("part-00000.parquet"), "{notes}");
    assert!(page.contains("<section id=\"claims\">") && page.contains("<section id=\"curves\">"));
}

#[test]
fn a_folder_that_is_no_run_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    for (run, told) in [("empty", "this folder is not a run"), ("absent", "there is no such folder")] {
        let refused = gristmill(folder.path(), ["report", run]);
        assert_eq!(refused.code, Some(1), "{}", refused.story());
        assert!(refused.stderr.contains(told) && refused.stderr.contains(run), "{}", refused.story());
    }
    assert_eq!(std::fs::read_dir(folder.path().join("empty")).unwrap().count(), 0);
}
