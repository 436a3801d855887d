//! One worker: a KV cache, the sequences in it, and the loop that feeds them.
//!
//! Sequences take pages of the cache as they grow. A new one is let in where its prompt fits and every sequence can
//! grow into one more page. Where they grow out of the pool all the same, the one that began last gives its pages
//! up and waits; when it comes back its tokens are run through the model again, which gives them the bits they had.
//! So no step runs out of pages, and what is written does not depend on how many there are.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::text::Text;
use crate::backend::{Backend, Draw, Drawn, KV_PAGE};
use crate::engine::{Generated, Request, SampleSeed};
use crate::error::Result;
use crate::model::memory::{Decoding, token_bytes};
use crate::model::{Decoder, Model, Row, Tokenizer};
use crate::schema::FinishReason;

/// Capacities are rounded up to this, so that prompts of like length share a plan.
const CAPACITY_STEP: usize = 64;

/// Decodes with one backend; keeps its cache between calls.
pub struct Worker<B: Backend> {
    backend: B,
    decoding: Decoding,
    decoder: Option<Decoder<B>>,
    /// By slot.
    active: Vec<Option<Active>>,
    /// Sequences that had to give their pages up, by when they began.
    displaced: BTreeMap<u64, Active>,
    /// Sequences begun so far.
    begun: u64,
    /// How often a sequence had to give way.
    pub displacements: u64,
}

/// Rows that bring new sequences into the cache, in the order they are run.
#[derive(Default)]
struct Entrance {
    prompts: Vec<Row>,
    /// (from, to, tokens): prompts that are shared once they are there.
    shares: Vec<(u32, u32, usize)>,
    /// What displaced sequences had written.
    written: Vec<Row>,
    /// Pages that all of this takes.
    pages: usize,
}

/// A request whose prompt is tokenized, with the samples still to start.
struct Prompt {
    request: Arc<Request>,
    tokens: Arc<[u32]>,
    /// Most tokens a completion can have here.
    limit: usize,
    samples: VecDeque<SampleSeed>,
}

