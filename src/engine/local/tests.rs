use std::collections::BTreeMap;

use super::*;
use crate::backend::Heads;
use crate::model::{Batch, Config};
use crate::schema::{FinishReason, Role};

const TEMPLATE: &str = "{% for m in messages %}{{ m.content }} {% endfor %}ask";

fn engine(limits: Limits, threads: usize) -> LocalEngine {
    engine_on(Cpu::with_threads(threads).unwrap(), limits)
}

fn engine_on(backend: Cpu, limits: Limits) -> LocalEngine {
    let mut words: Vec<String> = ["<unk>", "<end>", "ask", "stop", "here"].map(String::from).into();
    words.extend((0..40).map(|i| format!("w{i}")));
    let tokenizer = Tokenizer::words(&words, "<unk>", "<end>", TEMPLATE).unwrap();
    let heads = Heads { query: 4, kv: 2, dim: 8 };
    let config = Config::fresh(words.len(), 32, 48, 2, heads, 128, &[1]).unwrap();
    let mut model = Model::init_on(backend, config, 3);
    // Larger weights make a peaked, wordy distribution.
    for info in model.parameters().to_vec() {
        let scaled: Vec<f32> = model.get(&info).iter().map(|w| w * 3.0).collect();
        model.set(&info, &scaled);
    }
    model.publish();
    LocalEngine::new(SharedModel::new(model), Arc::new(tokenizer), "tiny", limits).unwrap()
}

fn request(id: usize, words: usize, samples: u32, sampling: &Sampling) -> Request {
    let content = (0..words).map(|i| format!("w{}", (id * 7 + i) % 40)).collect::<Vec<_>>().join(" ");
    Request {
        prompt_id: format!("p{id}").into(),
        messages: [Message { role: Role::User, content }].into(),
        samples: (0..samples).map(|i| SampleSeed { index: i, seed: (id * 100) as u64 + u64::from(i) }).collect(),
        sampling: Arc::new(sampling.clone()),
        policy_step: 0,
    }
}

fn answers(engine: &LocalEngine, requests: Vec<Request>) -> BTreeMap<(String, u32), Generated> {
    let mut all = BTreeMap::new();
    let mut sink = |g: Generated| {
        assert!(all.insert((g.prompt_id.to_string(), g.sample_index), g).is_none(), "a sample came twice");
        Ok(())
    };
    engine.generate(&mut requests.into_iter(), &mut sink).unwrap();
    all
}

fn plain(max_tokens: u32) -> Sampling {
    Sampling { temperature: 1.0, top_p: 1.0, max_tokens, ..Sampling::default() }
}

#[test]
fn a_completion_does_not_depend_on_its_batch_or_threads() {
    let sampling = Sampling { top_p: 0.9, min_p: 0.01, ..plain(30) };
    let requests = || (0..9).map(|i| request(i, 1 + i * 5, 3, &sampling)).collect::<Vec<_>>();
    let wide = answers(&engine(Limits::default(), 2), requests());
    assert_eq!(wide.len(), 27);
    let narrow = Limits { batch: Some(2), prefill: Some(5), cache_bytes: Some(1 << 16) };
    assert_eq!(answers(&engine(narrow, 1), requests()), wide);
    assert_eq!(answers(&engine_on(Cpu::serial().as_devices(3), narrow), requests()), wide);
    let alone = engine(Limits { batch: Some(1), ..Limits::default() }, 1);
    for i in 0..9 {
        for (key, answer) in answers(&alone, vec![request(i, 1 + i * 5, 3, &sampling)]) {
            assert_eq!(wide[&key], answer);
        }
    }
}

