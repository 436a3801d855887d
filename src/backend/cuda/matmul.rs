//! Matrix products by cuBLASLt: bf16 in, f32 accumulated, f32 or bf16 out.
//!
//! An algorithm is asked for once and kept: the heuristic costs more than a small
//! product does, and asking again could answer differently. Batches come in every
//! length, so it is asked for the length's power of two, and serves all below that.
//! Where a row of the result belongs to a row of the batch, algorithms that split k
//! are left out: how they split depends on the length, and a sequence's company in a
//! decoding step is no function of the recipe. A stage that was killed goes on with
//! other sequences beside it, one that gave its pages up comes back in a step of
//! another length, and several GPUs take requests as they get to them. Where decoding
//! needs k cut for want of rows, it is cut by the weight's shape alone ([`Product::parts`]).
//! cuBLASLt is column-major; a row-major matrix is its own transpose there, so
//! C = A B is computed as Cᵀ = Bᵀ Aᵀ and nothing is moved. What it has no
//! algorithm for is `kernels/product.cu`'s.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::cublaslt::{result, sys};
use cudarc::driver::CudaStream;

use super::library::CUBLASLT;
use crate::error::{Context, Result};

/// cuBLASLt's word for "no algorithm takes this".
const UNSUPPORTED: sys::cublasStatus_t = sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED;

/// Scratch memory that algorithms may use, in bytes; Hopper's wants 32 MiB.
pub const WORKSPACE: usize = 32 << 20;

/// Element type of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Out {
    /// 2 bytes an element: the f32 sum, rounded.
    Bf16,
    /// 4 bytes an element: the sum as it was accumulated.
    F32,
}

/// `c [m, n] = op(a) op(b)`, or `+=`; a is stored `[m, k]`, or `[k, m]` where it is transposed, b likewise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Product {
    /// Rows of c.
    pub m: usize,
    /// Columns of c.
    pub n: usize,
    /// Length of the sums: columns of op(a), rows of op(b).
    pub k: usize,
    /// Whether a is stored `[k, m]`, as a batch is for a weight's gradient.
    pub a_transposed: bool,
    /// Whether b is stored `[n, k]`, as a weight `[out, in]` is for its forward pass.
    pub b_transposed: bool,
    /// Type of c; a and b are bf16.
    pub out: Out,
    /// Adds to c instead of overwriting it.
    pub accumulate: bool,
    /// k is cut into so many equal parts, each with a result of its own: c is `[parts, m, n]`. More than 1 only where
    /// a is not transposed, b is, and nothing is accumulated.
    pub parts: usize,
}

/// A column-major matrix as cuBLASLt wants it told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    rows: usize,
    cols: usize,
    /// Elements from one column to the next.
    ld: usize,
    transposed: bool,
}

impl Product {
    /// cuBLASLt's first operand (our b), its second (our a) and its result (our c); of the first part.
    fn layouts(&self) -> [Layout; 3] {
        let of = |rows: usize, cols: usize, transposed| match transposed {
            false => Layout { rows: cols, cols: rows, ld: cols, transposed },
            true => Layout { rows, cols, ld: rows, transposed },
        };
        let all =
            [of(self.k, self.n, self.b_transposed), of(self.m, self.k, self.a_transposed), of(self.m, self.n, false)];
        if self.parts == 1 {
            return all;
        }
        assert!(!self.a_transposed && self.b_transposed && !self.accumulate && self.k.is_multiple_of(self.parts));
        let [first, second, result] = all;
        let rows = self.k / self.parts;
        [Layout { rows, ..first }, Layout { rows, ..second }, result]
    }

    /// Elements from a part to the next, of each layout.
    fn strides(&self) -> [usize; 3] {
        [self.k / self.parts, self.k / self.parts, self.m * self.n]
    }
}

impl Product {
    /// Whether k runs over the rows of a batch (a weight's gradient); else m does.
    fn sums_rows(&self) -> bool {
        self.a_transposed
    }

