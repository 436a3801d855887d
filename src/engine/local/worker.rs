//! One worker: a KV cache, the sequences in it, and the loop that feeds them.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Options;
use super::text::Text;
use crate::backend::{Backend, Draw, Drawn};
use crate::engine::{Generated, Request};
use crate::error::Result;
use crate::model::{Decoder, Model, Row, Tokenizer};
use crate::schema::FinishReason;

/// Capacities are rounded up to this, so that prompts of like length share a plan.
const CAPACITY_STEP: usize = 64;

/// Decodes with one backend; keeps its cache between calls.
pub struct Worker<B: Backend> {
    backend: B,
    options: Options,
    decoder: Option<Decoder<B>>,
}

/// A request whose prompt is tokenized, with the samples still to start.
struct Prompt {
    request: Arc<Request>,
    tokens: Arc<[u32]>,
    /// Most tokens a completion can have here.
    limit: usize,
    samples: VecDeque<(u32, u64)>,
}

/// A completion being written.
struct Active {
    request: Arc<Request>,
    prompt: Arc<[u32]>,
    limit: usize,
    index: u32,
    seed: u64,
    ids: Vec<u32>,
    logprobs: Vec<f32>,
    text: Text,
    /// Bytes of text handed to the reader.
    shown: usize,
}

/// How a completion ended: why, the stop that was met, where it cuts the text.
struct End {
    reason: FinishReason,
    stop: Option<String>,
    cut: Option<usize>,
}