#[test]
fn a_pool_of_pages_that_is_too_small_costs_time_and_changes_nothing() {
    let sampling = plain(60);
    let requests = || (0..6).map(|i| request(i, 2 + i * 7, 4, &sampling)).collect::<Vec<_>>();
    let ample = engine(Limits::default(), 1);
    let want = answers(&ample, requests());
    assert_eq!(ample.displacements(), 0);
    // A page of this model is 16 tokens of 2 layers, 2 · 2 heads of 8, in f32.
    let page = 16 * 2 * 2 * 2 * 8 * 4;
    let mut displaced = Vec::new();
    for pages in [7, 12, 25] {
        let small = engine(Limits { batch: Some(16), cache_bytes: Some(pages * page), prefill: Some(8) }, 1);
        assert_eq!(answers(&small, requests()), want, "{pages} pages");
        let once = small.displacements();
        // The cache is kept between calls, and nothing of the last one with it.
        assert_eq!(answers(&small, requests()), want, "{pages} pages, again");
        displaced.push((once, small.displacements() - once));
    }
    assert!(displaced.iter().all(|(once, _)| *once > 0), "sequences that outgrow the pool give way: {displaced:?}");
    // The first pool did not hold the longest sequence and was made larger on the way.
    assert!(displaced[1..].iter().all(|(once, again)| once == again), "a function of the requests: {displaced:?}");
}

#[test]
fn a_long_prompt_widens_the_cache_while_others_are_written() {
    let sampling = plain(20);
    let requests = || [(0, 2), (1, 90), (2, 3)].map(|(id, words)| request(id, words, 3, &sampling)).to_vec();
    let want = answers(&engine(Limits::default(), 1), requests());
    let alone = engine(Limits { batch: Some(1), cache_bytes: Some(1), ..Limits::default() }, 1);
    assert_eq!(answers(&alone, requests()), want);
    // Three at a time: short sequences run when the long prompt arrives.
    assert_eq!(answers(&engine(Limits { batch: Some(3), ..Limits::default() }, 1), requests()), want);
}

#[test]
fn a_run_that_is_stopped_leaves_its_pages_to_the_next() {
    let engine = engine(Limits::default(), 1);
    let want: Vec<_> = answers(&engine, vec![request(3, 9, 4, &plain(30))]).into_values().collect();
    let model = engine.model().read();
    let mut worker = Worker::new(model.backend().clone(), Decoding { batch: 8, cache_bytes: 1 << 14, prefill: 8 });
    let mut run = |requests: &mut dyn Iterator<Item = Request>, send: &mut dyn FnMut(Generated) -> bool| {
        worker.run(&model, &engine.tokenizer, &engine.ends, &mut || requests.next(), send, None).unwrap();
    };
    for _ in 0..20 {
        // The reader is gone after the first answer: the other sequences are left where they are.
        run(&mut (0..).map(|i| request(i, 9, 4, &plain(30))), &mut |_| false);
    }
    let mut found = Vec::new();
    run(&mut [request(3, 9, 4, &plain(30))].into_iter(), &mut |generated| {
        found.push(generated);
        true
    });
    found.sort_by_key(|generated| generated.sample_index);
    assert_eq!(found, want);
}

#[test]
fn sampled_logprobs_are_the_trainers_to_the_bit() {
    let engine = engine(Limits::default(), 2);
    let answers = answers(&engine, (0..6).map(|i| request(i, 3 + i * 11, 4, &plain(40))).collect());
    let model = engine.model().read();
    let mut batch = Batch::new();
    let mut sampled = Vec::new();
    for answer in answers.values() {
        batch.push_completion(answer.prompt_token_ids.as_ref().unwrap(), answer.token_ids.as_ref().unwrap());
        sampled.extend(answer.logprobs.clone().unwrap());
    }
    let scores = model.forward(&mut model.workspace(), &batch).unwrap();
    assert_eq!(scores.logprobs, sampled);
}

