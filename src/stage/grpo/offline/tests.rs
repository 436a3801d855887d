use std::path::Path;

use super::*;
use crate::schema::{Message, Outcome, Prompt, Role};
use crate::store::{Location, ShardWriter, WriterOptions};

#[test]
fn groups_have_the_temperature_that_their_rows_say_and_one_alone() {
    let drawn = |said: &[&str]| Drawn { said: said.iter().map(|&s| s.to_owned()).collect(), place: "g".to_owned() };
    let temperature = |said: &[&str]| drawn(said).temperature().map_err(|e| e.render(false));
    assert_eq!(temperature(&[r#"{"temperature":0.7}"#, r#"{"temperature":0.7,"max_tokens":9}"#]), Ok(0.7));
    assert_eq!(temperature(&["{}", "", r#"{"temperature":0.7}"#]), Ok(0.7), "what says nothing says nothing else");
    assert_eq!(temperature(&["greedy?"]), Ok(1.0));
    let mixed = temperature(&[r#"{"temperature":0.7}"#, r#"{"temperature":1.0}"#]).unwrap_err();
    assert!(mixed.contains("0.7 and 1 among them") && mixed.contains("sampling = {"), "{mixed}");
    assert!(temperature(&[r#"{"temperature":0.0}"#]).unwrap_err().contains("above 0"));
    assert_eq!(drawn(&[r#"{"temperature":0.7,"top_p":1.0,"top_k":0,"min_p":0.0}"#]).cut(), None);
    let cut = drawn(&[r#"{"top_p":1.0}"#, r#"{"top_p":0.8}"#]).cut().unwrap();
    assert!(cut.contains("`top_p` 0.8"), "{cut}");
}

#[test]
fn texts_are_alike_where_engines_write_tags_and_ends_differently_and_not_where_ids_are_others() {
    let text = "<think>\nsix times seven\n</think>\nforty-two";
    assert!(is_alike("six times seven\n</think>\nforty-two<|im_end|>", text));
    assert!(is_alike("<think>\nsix times seven\n</think>\nforty-two STOP and more", text));
    assert!(!is_alike("Ġqueue ramp$$ the oh oh, 3;; belo", text));
    assert!(is_alike("", "") && is_alike("4", "4"));
}

fn said_six_times(sample: u32) -> String {
    [["one", "two", "three"][sample as usize]; 6].join(" ")
}

fn six(id: u32) -> Vec<u32> {
    vec![id; 6]
}

/// A completion of the prompt `p1`, `p2` …: its ids are those of its text to [`tokenizer`].
fn row(prompt: u64, sample: u32) -> GroupRow {
    GroupRow {
        prompt_id: format!("p{prompt}"),
        policy_step: 3,
        sample_index: sample,
        completion_id: format!("c{prompt}-{sample}"),
        domain: "math".into(),
        language: "en".into(),
        difficulty: None,
        reward: Some(f64::from(sample % 2)),
        advantage: None,
        outcome: Outcome::Correct,
        reason: "equal".into(),
        scores: Vec::new(),
        group_size: 3,
        reward_mean: None,
        reward_std: None,
        pass_rate: None,
        finish_reason: FinishReason::Stop,
        completion_tokens: Some(2),
        text: Some(said_six_times(sample)),
        prompt_token_ids: Some(vec![2, 1 + prompt as u32]),
        token_ids: Some([six(3 + sample), vec![0]].concat()),
        logprobs: Some(vec![-0.5; 7]),
        model: "m".into(),
        model_digest: "m".into(),
        rules_digest: "r".into(),
        sampling: "{}".into(),
    }
}

/// A row whose request failed.
fn failed(row: GroupRow) -> GroupRow {
    let finish_reason = FinishReason::Error;
    let (reward, prompt_token_ids) = (None, None);
    GroupRow { finish_reason, reward, prompt_token_ids, text: None, token_ids: None, logprobs: None, ..row }
}

/// A recorded row: text alone.
fn recorded(row: GroupRow) -> GroupRow {
    GroupRow { prompt_token_ids: None, token_ids: None, logprobs: None, ..row }
}

fn rows() -> Vec<GroupRow> {
    (1..4).flat_map(|prompt| (0..3).map(move |sample| row(prompt, sample))).collect()
}

/// Shows a question as "ask" and its words, and ends a turn with `<end>`.
fn tokenizer() -> Tokenizer {
    let words = ["<end>", "<unk>", "ask", "one", "two", "three", "<think>", "</think>"].map(String::from);
    let template = "{% for m in messages %}{% if m.role == 'user' %}ask {% endif %}{{ m.content }} {% endfor %}";
    Tokenizer::words(&words, "<unk>", "<end>", template).unwrap()
}

fn write<R: crate::schema::Row>(folder: &Path, kind: DatasetKind, shards: &[&[R]]) -> Dataset {
    let folder = Location::from(folder);
    for (index, rows) in shards.iter().enumerate() {
        let mut writer = ShardWriter::create(&folder, index, kind, WriterOptions::default()).unwrap();
        writer.push_rows(rows).unwrap();
        writer.finish().unwrap();
    }
    Dataset::open(&folder).unwrap()
}

/// Reads groups of these shards, with prompts if there are any.
fn stored(shards: &[&[GroupRow]], prompts: &[Prompt], old_logprobs: OldLogprobs) -> Result<Stored> {
    let folder = tempfile::tempdir().unwrap();
    let groups = write(&folder.path().join("groups"), DatasetKind::Groups, shards);
    let prompts =
        (!prompts.is_empty()).then(|| write(&folder.path().join("prompts"), DatasetKind::Prompts, &[prompts]));
    read(&groups, &Tokens { tokenizer: &tokenizer(), prompts: prompts.as_ref(), old_logprobs })
}

fn said(result: Result<Stored>) -> String {
    result.err().unwrap().render(false)
}

#[test]
fn rows_of_a_group_are_one_group_wherever_they_lie() {
    let whole = stored(&[&rows()], &[], OldLogprobs::Rollout).unwrap();
    assert!(!whole.scattered && whole.groups.len() == 3);
    assert_eq!(whole.groups[0].completions[2].tokens, [six(5), vec![0]].concat());
    let mut apart = rows();
    apart.sort_by_key(|row| (std::cmp::Reverse(row.sample_index), row.prompt_id.clone()));
    let made = stored(&[&apart[..4], &apart[4..]], &[], OldLogprobs::Rollout).unwrap();
    assert!(made.scattered);
    assert_eq!(made.groups, whole.groups);
    let mut later = row(1, 0);
    later.policy_step = 4;
    let steps = stored(&[&[row(1, 0), row(1, 1), later]], &[], OldLogprobs::Rollout).unwrap();
    assert_eq!(steps.groups.iter().map(|g| (g.policy_step, g.completions.len())).collect::<Vec<_>>(), [(3, 2), (4, 1)]);
    let twice = said(stored(&[&[row(1, 0), row(1, 1), row(1, 0)]], &[], OldLogprobs::Rollout));
    assert!(twice.contains("is twice in its group") && twice.contains("row 2"), "{twice}");
}

#[test]
fn a_request_that_failed_costs_its_own_row_and_a_group_of_nothing_else_is_listed() {
    let mut some = rows();
    some[0] = failed(some[0].clone());
    for row in &mut some[3..6] {
        *row = failed(row.clone());
    }
    let made = stored(&[&some], &[], OldLogprobs::Rollout).unwrap();
    let sizes: Vec<(&str, usize)> = made.groups.iter().map(|g| (&*g.prompt_id, g.completions.len())).collect();
    assert_eq!(sizes, [("p1", 2), ("p3", 3)]);
    assert_eq!(made.groups[0].prompt, [2, 2], "the prompt is any row's");
    assert_eq!(made.drops.to_string(), "1 request_failed");
    let all: Vec<GroupRow> = rows().into_iter().map(failed).collect();
    assert!(said(stored(&[&all], &[], OldLogprobs::Rollout)).contains("none of the 3 groups has a completion"));
}

#[test]
fn recorded_completions_are_tokenised_as_the_policy_would_be_asked() {
    let mut texts: Vec<GroupRow> = rows().into_iter().map(recorded).collect();
    texts[1].finish_reason = FinishReason::Length;
    texts[2].finish_reason = FinishReason::Unknown;
    let prompt = |id: u64| Prompt {
        prompt_id: format!("p{id}"),
        messages: vec![Message { role: Role::User, content: ["one", "two", "three"][id as usize - 1].into() }],
        gold: None,
        solution: None,
        verification: None,
        domain: "math".into(),
        language: "en".into(),
        difficulty: None,
        source: "s".into(),
        license: None,
        extra: None,
    };
    let prompts: Vec<Prompt> = (1..4).map(prompt).collect();
    let made = stored(&[&texts], &prompts, OldLogprobs::Recompute).unwrap();
    let first = &made.groups[0];
    assert_eq!((made.tokenised, &first.prompt[..]), (9, &[2, 3][..]));
    let tokens: Vec<Vec<u32>> = first.completions.iter().map(|c| c.tokens.clone()).collect();
    assert_eq!(
        tokens,
        [[six(3), vec![0]].concat(), six(4), [six(5), vec![0]].concat()],
        "what was cut at its limit has no end of turn"
    );
    assert!(first.completions.iter().all(|c| c.logprobs.is_none()));
    // The prompt's tokens are there, the completions' are not.
    let mut half = rows();
    half.iter_mut().for_each(|row| row.token_ids = None);
    let half = stored(&[&half], &[], OldLogprobs::Recompute).unwrap();
    assert_eq!(half.groups[1].completions[0].tokens, [six(3), vec![0]].concat());

    let refused = said(stored(&[&texts], &prompts, OldLogprobs::Rollout));
    assert!(refused.contains("no token ids") && refused.contains("old_logprobs"), "{refused}");
    let refused = said(stored(&[&texts], &[], OldLogprobs::Recompute));
    assert!(refused.contains("its prompt's tokens") && refused.contains("`prompts = \"…\"`"), "{refused}");
    let refused = said(stored(&[&texts], &prompts[..2], OldLogprobs::Recompute));
    assert!(refused.contains("a prompt that is not there: p3"), "{refused}");
}
