//! An operation on its way to the device: its launches, checked before they are issued.

use std::sync::Arc;

use super::buffer::Span;
use super::driver::{Arg, Driver, Element, Grid};
use super::matmul::{Out, Product};
use super::scratch::Scratch;
use super::signature::signature;
use crate::error::{Error, Result};

/// Most blocks of a grid's second and third dimension.
pub(super) const MOST_BLOCKS: usize = 65_535;

/// Rows and columns of a product that a block of the kernels computes (SIDE in product.cu).
const PRODUCT_SIDE: usize = 32;

/// The device and what its operations share, held for one operation. Each file of operations adds its own.
pub(super) struct Ops<'a> {
    pub driver: &'a Arc<dyn Driver>,
    pub scratch: &'a mut Scratch,
}

/// A size as the kernels take it.
pub(super) fn int(size: usize) -> Arg {
    Arg::Int(i32::try_from(size).expect("the sizes of a model are below 2^31"))
}

impl Ops<'_> {
    /// Begins with places in scratch memory for these many elements of these sizes.
    pub fn begin(&mut self, places: &[usize]) -> Result<()> {
        self.scratch.begin(self.driver, places)
    }

    /// Launches with one dimension of blocks.
    pub fn launch(&self, kernel: &'static str, blocks: usize, threads: u32, args: &[Arg]) -> Result<()> {
        self.launch_grid(kernel, [blocks, 1, 1], threads, 0, args)
    }

    /// Launches a kernel by name; a grid of no blocks is nothing to do.
    pub fn launch_grid(
        &self,
        kernel: &'static str,
        blocks: [usize; 3],
        threads: u32,
        shared: usize,
        args: &[Arg],
    ) -> Result<()> {
        if blocks.contains(&0) {
            return Ok(());
        }
        if blocks[0] > i32::MAX as usize || blocks[1].max(blocks[2]) > MOST_BLOCKS {
            return Err(Error::new(format!("{kernel} cannot be launched over {blocks:?} blocks"))
                .hint("the batch is too large: lower the tokens of a micro-batch"));
        }
        let signature = signature(kernel)?;
        signature.check(kernel, args)?;
        let grid = Grid { blocks: blocks.map(|n| n as u32), threads, shared: shared as u32 };
        // SAFETY: the arguments are those of the declaration, and every pointer was cut from a buffer that has
        // as many elements as the operation says it touches.
        unsafe { self.driver.launch(signature.file, kernel, grid, args) }
    }

    /// Issues a product over the first elements of a, b and c: cuBLASLt's, or a kernel's where that has none.
    pub fn multiply<C: Element>(
        &self,
        product: &Product,
        a: Span<half::bf16>,
        b: Span<half::bf16>,
        c: Span<C>,
    ) -> Result<()> {
        let Product { m, n, k, a_transposed, b_transposed, out, accumulate, .. } = *product;
        if m == 0 || n == 0 || k == 0 || self.try_multiply(product, a, b, c)? {
            return Ok(());
        }
        assert_eq!(product.parts, 1, "who cuts k asks whether there is an algorithm");
        let [left, right, result] = [a.read(m * k), b.read(k * n), c.write(m * n)];
        let kernel = if out == Out::F32 { "product_f32" } else { "product_act" };
        let flags = [a_transposed, b_transposed, accumulate].map(|flag| Arg::Int(i32::from(flag)));
        let args = [&[left, right, result, int(m), int(n), int(k)][..], &flags].concat();
        self.launch_grid(kernel, [n.div_ceil(PRODUCT_SIDE), m.div_ceil(PRODUCT_SIDE), 1], 256, 0, &args)
    }

    /// Issues cuBLASLt's product, if it has one: else `false`.
    pub fn try_multiply<C: Element>(
        &self,
        product: &Product,
        a: Span<half::bf16>,
        b: Span<half::bf16>,
        c: Span<C>,
    ) -> Result<bool> {
        let Product { m, n, k, out, parts, .. } = *product;
        assert_eq!(size_of::<C>(), if out == Out::F32 { 4 } else { 2 }, "{product:?} writes elements of this size");
        // Each panics where the buffer is shorter than the product.
        let _ = (a.read(m * k), b.read(k * n), c.write(parts * m * n));
        // SAFETY: the lengths were checked above; c is another buffer than a and b, since its owner lent it alone.
        unsafe { self.driver.multiply(product, a.address(), b.address(), c.address()) }
    }

    /// Sets the first `count` elements to 0.
    pub fn zero<T: Element>(&self, span: Span<T>, count: usize) -> Result<()> {
        let _ = span.write(count);
        if count == 0 {
            return Ok(());
        }
        // SAFETY: the length was checked above.
        unsafe { self.driver.zero(span.address(), count * size_of::<T>()) }
    }

    /// Copies from the host.
    pub fn write<T: Element>(&self, to: Span<T>, values: &[T]) -> Result<()> {
        let _ = to.write(values.len());
        if values.is_empty() {
            return Ok(());
        }
        // SAFETY: the length was checked above.
        unsafe { self.driver.write(to.address(), bytemuck::cast_slice(values)) }
    }

    /// Copies to the host, after everything issued before.
    pub fn read<T: Element>(&self, from: Span<T>, count: usize) -> Result<Vec<T>> {
        let _ = from.read(count);
        let mut values = vec![T::zeroed(); count];
        if count > 0 {
            // SAFETY: the length was checked above.
            unsafe { self.driver.read(from.address(), bytemuck::cast_slice_mut(&mut values))? };
        }
        Ok(values)
    }

    /// Rounds `count` f32 to activations.
    pub fn round(&self, to: Span<half::bf16>, from: Span<f32>, count: usize) -> Result<()> {
        let args = [to.write(count), from.read(count), Arg::U64(count as u64)];
        self.launch("publish", count.div_ceil(2048), 256, &args)
    }

    /// `out[i] += term[i]`.
    pub fn add(&self, out: Span<f32>, term: Span<f32>, len: usize) -> Result<()> {
        let args = [out.write(len), term.read(len), Arg::U64(len as u64)];
        self.launch("add", len.div_ceil(2048), 256, &args)
    }

    /// `out[j] += Σ_c partial[c, j]` in a fixed order; a row of `partial` has `stride` columns.
    pub fn add_columns(
        &self,
        out: Span<f32>,
        partial: Span<f32>,
        chunks: usize,
        width: usize,
        stride: usize,
    ) -> Result<()> {
        if chunks == 0 {
            return Ok(());
        }
        let reach = (chunks - 1) * stride + width;
        let args = [out.write(width), partial.read(reach), int(chunks), int(width), int(stride)];
        self.launch("add_columns", width.div_ceil(32), 1024, &args)
    }
}
