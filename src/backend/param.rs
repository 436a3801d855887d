//! Parameters, their low-rank adapters and their copies on several devices.

use super::Backend;

/// A parameter: its f32 master and the form the kernels read.
pub struct Param<B: Backend> {
    /// `[rows, cols]`, row-major: a linear layer's `[out, in]`; a vector has one row.
    pub value: B::F32,
    /// What [`Backend::publish`] made of `value`.
    pub ready: B::Ready,
    /// 1 for a vector.
    pub rows: usize,
    /// Values in a row: what a linear layer takes in.
    pub cols: usize,
}

/// A change of low rank to a matrix (Hu et al. 2021): scale · b a.
pub struct Adapter<B: Backend> {
    /// `[rank, in]`
    pub a: B::F32,
    /// `[out, rank]`
    pub b: B::F32,
    /// Rows of `a` and columns of `b`.
    pub rank: usize,
    /// The matrix's, `(out, in)`.
    pub shape: (usize, usize),
    /// α / rank.
    pub scale: f32,
}

/// One buffer that several devices have, each its own: a gradient, a weight.
pub struct Replicated<'a, B: Backend> {
    /// In the order of the devices: the backend's own, then its peers'. All of one length.
    pub copies: Vec<&'a mut B::F32>,
    /// The device whose copy is the one that counts.
    pub owner: usize,
}