    /// The product whose algorithm serves this one: the batch's length rounded up to a power of two.
    fn class(&self) -> Product {
        let round = |rows: usize| rows.max(16).next_power_of_two();
        match self.sums_rows() {
            true => Product { k: round(self.k), ..*self },
            false => Product { m: round(self.m), ..*self },
        }
    }
}

/// One of cuBLASLt's descriptions, destroyed with its owner.
struct Described {
    operation: sys::cublasLtMatmulDesc_t,
    layouts: [sys::cublasLtMatrixLayout_t; 3],
}

impl Described {
    fn new(product: &Product) -> Result<Self, result::CublasError> {
        use sys::cublasLtMatmulDescAttributes_t::{CUBLASLT_MATMUL_DESC_TRANSA, CUBLASLT_MATMUL_DESC_TRANSB};
        use sys::cudaDataType::{CUDA_R_16BF, CUDA_R_32F};
        let layouts = product.layouts();
        let kinds = [CUDA_R_16BF, CUDA_R_16BF, if product.out == Out::F32 { CUDA_R_32F } else { CUDA_R_16BF }];
        let operation = result::create_matmul_desc(sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, CUDA_R_32F)?;
        let mut described = Described { operation, layouts: [std::ptr::null_mut(); 3] };
        for (key, layout) in [CUBLASLT_MATMUL_DESC_TRANSA, CUBLASLT_MATMUL_DESC_TRANSB].into_iter().zip(layouts) {
            // CUBLAS_OP_N is 0, CUBLAS_OP_T 1.
            let value = i32::from(layout.transposed);
            // SAFETY: the description is live; the attribute is four bytes, copied by the call.
            unsafe { result::set_matmul_desc_attribute(operation, key, (&raw const value).cast(), 4)? };
        }
        for ((place, layout), kind) in described.layouts.iter_mut().zip(layouts).zip(kinds) {
            *place = result::create_matrix_layout(kind, layout.rows as u64, layout.cols as u64, layout.ld as i64)?;
        }
        if product.parts > 1 {
            described.repeat(product.parts, product.strides())?;
        }
        Ok(described)
    }

    /// So many products, from operands and to results that are so many elements apart.
    fn repeat(&self, count: usize, strides: [usize; 3]) -> Result<(), result::CublasError> {
        use sys::cublasLtMatrixLayoutAttribute_t::{
            CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
        };
        for (layout, stride) in self.layouts.into_iter().zip(strides) {
            let (count, stride) = (count as i32, stride as i64);
            // SAFETY: the layout is live; the attributes are four and eight bytes, copied by the calls.
            unsafe {
                let (count, stride) = ((&raw const count).cast(), (&raw const stride).cast());
                result::set_matrix_layout_attribute(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, count, 4)?;
                result::set_matrix_layout_attribute(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, stride, 8)?;
            }
        }
        Ok(())
    }
}

impl Drop for Described {
    fn drop(&mut self) {
        // SAFETY: made by `new` and used by nothing else. A failure here leaks a description: nothing to do about it.
        unsafe {
            for layout in self.layouts.into_iter().filter(|layout| !layout.is_null()) {
                let _ = result::destroy_matrix_layout(layout);
            }
            let _ = result::destroy_matmul_desc(self.operation);
        }
    }
}

/// cuBLASLt on one stream, with the algorithms found so far.
pub struct Matmul {
    handle: sys::cublasLtHandle_t,
    stream: Arc<CudaStream>,
    /// By class; and by the product itself where its class's algorithm did not take it. `None` where there is none.
    algorithms: Mutex<HashMap<Product, Option<sys::cublasLtMatmulAlgo_t>>>,
}

// SAFETY: a cuBLASLt handle may be used by several threads; algorithms are plain values behind a lock.
unsafe impl Send for Matmul {}
// SAFETY: as above.
unsafe impl Sync for Matmul {}

impl Matmul {
    /// Loads cuBLASLt.
    ///
    /// # Errors
    /// Where the library is missing or does not start.
    pub fn new(stream: Arc<CudaStream>) -> Result<Self> {
        CUBLASLT.load()?;
        stream.context().bind_to_thread().or_fail(|| "the GPU cannot be used".to_owned())?;
        let handle = result::create_handle().or_fail(|| "cuBLASLt does not start".to_owned())?;
        Ok(Matmul { handle, stream, algorithms: Mutex::default() })
    }

