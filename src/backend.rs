//! Backends: device buffers and the fixed list of fused operations the decoder is made of.
//!
//! The transformer in [`crate::model`] is written once over [`Backend`]; a backend
//! is a set of buffers and one function for each operation, forward and backward.
//! [`Cpu`] is the reference. Whatever a backend does inside, it keeps three promises:
//!
//! - **Same bits.** An operation's result does not depend on the number of
//!   threads, and on the reference a row's result does not depend on which rows ride
//!   in the same batch. So a sampled token's logprob equals the one the trainer
//!   computes: there to the bit, on a GPU to the rounding of its activations.
//! - **No T × T matrix, no N × V matrix.** Attention and head work in tiles. Where a
//!   vocabulary is one tile and its logits are few, they may be kept ([`Backend::kept_logits`]).
//! - **No allocation per operation** once the buffers are planned.
//!
//! Operations are asynchronous where the device is. None returns a `Result`: an
//! operation that fails leaves the backend failed, later ones do nothing, and
//! [`Backend::finish`] reports the first failure.
//!
//! Shapes are row-major; `rows` is the number of packed tokens. Buffers may be
//! longer than what an operation touches.

pub mod cpu;
pub mod cuda;
mod device;
mod draw;
mod notice;
mod param;
mod philox;
mod shapes;
mod update;

use std::ops::Range;

pub use cpu::Cpu;
pub use cuda::Cuda;
pub use device::{Device, Opened};
pub use draw::{Draw, Drawn};
pub use param::{Adapter, Param, Replicated};
pub use philox::uniform;
pub use shapes::{Heads, KV_PAGE, PageCopy, Paged, Run, STEP_ROWS, StepShape};
pub use update::{AdamW, Muon};

use crate::error::Result;