#[test]
fn at_a_temperature_the_trainer_follows_sampled_logprobs_are_its_own_to_the_bit() {
    let engine = engine(Limits::default(), 2);
    let cold = Sampling { temperature: 0.7, ..plain(40) };
    let requests = || (0..6).map(|i| request(i, 3 + i * 11, 4, &cold)).collect::<Vec<_>>();
    let plain_policy = answers(&engine, requests());
    engine.model().write().set_temperature(0.7).unwrap();
    let sampled = answers(&engine, requests());
    let model = engine.model().read();
    let (mut same, mut all) = (0, 0);
    for (key, answer) in &sampled {
        let mut batch = Batch::new();
        batch.push_completion(answer.prompt_token_ids.as_ref().unwrap(), answer.token_ids.as_ref().unwrap());
        let scores = model.forward(&mut model.workspace(), &batch).unwrap();
        assert_eq!(answer.logprobs.as_ref(), Some(&scores.logprobs));
        same += usize::from(answer.token_ids == plain_policy[key].token_ids);
        all += 1;
    }
    // The draws are the same but for rounding: one distribution in two forms.
    assert!(same * 10 >= all * 9, "{same} of {all}");
    drop(model);
    // What is asked at another temperature is drawn at that one.
    let greedy = Sampling { temperature: 0.0, ..plain(40) };
    let at_policys = answers(&engine, vec![request(1, 9, 1, &greedy)]);
    engine.model().write().set_temperature(1.0).unwrap();
    assert_eq!(
        answers(&engine, vec![request(1, 9, 1, &greedy)])[&("p1".into(), 0)].token_ids,
        at_policys[&("p1".into(), 0)].token_ids
    );
}

#[test]
fn stop_strings_and_tokens_end_a_completion_and_leave_the_text() {
    let engine = engine(Limits::default(), 2);
    let whole = answers(&engine, vec![request(0, 4, 8, &plain(40))]);
    let whole = whole.values().max_by_key(|g| g.token_ids.as_ref().unwrap().len()).unwrap();
    let text = whole.text.clone().unwrap();
    let word = text.split(' ').nth(2).expect("the longest of eight answers has three words").to_owned();
    let sample = |sampling: Sampling| {
        let mut again = request(0, 4, 8, &sampling);
        again.samples.retain(|sample| sample.index == whole.sample_index);
        answers(&engine, vec![again]).into_values().next().unwrap()
    };
    let cut = sample(Sampling { stop: vec![format!(" {word}")], ..plain(40) });
    assert_eq!(cut.finish_reason, FinishReason::Stop);
    assert_eq!(cut.stop_reason, Some(format!(" {word}")));
    assert_eq!(cut.text.as_deref(), text.split_once(&format!(" {word}")).map(|(before, _)| before));
    let id = engine.tokenizer().id(&word).unwrap();
    let cut = sample(Sampling { stop_token_ids: vec![id], ..plain(40) });
    assert_eq!(cut.token_ids.unwrap().last(), Some(&id));
    assert_eq!(cut.stop_reason, Some(word.clone()));
    assert!(!cut.text.unwrap().contains(&word));
    let short = sample(plain(2));
    assert_eq!((short.finish_reason, short.completion_tokens), (FinishReason::Length, Some(2)));
}

#[test]
fn a_prompt_too_long_fails_alone() {
    let engine = engine(Limits::default(), 2);
    let answers = answers(&engine, vec![request(0, 200, 2, &plain(5)), request(1, 3, 1, &plain(5))]);
    let failed = &answers[&("p0".into(), 1)];
    assert_eq!(failed.finish_reason, FinishReason::Error);
    assert!(failed.error.as_ref().unwrap().contains("201 tokens"), "{failed:?}");
    assert!(answers[&("p1".into(), 0)].text.is_some());
}

#[test]
fn a_sink_that_fails_ends_the_work() {
    let engine = engine(Limits { batch: Some(2), ..Limits::default() }, 2);
    let mut requests = (0..).map(|i| request(i, 3, 2, &plain(5)));
    let mut left = 5;
    let mut sink = |_| {
        left -= 1;
        if left == 0 { Err(Error::new("disk full")) } else { Ok(()) }
    };
    assert_eq!(engine.generate(&mut requests, &mut sink).unwrap_err().message(), "disk full");
}

#[test]
fn chat_streams_the_text_it_returns() {
    let engine = engine(Limits::default(), 2);
    let messages = request(2, 4, 1, &plain(30)).messages;
    let mut streamed = String::new();
    let answer = engine.chat(&messages, &plain(30), 11, &mut |piece| {
        streamed.push_str(piece);
        true
    });
    assert_eq!(answer.unwrap().text.unwrap(), streamed);
    let mut pieces = 0;
    let stopped = engine.chat(&messages, &plain(30), 11, &mut |_| {
        pieces += 1;
        false
    });
    assert_eq!((pieces, stopped.unwrap().token_ids.unwrap().len()), (1, 1));
}
