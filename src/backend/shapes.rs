//! How rows lie in buffers: heads, pages of the KV cache, runs of a step, the sizes of a step.

use super::Backend;

/// Query and key/value heads. A fused row holds `query` query heads, then `kv`
/// key heads, then `kv` value heads, of `dim` values each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads; a multiple of `kv`.
    pub query: usize,
    /// Key/value heads, each shared by as many query heads (GQA, Ainslie et al. 2023).
    pub kv: usize,
    /// Values of a head.
    pub dim: usize,
}

impl Heads {
    /// Width of a fused qkv row.
    pub fn qkv_width(&self) -> usize {
        (self.query + 2 * self.kv) * self.dim
    }

    /// Width of attention's output.
    pub fn out_width(&self) -> usize {
        self.query * self.dim
    }

    /// Query heads that share one key/value head.
    pub fn group(&self) -> usize {
        self.query / self.kv
    }
}

/// Tokens of a page of the KV cache.
pub const KV_PAGE: usize = 16;

/// Most rows of a decoding step whose bits do not depend on how many there are: a GPU that has few rows cuts long sums, and
/// up to here it does so by the weight's shape alone.
pub const STEP_ROWS: usize = 1024;

/// The first `len` tokens of page `from` belong into page `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageCopy {
    /// The page that is read.
    pub from: u32,
    /// The page that is written.
    pub to: u32,
    /// Tokens, at most [`KV_PAGE`].
    pub len: usize,
}

/// Where the rows of a decoding step are in the KV cache: row r is token `positions[r]` of the sequence in
/// `slots[r]`, whose tokens p · [`KV_PAGE`] … lie in page `table[slots[r] · width + p]`.
pub struct Paged<'a, B: Backend> {
    /// `[slots, width]`
    pub table: &'a B::U32,
    /// Pages of a slot.
    pub width: usize,
    /// `[rows]`
    pub slots: &'a B::U32,
    /// `[rows]`
    pub positions: &'a B::U32,
    /// Tokens of the step, one to a slot or several.
    pub rows: usize,
}

/// Rows of a step that are tokens of one sequence, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first row of the step.
    pub row: u32,
    /// At least 1.
    pub rows: u32,
    /// The first token's position; those before it are in the cache.
    pub position: u32,
}

/// Sizes of a training step, as far as an operation's own memory depends on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepShape {
    /// Packed tokens, all of them scored.
    pub rows: usize,
    /// Rows of the head.
    pub vocab: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the feed-forward layers.
    pub intermediate: usize,
    /// Attention's.
    pub heads: Heads,
    /// Most sequences and most rows of a decoding step, if it decodes.
    pub decoding: Option<(usize, usize)>,
    /// Shape of the largest matrix that Muon updates, if one is.
    pub muon: Option<(usize, usize)>,
    /// Shape of the largest matrix with an adapter, and the adapter's rank.
    pub adapter: Option<((usize, usize), usize)>,
}