    /// Issues a product; `false` where cuBLASLt has no algorithm for it. Addresses are the device's; `workspace` has
    /// [`WORKSPACE`] bytes.
    ///
    /// # Safety
    /// Each address is that of as many elements of its type as the product takes, on this stream's GPU, 256-byte
    /// aligned (what the heuristic takes for granted), live until the stream has passed; c is not a or b, and nothing
    /// else uses the workspace meanwhile.
    ///
    /// # Errors
    /// Where cuBLASLt refuses to run what it has.
    pub unsafe fn issue(&self, product: &Product, a: u64, b: u64, c: u64, workspace: u64) -> Result<bool> {
        let what = || format!("cuBLASLt cannot multiply {product:?}");
        self.stream.context().bind_to_thread().or_fail(what)?;
        let described = Described::new(product).or_fail(what)?;
        // SAFETY: the descriptions are of this product; the caller answers for the memory.
        let run = |algorithm: &sys::cublasLtMatmulAlgo_t| unsafe {
            self.run(product, &described, algorithm, [a, b, c], workspace)
        };
        let mut algorithms = self.algorithms.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = algorithms.get(product) {
            return kept.as_ref().map_or(Ok(false), |algorithm| run(algorithm).map(|()| true).or_fail(what));
        }
        let class = product.class();
        let of_class = match algorithms.entry(class) {
            Entry::Occupied(kept) => *kept.get(),
            Entry::Vacant(place) => {
                *place.insert(self.search(&class, &Described::new(&class).or_fail(what)?).or_fail(what)?)
            }
        };
        if of_class.is_some_and(|algorithm| run(&algorithm).is_ok()) {
            return Ok(true);
        }
        // Its class's algorithm, if there is one, does not take this length.
        let mut found = self.search(product, &described).or_fail(what)?;
        match found.as_ref().map(run) {
            Some(Err(result::CublasError(UNSUPPORTED))) => found = None,
            Some(ran) => ran.or_fail(what)?,
            None => {}
        }
        Ok(algorithms.entry(*product).insert_entry(found).get().is_some())
    }

    /// # Safety
    /// As [`Matmul::issue`].
    unsafe fn run(
        &self,
        product: &Product,
        described: &Described,
        algorithm: &sys::cublasLtMatmulAlgo_t,
        [a, b, c]: [u64; 3],
        workspace: u64,
    ) -> Result<(), result::CublasError> {
        let [first, second, third] = described.layouts;
        let (one, zero) = (1.0f32, 0.0f32);
        let beta = if product.accumulate { &one } else { &zero };
        let pointer = |address: u64| address as *mut c_void;
        // SAFETY: everything named is live; the caller answers for the memory.
        unsafe {
            result::matmul(
                self.handle,
                described.operation,
                (&raw const one).cast(),
                std::ptr::from_ref(beta).cast(),
                pointer(b),
                first,
                pointer(a),
                second,
                pointer(c),
                third,
                pointer(c),
                third,
                algorithm,
                pointer(workspace),
                WORKSPACE,
                self.stream.cu_stream().cast(),
            )
        }
    }

