//! The gradient's norm, AdamW, and Muon with its products on the tensor cores.

use half::bf16;

use super::buffer::{Buffer, Span};
use super::driver::{Arg, Kind};
use super::matmul::{Out, Product};
use super::ops::{Ops, int};
use crate::backend::{AdamW, Muon};
use crate::error::Result;

/// Elements that a block sums (SQUARE_CHUNK in reduce.cu).
const SQUARE_CHUNK: usize = 1 << 14;
/// Elements that a block of the elementwise kernels takes.
const EACH: usize = 1024;
/// Coefficients of the quintic Newton–Schulz iteration (Jordan 2024).
const QUINTIC: [f32; 3] = [3.4445, -4.7750, 2.0315];

/// Both moments of AdamW.
type Moments<'a> = (&'a mut Buffer<f32>, &'a mut Buffer<f32>);

/// Scratch memory of [`Ops::muon`], in bytes.
pub(super) fn muon_scratch_bytes((rows, cols): (usize, usize)) -> usize {
    let (len, side) = (rows * cols, rows.min(cols));
    10 * len + 10 * side * side + 4 * len.div_ceil(SQUARE_CHUNK)
}

impl Ops<'_> {
    /// Σ x² of several buffers; waits for them once.
    pub fn square_sums(&mut self, buffers: &[&Buffer<f32>]) -> Result<Vec<f64>> {
        let count = buffers.len();
        let mut starts = vec![0u32];
        for buffer in buffers {
            starts.push(starts[starts.len() - 1] + buffer.len().div_ceil(SQUARE_CHUNK) as u32);
        }
        let chunks = starts[count] as usize;
        self.begin(&[8 * count, 4 * chunks])?;
        let (totals, partial) = (self.scratch.take::<f64>(count), self.scratch.take::<f32>(chunks));
        for (buffer, &start) in buffers.iter().zip(&starts) {
            self.square_sum(buffer.part(0), buffer.len(), partial.from(start as usize))?;
        }
        let starts = self.scratch.starts.load(self.driver, &starts)?;
        let args = [totals.write(count), partial.read(chunks), starts.read(count + 1), int(chunks)];
        self.launch("square_sum_total", count, 256, &args)?;
        self.read(totals, count)
    }

    /// Σ x² of each chunk of `len` elements.
    fn square_sum(&self, x: Span<f32>, len: usize, partial: Span<f32>) -> Result<()> {
        let chunks = len.div_ceil(SQUARE_CHUNK);
        self.launch("square_sum", chunks, 256, &[partial.write(chunks), x.read(len), Arg::U64(len as u64)])
    }

    /// Updates `len` elements from `at` on, with the constants that the CPU computes.
    pub fn adamw(
        &self,
        value: &mut Buffer<f32>,
        grad: &Buffer<f32>,
        moments: Moments,
        (at, len): (usize, usize),
        rule: &AdamW,
    ) -> Result<()> {
        let corrections = [rule.beta1, rule.beta2].map(|b| 1.0 - f64::from(b).powf(rule.step as f64));
        let args = [
            value.part_mut(at).write(len),
            grad.part(at).read(len),
            moments.0.part_mut(at).write(len),
            moments.1.part_mut(at).write(len),
            Arg::U64(len as u64),
            Arg::Float(rule.beta1),
            Arg::Float(rule.beta2),
            Arg::Float(1.0 - rule.lr * rule.weight_decay),
            Arg::Float(rule.grad_scale),
            Arg::Float((f64::from(rule.lr) / corrections[0]) as f32),
            Arg::Float((1.0 / corrections[1].sqrt()) as f32),
            Arg::Float(rule.eps),
        ];
        self.launch("adamw", len.div_ceil(EACH), 256, &args)
    }

    /// Momentum, orthogonalised by Newton–Schulz in bf16 with f32 sums. Where the matrix is tall the iteration
    /// works on its columns (x ← a x + x p, p of xᵀ x), which is the CPU's on the transpose.
    pub fn muon(
        &mut self,
        value: &mut Buffer<f32>,
        grad: &Buffer<f32>,
        momentum: &mut Buffer<f32>,
        at: usize,
        shape: (usize, usize),
        rule: &Muon,
    ) -> Result<()> {
        let (rows, cols) = shape;
        let (len, side) = (rows * cols, rows.min(cols));
        let chunks = len.div_ceil(SQUARE_CHUNK);
        let square = side * side;
        self.begin(&[4 * len, 4 * len, 2 * len, 4 * square, 4 * square, 2 * square, 4 * chunks, 8])?;
        let [x, next] = [0; 2].map(|_| self.scratch.take::<f32>(len));
        let rounded = self.scratch.take::<bf16>(len);
        let [gram, poly] = [0; 2].map(|_| self.scratch.take::<f32>(square));
        let small = self.scratch.take::<bf16>(square);
        let (partial, squares) = (self.scratch.take::<f32>(chunks), self.scratch.take::<f64>(1));
        let size = Arg::U64(len as u64);
        let args = [
            x.write(len),
            momentum.part_mut(at).write(len),
            grad.part(at).read(len),
            size,
            Arg::Float(rule.momentum),
            Arg::Float(rule.grad_scale),
            Arg::Int(i32::from(rule.nesterov)),
        ];
        self.launch("muon_momentum", len.div_ceil(EACH), 256, &args)?;
        self.square_sum(x, len, partial)?;
        let args = [squares.write(1), partial.read(chunks), Arg::null(Kind::U32), int(chunks)];
        self.launch("square_sum_total", 1, 256, &args)?;
        self.launch("muon_scale", len.div_ceil(EACH), 256, &[x.write(len), squares.read(1), size])?;
        let [a, b, c] = QUINTIC;
        for _ in 0..rule.iterations {
            self.round(rounded, x, len)?;
            self.multiply(&gram_product(shape), rounded, rounded, gram)?;
            self.round(small, gram, square)?;
            let squared = Product { m: side, n: side, k: side, ..plain(Out::F32) };
            self.multiply(&squared, small, small, poly)?;
            let args = [poly.write(square), gram.read(square), Arg::U64(square as u64), Arg::Float(b), Arg::Float(c)];
            self.launch("muon_polynomial", square.div_ceil(EACH), 256, &args)?;
            self.round(small, poly, square)?;
            let product = Product { m: rows, n: cols, k: side, ..plain(Out::F32) };
            match rows <= cols {
                true => self.multiply(&product, small, rounded, next)?,
                false => self.multiply(&product, rounded, small, next)?,
            }
            let args = [x.write(len), next.read(len), size, Arg::Float(a), Arg::Float(1.0)];
            self.launch("muon_update", len.div_ceil(EACH), 256, &args)?;
        }
        let step = -rule.lr * (rows as f32 / cols as f32).max(1.0).sqrt();
        let decay = 1.0 - rule.lr * rule.weight_decay;
        let args = [value.part_mut(at).write(len), x.read(len), size, Arg::Float(decay), Arg::Float(step)];
        self.launch("muon_update", len.div_ceil(EACH), 256, &args)
    }
}

/// A product of matrices as they are stored.
fn plain(out: Out) -> Product {
    Product { m: 0, n: 0, k: 0, a_transposed: false, b_transposed: false, out, accumulate: false, parts: 1 }
}

/// x xᵀ, or xᵀ x where that is smaller.
fn gram_product((rows, cols): (usize, usize)) -> Product {
    match rows <= cols {
        true => Product { m: rows, n: rows, k: cols, b_transposed: true, ..plain(Out::F32) },
        false => Product { m: cols, n: cols, k: rows, a_transposed: true, ..plain(Out::F32) },
    }
}