/// Device buffers and the operations on them.
pub trait Backend: Clone + Send + Sync + Sized + 'static {
    /// f32 values: masters, gradients, moments, statistics, logits.
    type F32: Send + Sync;
    /// Activations in the compute type (f32 on the CPU, bf16 on CUDA).
    type Act: Send + Sync;
    /// Token ids, positions, offsets.
    type U32: Send + Sync;
    /// A parameter as the kernels read it (packed panels on the CPU, bf16 on CUDA).
    type Ready: Send + Sync;
    /// Keys and values of the tokens seen so far, by layer and page.
    type KvCache: Send + Sync;
    /// Recorded work by key, for [`Backend::replay`].
    type Recordings: Default + Send + Sync;

    /// Bytes of an activation.
    const ACT_BYTES: usize;

    /// Whether work that is the same at every step is recorded and replayed: then it is worth rounding steps up to
    /// few sizes.
    const REPLAYS: bool = false;

    /// Whether memory is better taken before the first step than when it is first needed.
    const RESERVES: bool;

    /// Bytes of [`Backend::ready`].
    fn ready_bytes(rows: usize, cols: usize, matrix: bool) -> usize;

    /// Bytes that the operations of a training step use within themselves.
    fn scratch_bytes(shape: &StepShape) -> usize;

    /// Tokens of a micro-batch beyond which training is slower, for a model with this many weights and bytes of
    /// activations a token: where activations no longer stay in the caches. It depends on nothing else, so that the
    /// same micro-batches come out on every machine.
    fn cached_rows(_weights: usize, _row_bytes: usize) -> usize {
        usize::MAX
    }

    /// Whether the operations cover models of these heads and this vocabulary.
    ///
    /// # Errors
    /// Where they do not, with what they cover.
    fn covers(heads: Heads, vocab: usize) -> Result<()>;

    /// `cpu` or `cuda`.
    fn name(&self) -> &'static str;

    /// Runs `work` where this backend's operations are cheapest to issue (inside its thread pool).
    fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R;

    /// Backends for independent decoding of a model with this many weights: one
    /// where the device is best kept busy with one large batch, several where
    /// small steps are cheaper on a core each.
    fn workers(&self, weights: usize) -> Vec<Self>;

    /// Waits for everything issued, here and on the [`Backend::peers`].
    ///
    /// # Errors
    /// The first failure since the backend was made.
    fn finish(&self) -> Result<()>;

    /// Waits for everything issued on this device and not for its peers: what a pass over one copy of a model ends with,
    /// while other threads issue the others'.
    ///
    /// # Errors
    /// The first failure of this device, or of what the group has done together.
    fn finish_here(&self) -> Result<()> {
        self.finish()
    }

    /// Issues `work`, whose operations and buffers are the same at every call with this key: a device that can records
    /// them and replays what it recorded. `work` issues operations and nothing else: it reads no results, hands over
    /// no host values that change, takes no memory; it may be called twice.
    fn replay(&self, _recordings: &mut Self::Recordings, _key: usize, work: &mut dyn FnMut()) {
        work();
    }

    /// The other devices that hold a copy of every model that is made on this one, for data parallelism. They have no
    /// peers of their own.
    fn peers(&self) -> Vec<Self> {
        Vec::new()
    }
    /// Adds up each buffer over the devices, in their order, into the part of its owner. The contents of the other
    /// parts are undefined afterwards. Only for backends with peers.
    fn reduce(&self, parts: &mut [Replicated<'_, Self>]);
    /// Of each buffer, all become the owner's. Only for backends with peers.
    fn broadcast(&self, parts: &mut [Replicated<'_, Self>]);

    /// Bytes of memory that nothing uses, where the device tells and more would not be found.
    fn free_bytes(&self) -> Option<u64> {
        None
    }

    // --- buffers, zeroed ---

    /// `len` values, all 0.
    fn f32(&self, len: usize) -> Self::F32;
    /// A buffer that operations use and that does not take the device's memory, where the device has its own.
    fn f32_on_host(&self, len: usize) -> Self::F32 {
        self.f32(len)
    }
    /// `len` activations, all 0.
    fn act(&self, len: usize) -> Self::Act;
    /// `len` integers, all 0.
    fn u32(&self, len: usize) -> Self::U32;
    /// Copies `source` to the buffer from element `at`.
    fn put_f32(&self, buffer: &mut Self::F32, at: usize, source: &[f32]);
    /// Copies `source` to the buffer's first elements; the others stay.
    fn put_u32(&self, buffer: &mut Self::U32, source: &[u32]);
    /// Copies elements `range` to the host.
    fn get_f32(&self, buffer: &Self::F32, range: Range<usize>) -> Vec<f32>;
    /// Zeroes the whole buffer.
    fn zero_f32(&self, buffer: &mut Self::F32);
    /// Zeroes the first `len` elements.
    fn zero_act(&self, buffer: &mut Self::Act, len: usize);

    // --- parameters ---

    /// Storage for what [`Backend::publish`] writes. `matrix` is false for what
    /// no linear layer reads (norms, biases, an untied embedding).
    fn ready(&self, rows: usize, cols: usize, matrix: bool) -> Self::Ready;
    /// Brings `param.ready` up to date with `param.value`.
    fn publish(&self, param: &mut Param<Self>);

    // --- embedding ---

    /// `out[t] = table[tokens[t]]`.
    fn embed(&self, table: &Param<Self>, tokens: &Self::U32, rows: usize, out: &mut Self::Act);
    /// `grad[tokens[t]] += dout[t]`, in the order of t.
    fn embed_backward(&self, dout: &Self::Act, tokens: &Self::U32, rows: usize, width: usize, grad: &mut Self::F32);

    // --- RMSNorm (Zhang & Sennrich 2019): y = x · rstd · w, rstd = 1/√(mean x² + ε) ---

    /// Normalises `rows` rows of x as wide as `weight`; `rstd [rows]` is kept for the backward pass.
    fn rms_norm(
        &self,
        x: &Self::Act,
        weight: &Param<Self>,
        rows: usize,
        eps: f32,
        y: &mut Self::Act,
        rstd: &mut Self::F32,
    );
    /// `sum = x + delta`, `y = rms_norm(sum)`: the residual stream and the norm after it in one pass.
    #[allow(clippy::too_many_arguments)]
    fn add_rms_norm(
        &self,
        x: &Self::Act,
        delta: &Self::Act,
        weight: &Param<Self>,
        rows: usize,
        eps: f32,
        sum: &mut Self::Act,
        y: &mut Self::Act,
        rstd: &mut Self::F32,
    );
    /// [`Backend::linear`] of `input` into `delta`, then [`Backend::add_rms_norm`] with it. `delta` is scratch: its
    /// contents are undefined afterwards.
    #[allow(clippy::too_many_arguments)]
    fn linear_add_rms_norm(
        &self,
        input: &Self::Act,
        (w, bias): (&Param<Self>, Option<&Param<Self>>),
        delta: &mut Self::Act,
        x: &Self::Act,
        weight: &Param<Self>,
        rows: usize,
        eps: f32,
        sum: &mut Self::Act,
        y: &mut Self::Act,
        rstd: &mut Self::F32,
    ) {
        self.linear(input, w, bias, rows, delta);
        self.add_rms_norm(x, delta, weight, rows, eps, sum, y, rstd);
    }
    /// `dx += ∂/∂x`, `dweight += ∂/∂w`; `dx` holds the residual stream's gradient.
    #[allow(clippy::too_many_arguments)]
    fn rms_norm_backward(
        &self,
        dy: &Self::Act,
        x: &Self::Act,
        weight: &Param<Self>,
        rstd: &Self::F32,
        rows: usize,
        dx: &mut Self::Act,
        dweight: &mut Self::F32,
    );

    // --- linear: y = x wᵀ + b, w [out, in] ---

    /// `y = x wᵀ + bias`: `x [rows, in]`, `y [rows, out]`.
    fn linear(&self, x: &Self::Act, w: &Param<Self>, bias: Option<&Param<Self>>, rows: usize, y: &mut Self::Act);
    /// `dx = dy w`.
    fn linear_dx(&self, dy: &Self::Act, w: &Param<Self>, rows: usize, dx: &mut Self::Act);
    /// `dw += dyᵀ x`, `dbias += Σ dy`.
    fn linear_dw(
        &self,
        dy: &Self::Act,
        x: &Self::Act,
        w: &Param<Self>,
        rows: usize,
        dw: &mut Self::F32,
        dbias: Option<&mut Self::F32>,
    );

    // --- query/key norm of Qwen3: RMSNorm of every query and key head, in place ---

    /// Keeps the unnormalised rows in `before` and `rstd [rows, query + kv]`.
    #[allow(clippy::too_many_arguments)]
    fn qk_norm(
        &self,
        qkv: &mut Self::Act,
        before: &mut Self::Act,
        weights: (&Param<Self>, &Param<Self>),
        heads: Heads,
        rows: usize,
        eps: f32,
        rstd: &mut Self::F32,
    );
    /// Turns `dqkv` into the gradient of the unnormalised rows, in place.
    #[allow(clippy::too_many_arguments)]
    fn qk_norm_backward(
        &self,
        dqkv: &mut Self::Act,
        before: &Self::Act,
        weights: (&Param<Self>, &Param<Self>),
        rstd: &Self::F32,
        heads: Heads,
        rows: usize,
        dweights: (&mut Self::F32, &mut Self::F32),
    );

    // --- rotary position embedding (Su et al. 2021), halves rotated as in Hugging Face's Llama ---

    /// Rotates query and key heads in place by the angles of `table`
    /// (`[positions, dim]`: dim/2 cosines, then dim/2 sines); `inverse` is the backward pass.
    #[allow(clippy::too_many_arguments)]
    fn rope(
        &self,
        qkv: &mut Self::Act,
        positions: &Self::U32,
        table: &Self::F32,
        heads: Heads,
        rows: usize,
        inverse: bool,
    );

    // --- causal attention over packed sequences (Dao 2023, tiles with online softmax) ---

    /// Sequence s is rows `cu_seqlens[s]..cu_seqlens[s + 1]`; scores are scaled by 1/√dim.
    /// `lse [rows, query]` is kept for the backward pass.
    fn attention(&self, qkv: &Self::Act, cu_seqlens: &[u32], heads: Heads, out: &mut Self::Act, lse: &mut Self::F32);
    /// `dqkv`, overwritten, from the output's gradient `dout [rows, query · dim]` and what [`Backend::attention`] kept.
    #[allow(clippy::too_many_arguments)]
    fn attention_backward(
        &self,
        dout: &Self::Act,
        qkv: &Self::Act,
        out: &Self::Act,
        lse: &Self::F32,
        cu_seqlens: &[u32],
        heads: Heads,
        dqkv: &mut Self::Act,
    );

    // --- SwiGLU (Shazeer 2020): out = silu(gate) · up, rows of gate then up ---

    /// `gate_up [rows, 2 · width]` to `out [rows, width]`.
    fn swiglu(&self, gate_up: &Self::Act, width: usize, rows: usize, out: &mut Self::Act);
    /// `dgate_up`, overwritten, from `dout [rows, width]` and the forward pass's `gate_up`.
    fn swiglu_backward(
        &self,
        dout: &Self::Act,
        gate_up: &Self::Act,
        width: usize,
        rows: usize,
        dgate_up: &mut Self::Act,
    );

    // --- head ---

    /// `out[i] = x[index[i]]`.
    fn gather(&self, x: &Self::Act, index: &[u32], width: usize, out: &mut Self::Act);
    /// `out = 0`, then `out[index[i]] = x[i]`; `rows` are out's.
    fn scatter(&self, x: &Self::Act, index: &[u32], width: usize, rows: usize, out: &mut Self::Act);

    /// How many logits of `rows` rows [`Backend::head`] should keep for the backward pass, which makes the others again
    /// with the same bits. `room` of them have memory that nothing else needs; a few may be kept beyond that.
    fn kept_logits(_rows: usize, _vocab: usize, _room: usize) -> usize {
        0
    }
    /// Log-probability of each target, entropy and log-sum-exp of each row's distribution. The backward pass of the
    /// same rows takes `kept`, which has room for [`Backend::kept_logits`], as this leaves it.
    #[allow(clippy::too_many_arguments)]
    fn head(
        &self,
        x: &Self::Act,
        w: &Param<Self>,
        targets: &[u32],
        logprob: &mut Self::F32,
        entropy: &mut Self::F32,
        lse: &mut Self::F32,
        kept: &mut Self::F32,
    );
    /// The backward pass of [`Backend::head`], seeded by one scalar per row:
    /// with g = ∂L/∂logprob and h = ∂L/∂entropy,
    /// `dlogit[j] = g (1[j = target] − p[j]) − h p[j] (log p[j] + entropy)`.
    /// `dx = dlogit w`, `dw += dlogitᵀ x` if it is asked for.
    #[allow(clippy::too_many_arguments)]
    fn head_backward(
        &self,
        x: &Self::Act,
        w: &Param<Self>,
        targets: &[u32],
        entropy: &Self::F32,
        lse: &Self::F32,
        kept: &mut Self::F32,
        grad_logprob: &[f32],
        grad_entropy: Option<&[f32]>,
        dx: &mut Self::Act,
        dw: Option<&mut Self::F32>,
    );
    /// Whole rows of logits, for sampling.
    fn logits(&self, x: &Self::Act, w: &Param<Self>, rows: usize, out: &mut Self::F32);
    /// Draws one token of each row of `logits [draws, vocab]`.
    fn sample(&self, logits: &Self::F32, vocab: usize, draws: &[Draw], out: &mut [Drawn]);

    // --- decoding ---

    /// A pool of `pages` pages in each layer. Who uses which is its user's to know.
    fn kv_cache(&self, layers: usize, heads: Heads, pages: usize) -> Self::KvCache;
    /// Writes the inputs of a decoding step: the first elements of the buffers of tokens, positions and slots, and the
    /// changed entries of the page table as (index, page). All at once, since every copy to a device has a fixed cost.
    fn put_rows(&self, rows: [(&mut Self::U32, &[u32]); 3], table: &mut Self::U32, pages: &[(u32, u32)]);
    /// Stores the keys and values of each row at its place.
    fn kv_append(&self, cache: &mut Self::KvCache, layer: usize, qkv: &Self::Act, at: &Paged<'_, Self>);
    /// [`Backend::rope`] and [`Backend::kv_append`] of the rows.
    fn rope_append(
        &self,
        qkv: &mut Self::Act,
        angles: &Self::F32,
        heads: Heads,
        cache: &mut Self::KvCache,
        layer: usize,
        at: &Paged<'_, Self>,
    ) {
        self.rope(qkv, at.positions, angles, heads, at.rows, false);
        self.kv_append(cache, layer, qkv, at);
    }
    /// [`Backend::linear`] and [`Backend::rope_append`] of the rows; the values in `qkv` may lack the bias afterwards.
    #[allow(clippy::too_many_arguments)]
    fn linear_rope_append(
        &self,
        x: &Self::Act,
        (w, bias): (&Param<Self>, Option<&Param<Self>>),
        qkv: &mut Self::Act,
        angles: &Self::F32,
        heads: Heads,
        cache: &mut Self::KvCache,
        layer: usize,
        at: &Paged<'_, Self>,
    ) {
        self.linear(x, w, bias, at.rows, qkv);
        self.rope_append(qkv, angles, heads, cache, layer, at);
    }
    /// Copies the beginnings of pages, one after the other, in every layer.
    fn kv_copy(&self, cache: &mut Self::KvCache, copies: &[PageCopy]);
    /// Attention of each row over positions `0..=positions[row]` of its sequence.
    fn attention_cached(
        &self,
        cache: &Self::KvCache,
        layer: usize,
        qkv: &Self::Act,
        at: &Paged<'_, Self>,
        out: &mut Self::Act,
    );
    /// [`Backend::attention_cached`] of rows that come in runs, which together are all of them, in order: for prompts. A
    /// row's bits depend neither on where its sequence was cut into runs nor on the other runs; on a GPU they are those of
    /// another rounding.
    fn attention_prefill(
        &self,
        cache: &Self::KvCache,
        layer: usize,
        qkv: &Self::Act,
        at: &Paged<'_, Self>,
        _runs: &[Run],
        out: &mut Self::Act,
    ) {
        self.attention_cached(cache, layer, qkv, at, out);
    }

    // --- adapters ---

    /// `value += sign · scale · b a`.
    fn adapter_merge(&self, value: &mut Self::F32, adapter: &Adapter<Self>, sign: f32);
    /// Of the matrix's gradient: `da += scale · bᵀ dw`, `db += scale · dw aᵀ`.
    fn adapter_backward(&self, dw: &Self::F32, adapter: &Adapter<Self>, da: &mut Self::F32, db: &mut Self::F32);

    // --- optimizer ---

    /// `sum += term`.
    fn add_f32(&self, sum: &mut Self::F32, term: &Self::F32);
    /// Σ x², added in an order that does not depend on the threads.
    fn square_sum(&self, x: &Self::F32) -> f64;
    /// [`Backend::square_sum`] of each buffer; a device that is waited for is waited for once.
    fn square_sums(&self, all: &[&Self::F32]) -> Vec<f64> {
        all.iter().map(|x| self.square_sum(x)).collect()
    }
    /// Updates elements `range` of `value` and both moments.
    fn adamw(
        &self,
        value: &mut Self::F32,
        grad: &Self::F32,
        moments: (&mut Self::F32, &mut Self::F32),
        range: Range<usize>,
        rule: &AdamW,
    );
    /// Updates the matrix `[shape.0, shape.1]` that starts at element `at` of `value`.
    fn muon(
        &self,
        value: &mut Self::F32,
        grad: &Self::F32,
        momentum: &mut Self::F32,
        at: usize,
        shape: (usize, usize),
        rule: &Muon,
    );
}