type Next<'a> = &'a mut dyn FnMut() -> Option<Request>;
type Send<'a> = &'a mut dyn FnMut(Generated) -> bool;
type OnText<'a> = &'a mut (dyn FnMut(&str) -> bool + std::marker::Send + 'a);

impl<B: Backend> Worker<B> {
    pub fn new(backend: B, options: Options) -> Self {
        Worker { backend, options, decoder: None }
    }

    /// Answers requests until `next` has none; `send` returns false to stop.
    pub fn run(
        &mut self,
        model: &Model<B>,
        tokenizer: &Tokenizer,
        ends: &[u32],
        next: Next,
        send: Send,
        mut on_text: Option<OnText>,
    ) -> Result<()> {
        let mut waiting: Option<Prompt> = None;
        let mut active: Vec<Option<Active>> = Vec::new();
        let (mut rows, mut draws, mut order) = (Vec::new(), Vec::new(), Vec::new());
        let mut drawn = vec![Drawn::default(); self.options.batch];
        loop {
            if !self.admit(model, tokenizer, &mut active, &mut waiting, next, send) {
                return Ok(());
            }
            rows.clear();
            draws.clear();
            order.clear();
            for (slot, sequence) in active.iter().enumerate() {
                if let Some(sequence) = sequence {
                    rows.push(sequence.row(slot));
                    draws.push(sequence.draw());
                    order.push(slot);
                }
            }
            if rows.is_empty() {
                return Ok(());
            }
            let decoder = self.decoder.as_mut().expect("planned when its first sequence was admitted");
            model.decode(decoder, &rows, &draws, &mut drawn[..rows.len()])?;
            for (&slot, drawn) in order.iter().zip(&drawn) {
                let place = &mut active[slot];
                let sequence = place.as_mut().expect("it was decoded");
                let on_text: Option<OnText> = match &mut on_text {
                    Some(on_text) => Some(&mut **on_text),
                    None => None,
                };
                if let Some(end) = sequence.push(*drawn, tokenizer, ends, on_text)?
                    && let Some(sequence) = place.take()
                    && !send(sequence.finish(end, tokenizer)?)
                {
                    return Ok(());
                }
            }
        }
    }

    /// Fills free slots with samples; prompts that are new run through the model
    /// together. False if `send` wants no more.
    fn admit(
        &mut self,
        model: &Model<B>,
        tokenizer: &Tokenizer,
        active: &mut Vec<Option<Active>>,
        waiting: &mut Option<Prompt>,
        next: Next,
        send: Send,
    ) -> bool {
        let mut prefill = Vec::new();
        // (from, to, tokens): prompts to copy once they are computed.
        let mut copies = Vec::new();
        loop {
            let prompt = match waiting {
                Some(prompt) => prompt,
                None => match next() {
                    None => break,
                    Some(request) => match prepare(model, tokenizer, request) {
                        Ok(prompt) => waiting.insert(prompt),
                        Err(failed) => {
                            if !failed.into_iter().all(&mut *send) {
                                return false;
                            }
                            continue;
                        }
                    },
                },
            };
            if prompt.samples.is_empty() {
                *waiting = None;
                continue;
            }
            if !self.plan(model, prompt, active) {
                break;
            }
            let shared = prompt.tokens.len() - 1;
            let mut source = active
                .iter()
                .position(|sequence| matches!(sequence, Some(s) if Arc::ptr_eq(&s.prompt, &prompt.tokens)));
            while let Some(free) = active.iter().position(Option::is_none) {
                let Some((index, seed)) = prompt.samples.pop_front() else { break };
                match source {
                    Some(from) => copies.push((from as u32, free as u32, shared)),
                    None => {
                        prefill.extend(prompt.tokens[..shared].iter().enumerate().map(|(position, &token)| Row {
                            token,
                            slot: free as u32,
                            position: position as u32,
                        }));
                        source = Some(free);
                    }
                }
                active[free] = Some(Active::new(prompt, index, seed));
            }
            if !prompt.samples.is_empty() {
                break;
            }
            *waiting = None;
        }
        if let Some(decoder) = &mut self.decoder {
            model.prefill(decoder, &prefill);
            for (from, to, len) in copies {
                decoder.copy(from, to, len);
            }
        }
        true
    }

    /// Makes the cache large enough for a prompt; false if that has to wait for
    /// the sequences in it to end.
    fn plan(&mut self, model: &Model<B>, prompt: &Prompt, active: &mut Vec<Option<Active>>) -> bool {
        let need = prompt.tokens.len() + prompt.limit;
        if self.decoder.as_ref().is_none_or(|decoder| decoder.capacity() < need) {
            if active.iter().any(Option::is_some) {
                return false;
            }
            let capacity = need.next_multiple_of(CAPACITY_STEP);
            let room = self.options.cache_bytes / (capacity * Decoder::token_bytes(model));
            let slots = room.clamp(1, self.options.batch);
            let rows = self.options.prefill.max(slots);
            self.decoder = Some(Decoder::new(self.backend.clone(), model, slots, capacity, rows));
        }
        let slots = self.decoder.as_ref().map_or(0, Decoder::slots);
        active.resize_with(slots, || None);
        true
    }
}

/// Tokenizes a request's prompt, or says for each sample why that fails.
fn prepare<B: Backend>(
    model: &Model<B>,
    tokenizer: &Tokenizer,
    request: Request,
) -> std::result::Result<Prompt, Vec<Generated>> {
    let context = model.config().context;
    let vocab = model.config().vocab_size;
    let tokens = tokenizer.encode_chat(&request.messages).map_err(|e| e.to_string());
    let tokens = tokens.and_then(|tokens| match tokens.len() {
        0 => Err("the prompt has no tokens".to_owned()),
        n if n >= context => {
            Err(format!("the prompt has {n} tokens; the model's context of {context} leaves no room to answer"))
        }
        _ => match tokens.iter().find(|&&id| id as usize >= vocab) {
            Some(id) => Err(format!("prompt token {id} is outside the model's vocabulary of {vocab}")),
            None => Ok(tokens),
        },
    });
    let failed = |error: String| -> Vec<Generated> {
        let all = request.samples.iter();
        all.map(|&(sample_index, _)| Generated {
            label: None,
            prompt_id: request.prompt_id.clone(),
            sample_index,
            text: None,
            token_ids: None,
            logprobs: None,
            prompt_token_ids: None,
            finish_reason: FinishReason::Error,
            stop_reason: None,
            prompt_tokens: None,
            completion_tokens: None,
            error: Some(error.clone()),
        })
        .collect()
    };
    let tokens = tokens.map_err(failed)?;
    let limit = (request.sampling.max_tokens as usize).min(context - tokens.len());
    if limit == 0 {
        return Err(failed("max_tokens is 0".to_owned()));
    }
    let samples = request.samples.iter().copied().collect();
    Ok(Prompt { request: Arc::new(request), tokens: tokens.into(), limit, samples })
}

impl Active {
    fn new(prompt: &Prompt, index: u32, seed: u64) -> Self {
        Active {
            request: prompt.request.clone(),
            prompt: prompt.tokens.clone(),
            limit: prompt.limit,
            index,
            seed,
            ids: Vec::new(),
            logprobs: Vec::new(),
            text: Text::default(),
            shown: 0,
        }
    }

    /// The row whose output gives the next token.
    fn row(&self, slot: usize) -> Row {
        let last = self.ids.last().or(self.prompt.last()).expect("a prompt has tokens");
        Row { token: *last, slot: slot as u32, position: (self.prompt.len() + self.ids.len() - 1) as u32 }
    }

    fn draw(&self) -> Draw {
        let sampling = &self.request.sampling;
        Draw {
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            min_p: sampling.min_p,
            seed: self.seed,
            index: self.ids.len() as u64,
        }
    }

    /// Takes the next token in; says how the completion ends if it does.
    fn push(
        &mut self,
        drawn: Drawn,
        tokenizer: &Tokenizer,
        ends: &[u32],
        on_text: Option<OnText>,
    ) -> Result<Option<End>> {
        self.ids.push(drawn.token);
        self.logprobs.push(drawn.logprob);
        let sampling = &self.request.sampling;
        if ends.contains(&drawn.token) || sampling.stop_token_ids.contains(&drawn.token) {
            self.show_all(on_text);
            return Ok(Some(End { reason: FinishReason::Stop, stop: tokenizer.token(drawn.token), cut: None }));
        }
        let mut end = None;
        if !sampling.stop.is_empty() || on_text.is_some() {
            let before = self.text.as_str().len();
            self.text.push(tokenizer, &self.ids)?;
            end = self.text.stop(&sampling.stop, before).map(|(at, stop)| End {
                reason: FinishReason::Stop,
                stop: Some(stop.to_owned()),
                cut: Some(at),
            });
            if let Some(on_text) = on_text {
                let whole = self.text.as_str().len();
                let until = end.as_ref().and_then(|end| end.cut).unwrap_or(whole - self.text.held_back(&sampling.stop));
                if self.shown < until {
                    let go_on = on_text(&self.text.as_str()[self.shown..until]);
                    self.shown = until;
                    if !go_on && end.is_none() {
                        end = Some(End { reason: FinishReason::Stop, stop: None, cut: None });
                    }
                }
            }
        }
        if end.is_none() && self.ids.len() >= self.limit {
            end = Some(End { reason: FinishReason::Length, stop: None, cut: None });
        }
        Ok(end)
    }

    /// Hands over what was held back in case it began a stop string.
    fn show_all(&mut self, on_text: Option<OnText>) {
        if let Some(on_text) = on_text
            && self.shown < self.text.as_str().len()
        {
            on_text(&self.text.as_str()[self.shown..]);
        }
    }

    fn finish(self, end: End, tokenizer: &Tokenizer) -> Result<Generated> {
        let text = match end.cut {
            Some(at) => self.text.as_str()[..at].to_owned(),
            // A token that ends the turn is no text.
            None if end.stop.is_some() => tokenizer.decode(&self.ids[..self.ids.len() - 1])?,
            None => tokenizer.decode(&self.ids)?,
        };
        Ok(Generated {
            label: None,
            prompt_id: self.request.prompt_id.clone(),
            sample_index: self.index,
            text: Some(text),
            completion_tokens: Some(self.ids.len() as u32),
            token_ids: Some(self.ids),
            logprobs: Some(self.logprobs),
            prompt_tokens: Some(self.prompt.len() as u32),
            prompt_token_ids: Some(self.prompt.to_vec()),
            finish_reason: end.reason,
            stop_reason: end.stop,
            error: None,
        })
    }
}
