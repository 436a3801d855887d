//! The models and the sizes of what is done with them.

use gristmill::backend::Heads;
use gristmill::model::{Batch, Config};
use gristmill::{Error, Result};
use serde_json::json;

/// A decoder in Qwen2's layout: biases on query, key and value, a tied head.
#[derive(Clone, Debug)]
pub struct Shape {
    pub name: String,
    pub hidden: usize,
    pub ff: usize,
    pub layers: usize,
    pub heads: Heads,
    pub vocab: usize,
}

impl Shape {
    /// Qwen2.5's published shapes.
    pub fn named(size: &str) -> Result<Self> {
        let (hidden, ff, layers, query, kv, dim) = match size {
            "0.5B" => (896, 4864, 24, 14, 2, 64),
            "1.5B" => (1536, 8960, 28, 12, 2, 128),
            "3B" => (2048, 11_008, 36, 16, 2, 128),
            _ => return Err(Error::usage(format!("no shape `{size}`")).hint("0.5B, 1.5B or 3B")),
        };
        Ok(Shape { name: size.to_owned(), hidden, ff, layers, heads: Heads { query, kv, dim }, vocab: 151_936 })
    }

    /// No token ends a turn: what is sampled has the length that was asked for.
    pub fn config(&self, context: usize) -> Result<Config> {
        let fresh = Config::fresh(self.vocab, self.hidden, self.ff, self.layers, self.heads, context, &[])?;
        let mut raw = fresh.raw().clone();
        raw.insert("architectures".to_owned(), json!(["Qwen2ForCausalLM"]));
        Config::from_json(raw)
    }

    /// Rows and columns of a layer's matrices, by name.
    pub fn matrices(&self) -> [(&'static str, usize, usize); 4] {
        let Shape { hidden, ff, heads, .. } = *self;
        [
            ("qkv", heads.qkv_width(), hidden),
            ("out", hidden, heads.out_width()),
            ("gate and up", 2 * ff, hidden),
            ("down", hidden, ff),
        ]
    }
}

/// How much of everything.
#[derive(Clone, Debug)]
pub struct Scale {
    /// Runs that are timed, and the least seconds of one.
    pub runs: usize,
    pub run_seconds: f64,
    /// Bytes of a copy: many times the L2 cache.
    pub copied: usize,
    /// Bytes that the sets of buffers of a memory-bound kernel have together: several times the L2 cache.
    pub rotated: usize,
    /// Most tokens of a sequence that models are made for.
    pub context: usize,
    /// Tokens of a micro-batch, and of a packed sequence of it.
    pub rows: usize,
    pub length: usize,
    /// Optimizer steps of a run of training.
    pub steps: usize,
    /// Tokens of a micro-batch when scoring.
    pub scored: usize,
    /// Rows and columns of a tile of logits.
    pub tile: (usize, usize),
    /// Tokens of a sequence when attention is by itself.
    pub attended: usize,
    /// Side of the square product that says what the card multiplies at most.
    pub square: usize,
    /// Long prompts that go into the cache together, and tokens of each.
    pub prompts: (usize, usize),
    pub decode: Decoding,
    pub grpo: Grpo,
}

/// Batched decoding.
#[derive(Clone, Copy, Debug)]
pub struct Decoding {
    pub sequences: usize,
    pub prompt: usize,
    pub tokens: usize,
}

/// A step of GRPO.
#[derive(Clone, Copy, Debug)]
pub struct Grpo {
    pub prompts: usize,
    pub group: usize,
    pub prompt: usize,
    pub tokens: usize,
    /// Steps after the first.
    pub steps: u64,
}

impl Scale {
    /// What the goals are about.
    #[allow(dead_code, reason = "the tests have a scale of their own")]
    pub fn full() -> Self {
        Scale {
            runs: 5,
            run_seconds: 0.04,
            copied: 1 << 30,
            rotated: 1 << 30,
            context: 4096,
            rows: 16_384,
            length: 1024,
            steps: 10,
            scored: 4096,
            tile: (4096, 8192),
            attended: 4096,
            square: 8192,
            prompts: (4, 4000),
            decode: Decoding { sequences: 256, prompt: 64, tokens: 192 },
            grpo: Grpo { prompts: 64, group: 16, prompt: 64, tokens: 512, steps: 2 },
        }
    }
}

/// Tokens as if at random.
pub fn tokens(count: usize, vocab: usize) -> Vec<u32> {
    (0..count as u64).map(|i| (i * 2_654_435_761 % vocab as u64) as u32).collect()
}

/// Packed sequences of `length` tokens each, all scored: `rows` of them together.
pub fn packed(rows: usize, length: usize, vocab: usize) -> Batch {
    let mut batch = Batch::new();
    tokens(rows + rows / length, vocab).chunks(length + 1).for_each(|sequence| batch.push(sequence, |_| true));
    batch
}