/// A completion being written.
struct Active {
    /// How many sequences began before it.
    number: u64,
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
    pub fn new(backend: B, decoding: Decoding) -> Self {
        Worker {
            backend,
            decoding,
            decoder: None,
            active: Vec::new(),
            displaced: BTreeMap::new(),
            begun: 0,
            displacements: 0,
        }
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
        self.reset();
        let mut waiting: Option<Prompt> = None;
        let (mut rows, mut draws, mut order) = (Vec::new(), Vec::new(), Vec::new());
        let mut drawn = vec![Drawn::default(); self.decoding.batch];
        loop {
            if !self.admit(model, tokenizer, &mut waiting, next, send) {
                return Ok(());
            }
            self.make_room();
            rows.clear();
            draws.clear();
            order.clear();
            for (slot, sequence) in self.active.iter().enumerate() {
                if let Some(sequence) = sequence {
                    rows.push(sequence.row(slot));
                    draws.push(sequence.draw(model.temperature()));
                    order.push(slot);
                }
            }
            if rows.is_empty() {
                return Ok(());
            }
            let decoder = self.decoder.as_mut().expect("planned when its first sequence was admitted");
            model.decode(decoder, &rows, &draws, &mut drawn[..rows.len()])?;
            for (&slot, drawn) in order.iter().zip(&drawn) {
                let place = &mut self.active[slot];
                let sequence = place.as_mut().expect("it was decoded");
                let on_text: Option<OnText> = match &mut on_text {
                    Some(on_text) => Some(&mut **on_text),
                    None => None,
                };
                if let Some(end) = sequence.push(*drawn, tokenizer, ends, on_text)?
                    && let Some(sequence) = place.take()
                {
                    decoder.release(slot as u32);
                    if !send(sequence.finish(end, tokenizer)?) {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Forgets what a run that was stopped left.
    fn reset(&mut self) {
        self.displaced.clear();
        self.active.iter_mut().for_each(|place| *place = None);
        if let Some(decoder) = &mut self.decoder {
            (0..decoder.slots() as u32).for_each(|slot| decoder.release(slot));
        }
    }

    /// Fills free slots, with sequences that had to give way first, then with new samples; what is new to the cache
    /// runs through the model together. False if `send` wants no more.
    fn admit(
        &mut self,
        model: &Model<B>,
        tokenizer: &Tokenizer,
        waiting: &mut Option<Prompt>,
        next: Next,
        send: Send,
    ) -> bool {
        let mut entrance = Entrance::default();
        while let Some((number, sequence)) = self.displaced.pop_first() {
            if let Some(sequence) = self.enter(sequence, &mut entrance) {
                self.displaced.insert(number, sequence);
                break;
            }
        }
        while self.displaced.is_empty() {
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
            let Some(&SampleSeed { index, seed }) = prompt.samples.front() else {
                *waiting = None;
                continue;
            };
            if !self.plan(model, prompt)
                || self.enter(Active::new(prompt, index, seed, self.begun), &mut entrance).is_some()
            {
                break;
            }
            prompt.samples.pop_front();
            self.begun += 1;
        }
        if let Some(decoder) = &mut self.decoder {
            model.prefill(decoder, &entrance.prompts);
            for (from, to, len) in entrance.shares {
                decoder.share(from, to, len);
            }
            model.recompute(decoder, &entrance.written);
        }
        true
    }

    /// Puts a sequence into a free slot, if there is one and the pages allow it; else gives it back.
    fn enter(&mut self, sequence: Active, entrance: &mut Entrance) -> Option<Active> {
        let Some(decoder) = &self.decoder else { return Some(sequence) };
        let Some(slot) = self.active.iter().position(Option::is_none) else { return Some(sequence) };
        let same =
            |other: &Option<Active>| other.as_ref().is_some_and(|other| Arc::ptr_eq(&other.prompt, &sequence.prompt));
        let source = self.active.iter().position(same);
        let (shared, cached) = (sequence.prompt.len() - 1, sequence.cached());
        // What lies in the prompt's last page belongs to the sequence alone once it writes there.
        let own = cached.div_ceil(KV_PAGE) - source.map_or(0, |_| shared / KV_PAGE);
        let pages = if source.is_some() && cached == shared { 0 } else { own };
        let others = self.active.iter().flatten().count();
        if entrance.pages + pages + others + 1 > decoder.free() && others > 0 {
            return Some(sequence);
        }
        entrance.pages += pages;
        let row =
            |position: usize| Row { token: sequence.token(position), slot: slot as u32, position: position as u32 };
        match source {
            Some(from) => entrance.shares.push((from as u32, slot as u32, shared)),
            None => entrance.prompts.extend((0..shared).map(row)),
        }
        entrance.written.extend((shared..cached).map(row));
        self.active[slot] = Some(sequence);
        None
    }

    /// Displaces the sequences that began last until the others can grow by a token.
    fn make_room(&mut self) {
        let Some(decoder) = &mut self.decoder else { return };
        loop {
            let needed = |(slot, sequence): (usize, &Option<Active>)| {
                let cached = sequence.as_ref()?.cached();
                Some(decoder.needed(slot as u32, cached..cached + 1))
            };
            if self.active.iter().enumerate().filter_map(needed).sum::<usize>() <= decoder.free() {
                return;
            }
            let began = |place: &Option<Active>| place.as_ref().map(|sequence| sequence.number);
            let last = (0..self.active.len()).max_by_key(|&slot| began(&self.active[slot]));
            let Some((slot, sequence)) = last.and_then(|slot| Some((slot, self.active[slot].take()?))) else { return };
            decoder.release(slot as u32);
            self.displaced.insert(sequence.number, sequence);
            self.displacements += 1;
        }
    }

    /// Makes the cache large enough for a prompt; false if that has to wait for
    /// the sequences in it to end.
    fn plan(&mut self, model: &Model<B>, prompt: &Prompt) -> bool {
        let capacity = (prompt.tokens.len() + prompt.limit).next_multiple_of(CAPACITY_STEP);
        let pages = capacity / KV_PAGE;
        match &mut self.decoder {
            Some(decoder) if decoder.pages() >= pages => decoder.widen(capacity),
            _ if self.active.iter().any(Option::is_some) => return false,
            decoder => {
                let slots = self.decoding.batch;
                let room = self.decoding.cache_bytes / (KV_PAGE * token_bytes::<B>(model.config()));
                let whole = model.config().context.next_multiple_of(CAPACITY_STEP) / KV_PAGE;
                let pages = room.min(slots * whole).max(pages);
                // The old one goes first: a device need not hold both.
                *decoder = None;
                let backend = self.backend.clone();
                *decoder = Some(Decoder::paged(backend, model, slots, capacity, self.decoding.prefill, pages));
                self.active.clear();
                self.active.resize_with(slots, || None);
            }
        }
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
        all.map(|sample| Generated::failed(request.prompt_id.clone(), sample.index, error.as_str())).collect()
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
    fn new(prompt: &Prompt, index: u32, seed: u64, number: u64) -> Self {
        Active {
            number,
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

    /// Tokens that are in the cache: all but the last.
    fn cached(&self) -> usize {
        self.prompt.len() + self.ids.len() - 1
    }

    fn token(&self, position: usize) -> u32 {
        position.checked_sub(self.prompt.len()).map_or_else(|| self.prompt[position], |i| self.ids[i])
    }

    /// The row whose output gives the next token.
    fn row(&self, slot: usize) -> Row {
        let position = self.cached();
        Row { token: self.token(position), slot: slot as u32, position: position as u32 }
    }

    /// How the next token is drawn from logits that are divided by `divided` already.
    fn draw(&self, divided: f32) -> Draw {
        let sampling = &self.request.sampling;
        Draw {
            temperature: sampling.temperature / divided,
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
