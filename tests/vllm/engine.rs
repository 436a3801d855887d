//! What one server answers, asked in every way there is.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use gristmill::engine::vllm::{Api, Template, VllmConfig};
use gristmill::model::Model;
use gristmill::schema::FinishReason;

use super::{Models, Rows, collect, config, connect, distance, ids, logprobs, our_logprobs, requests};

pub fn tokens_are_the_same_however_they_are_asked(address: &str, _: &Models, _: &Path) {
    let config = config(&[address]);
    let engine = connect(config.clone());
    let since = Instant::now();
    let rows = collect(&engine, requests(16, 1.0, 32));
    let tokens = engine.snapshot().completion_tokens;
    println!("{tokens} tokens at {:.0}/s", tokens as f64 / since.elapsed().as_secs_f64());
    assert_eq!(rows.len(), 64);
    for row in rows.values() {
        let tokens = row.token_ids.as_ref().unwrap();
        assert_eq!(row.logprobs.as_ref().unwrap().len(), tokens.len());
        assert!(row.logprobs.as_ref().unwrap().iter().all(|p| *p <= 0.0));
        assert_eq!(row.completion_tokens, Some(tokens.len() as u32));
        assert_eq!(row.prompt_token_ids.as_ref().unwrap().len() as u32, row.prompt_tokens.unwrap());
        assert_eq!(row.finish_reason == FinishReason::Length, tokens.len() == 32);
    }
    let samples: BTreeSet<_> = ids(&rows).into_iter().collect();
    assert!(samples.len() > 60, "samples of one prompt differ");

    let serial = connect(VllmConfig { max_concurrency: 1, ..config.clone() });
    let again = collect(&serial, requests(16, 1.0, 32));
    assert_eq!(ids(&again), ids(&rows), "seeds reproduce, one at a time or all at once");
    let gap = distance(&logprobs(&again), &logprobs(&rows));
    println!("logprobs one at a time and all at once differ by {gap:e} at most");
    assert!(gap < 1e-3);

    let streamed = collect(&connect(VllmConfig { stream: true, ..config.clone() }), requests(16, 1.0, 32));
    assert_eq!(ids(&streamed), ids(&rows), "a stream brings the same tokens");
    let text = |rows: &Rows| rows.values().map(|r| (r.text.clone(), r.prompt_tokens)).collect::<Vec<_>>();
    assert_eq!(text(&streamed), text(&rows));

    let chat = VllmConfig { api: Api::Chat, template: Template::Server, ..config.clone() };
    let chat_rows = collect(&connect(chat.clone()), requests(4, 1.0, 16));
    let streamed = connect(VllmConfig { stream: true, ..chat.clone() });
    assert_eq!(ids(&collect(&streamed, requests(4, 1.0, 16))), ids(&chat_rows));
    let whole = |row: &gristmill::engine::Generated| {
        row.logprobs.is_some() && row.prompt_token_ids.is_some() && row.text.is_some()
    };
    assert!(chat_rows.values().all(whole));
    let batched = collect(&connect(VllmConfig { n_per_request: 4, ..chat }), requests(4, 1.0, 16));
    assert_eq!(ids(&batched).len(), 16, "four samples of one request");

    let continued = VllmConfig { continue_rounds: 1, continue_tokens: 24, ..config };
    let continued = collect(&connect(continued), requests(4, 0.0, 8));
    let whole = collect(&engine, requests(4, 0.0, 32));
    assert_eq!(ids(&continued), ids(&whole), "cut at 8 and continued by 24 is the same as 32 at once");

    let overflow = collect(&engine, requests(2, 1.0, 4096));
    for row in overflow.values() {
        assert!(row.error.as_ref().unwrap().starts_with("context_overflow"), "{:?}", row.error);
    }
    assert_eq!(engine.snapshot().failed_rows, [("context_overflow", 8)]);
}

pub fn logprobs_are_those_of_our_engine(address: &str, models: &Models, _: &Path) {
    let rows = collect(&connect(config(&[address])), requests(16, 1.0, 32));
    let model = Model::load(&models.trained).unwrap();
    let mut gap = 0f32;
    for row in rows.values() {
        let (prompt, tokens) = (row.prompt_token_ids.as_ref().unwrap(), row.token_ids.as_ref().unwrap());
        gap = gap.max(distance(row.logprobs.as_ref().unwrap(), &our_logprobs(&model, prompt, tokens)));
    }
    println!("logprobs of vLLM and of our engine differ by {gap:e} at most, over {} completions", rows.len());
    assert!(gap < 1e-3, "{gap}");
}
