//! How a token is drawn, and what was.

/// How one token is drawn; see [`crate::engine::Sampling`] for the fields' meaning.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// 0 is greedy (the lowest id among equals).
    pub temperature: f32,
    /// The most likely tokens that may be drawn; 0 for all.
    pub top_k: u32,
    /// Least mass of the most likely tokens that may be drawn, 0 to 1; 1 for all.
    pub top_p: f32,
    /// Least probability that may be drawn, as a share of the most likely token's; 0 for all.
    pub min_p: f32,
    /// Seed of the completion. With `index` it is the counter of the random number, so nothing else can
    /// change the draw.
    pub seed: u64,
    /// Index of the token in the completion, from 0.
    pub index: u64,
}

/// A drawn token.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Drawn {
    /// Its id: a row of the head's matrix.
    pub token: u32,
    /// Log-probability under these logits, at temperature 1 with nothing cut off: the trainer's.
    pub logprob: f32,
}