    /// Asks for the algorithm that cuBLASLt thinks fastest, if it has one.
    fn search(
        &self,
        product: &Product,
        described: &Described,
    ) -> Result<Option<sys::cublasLtMatmulAlgo_t>, result::CublasError> {
        use sys::cublasLtMatmulPreferenceAttributes_t::{
            CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
        };
        let preference = result::create_matmul_pref()?;
        let [first, second, third] = described.layouts;
        let (bytes, no_split) = (WORKSPACE, 0u32);
        // SAFETY: everything named is live; attributes are copied by the calls.
        let found = unsafe {
            let key = CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
            let mut set =
                result::set_matmul_pref_attribute(preference, key, (&raw const bytes).cast(), size_of::<usize>());
            if !product.sums_rows() {
                let key = CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK;
                set = set.and(result::set_matmul_pref_attribute(preference, key, (&raw const no_split).cast(), 4));
            }
            let operation = described.operation;
            let found = set.and_then(|()| {
                result::get_matmul_algo_heuristic(self.handle, operation, first, second, third, third, preference)
            });
            result::destroy_matmul_pref(preference)?;
            found
        };
        match found {
            Ok(found) => Ok(Some(found.algo)),
            Err(result::CublasError(UNSUPPORTED)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Matmul {
    fn drop(&mut self) {
        // SAFETY: made by `new`; nothing uses it any more. A failure here leaks it: nothing to do about it.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What cuBLASLt does with these layouts: column-major D = op(A) op(B).
    fn column_major([a, b, d]: [Layout; 3], x: &[f32], y: &[f32]) -> Vec<f32> {
        let at = |l: Layout, m: &[f32], row: usize, col: usize| {
            let (row, col) = if l.transposed { (col, row) } else { (row, col) };
            assert!(row < l.rows && col < l.cols);
            m[row + col * l.ld]
        };
        let inner = if a.transposed { a.rows } else { a.cols };
        let mut out = vec![f32::NAN; d.ld * d.cols];
        for col in 0..d.cols {
            for row in 0..d.rows {
                out[row + col * d.ld] = (0..inner).map(|k| at(a, x, row, k) * at(b, y, k, col)).sum();
            }
        }
        out
    }

    #[test]
    fn batches_of_like_length_share_an_algorithm() {
        let of = |m, k, a_transposed| {
            let (out, accumulate) = (Out::F32, false);
            let product = Product { m, n: 9, k, a_transposed, b_transposed: false, out, accumulate, parts: 1 };
            let class = product.class();
            assert_eq!(class.class(), class);
            (class.m, class.n, class.k)
        };
        assert_eq!(of(5, 7, false), (16, 9, 7));
        assert_eq!(of(1025, 7, false), (2048, 9, 7));
        assert_eq!(of(5, 700, true), (5, 9, 1024), "of a weight's gradient, k is the batch");
    }

    #[test]
    fn the_parts_of_a_product_are_those_of_its_sums() {
        let (m, n, k, parts) = (3, 4, 10, 5);
        let a: Vec<f32> = (0..m * k).map(|i| i as f32).collect();
        let b: Vec<f32> = (0..n * k).map(|i| (i * i % 17) as f32).collect();
        let (out, accumulate) = (Out::F32, false);
        let product = Product { m, n, k, a_transposed: false, b_transposed: true, out, accumulate, parts };
        let [first, second, result] = product.strides();
        assert_eq!(result, m * n);
        for part in 0..parts {
            let found = column_major(product.layouts(), &b[part * first..], &a[part * second..]);
            for (at, found) in found.iter().enumerate() {
                let want: f32 = (2 * part..2 * part + 2).map(|x| a[at / n * k + x] * b[at % n * k + x]).sum();
                assert_eq!(*found, want, "part {part} of element {at}");
            }
        }
    }

    #[test]
    fn a_row_major_product_is_told_to_a_column_major_library() {
        let (m, n, k) = (3, 4, 5);
        let (a, b): (Vec<f32>, Vec<f32>) =
            ((0..15).map(|i| i as f32).collect(), (0..20).map(|i| (i * i) as f32).collect());
        for (a_transposed, b_transposed) in [(false, false), (false, true), (true, false), (true, true)] {
            let (out, accumulate) = (Out::F32, false);
            let product = Product { m, n, k, a_transposed, b_transposed, out, accumulate, parts: 1 };
            let found = column_major(product.layouts(), &b, &a);
            for i in 0..m {
                for j in 0..n {
                    let want: f32 = (0..k)
                        .map(|x| {
                            let left = if a_transposed { a[x * m + i] } else { a[i * k + x] };
                            left * if b_transposed { b[j * k + x] } else { b[x * n + j] }
                        })
                        .sum();
                    assert_eq!(found[i * n + j], want, "{product:?}");
                }
            }
        }
    }
}
