//! Matrix products whose bits do not depend on their blocking.
//!
//! Every element of C is one chain of fused multiply-adds over k = 0, 1, 2, …,
//! so it is the same number whichever tile, thread or batch computes it: a row
//! decoded alone equals the row of a training batch, and one thread equals many.
//! That rules out splitting k over lanes or threads, and costs nothing: lanes run
//! along the columns of C, and a register tile of 12 × 32 keeps 24 chains in flight.
//!
//! `cargo bench --bench model` compares with the `gemm` crate, whose results change
//! with the number of rows. On one Zen 4 core (busy machine, best of seven runs):
//! 109 GFLOP/s against 61 at 32 × 128 × 64, 109 against 99 at 512 × 128 × 64, 101
//! against 73 at 2048 × 64 × 192, 76 against 90 at 2048 × 384 × 64, 98 against 97 at 768³.

use super::simd::{LANES, Simd, kernel};
use super::{Cpu, SendPtr};

/// Columns of a panel: two vectors.
pub const PANEL: usize = 2 * LANES;
/// k is walked in blocks so that a panel's block stays in the first-level cache.
const K_BLOCK: usize = 256;
/// Rows a task takes at least: a multiple of every tile height.
const ROW_BLOCK: usize = 48;
/// Below this many multiply-adds a product is not worth handing to another thread.
const SERIAL: usize = 1 << 18;

/// A: element (m, k) is `data[m * row + k * col]`.
#[derive(Clone, Copy)]
pub struct Lhs<'a> {
    pub data: &'a [f32],
    pub row: usize,
    pub col: usize,
}

/// B: `[k, n]`.
#[derive(Clone, Copy)]
pub enum Rhs<'a> {
    /// Row-major with this many elements a row.
    Rows { data: &'a [f32], row: usize },
    /// Panels of [`PANEL`] columns, each `[k, PANEL]`, the last padded with zeros; see [`pack`].
    Panels { data: &'a [f32] },
}

/// Length of packed panels for a `[n, k]` matrix.
pub fn packed_len(n: usize, k: usize) -> usize {
    n.div_ceil(PANEL) * PANEL * k
}

/// Packs w `[n, k]` row-major into panels of wᵀ.
pub fn pack(cpu: &Cpu, w: &[f32], n: usize, k: usize, panels: &mut [f32]) {
    let work = n * k;
    cpu.chunks_mut(&mut panels[..packed_len(n, k)], PANEL * k, work, |p, panel| {
        let columns = PANEL.min(n - p * PANEL);
        for (c, row) in w[p * PANEL * k..].chunks_exact(k).take(columns).enumerate() {
            for (slot, &x) in panel[c..].iter_mut().step_by(PANEL).zip(row) {
                *slot = x;
            }
        }
    });
}

/// C `[m, n]` with `c_row` elements a row: `C = A B`, or `C += A B` where `add`.
#[allow(clippy::too_many_arguments)]
pub fn gemm(cpu: &Cpu, (m, n, k): (usize, usize, usize), a: Lhs, b: Rhs, c: &mut [f32], c_row: usize, add: bool) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(k > 0, "a product over nothing");
    assert!(a.data.len() > (m - 1) * a.row + (k - 1) * a.col, "A is too short");
    assert!(c.len() >= (m - 1) * c_row + n && n <= c_row, "C is too short");
    match b {
        Rhs::Rows { data, row } => assert!(n <= row && data.len() >= (k - 1) * row + n, "B is too short"),
        Rhs::Panels { data } => assert!(data.len() >= packed_len(n, k), "B is too short"),
    }
    let panels = n.div_ceil(PANEL);
    let threads = if m * n * k < SERIAL { 1 } else { cpu.threads() };
    // Rows first; columns too where there are few rows. A few tasks a thread even out the load.
    let want = if threads == 1 { 1 } else { threads * 4 };
    let row_tasks = m.div_ceil(ROW_BLOCK).min(want);
    let column_tasks = (want / row_tasks).clamp(1, panels);
    let rows_each = m.div_ceil(row_tasks).next_multiple_of(12);
    let panels_each = panels.div_ceil(column_tasks);
    let out = SendPtr(c.as_mut_ptr());
    let row_tasks = m.div_ceil(rows_each);
    let column_tasks = panels.div_ceil(panels_each);
    cpu.tasks(row_tasks * column_tasks, m * n * k, |task| {
        let (i, j) = (task / column_tasks, task % column_tasks);
        let rows = (i * rows_each, m.min((i + 1) * rows_each));
        let range = (j * panels_each, panels.min((j + 1) * panels_each));
        // SAFETY: the lengths were checked above, and no two tasks share an element of C.
        unsafe { block(a, b, out.get(), c_row, rows, range, n, k, add) };
    });
}

kernel! {
    /// Rows and panels of C that one task computes.
    ///
    /// # Safety
    /// Must be called with operands checked as in [`gemm`], and with `c` writable
    /// for the named rows and panels and touched by no one else.
    fn block_kernel(
        a: Lhs, b: Rhs, c: *mut f32, c_row: usize, rows: (usize, usize), panels: (usize, usize), n: usize, k: usize, add: bool,
    ) = block_body;
}

/// # Safety
/// As `block_kernel` says.
#[allow(clippy::too_many_arguments)]
unsafe fn block(
    a: Lhs,
    b: Rhs,
    c: *mut f32,
    c_row: usize,
    rows: (usize, usize),
    panels: (usize, usize),
    n: usize,
    k: usize,
    add: bool,
) {
    block_kernel(a, b, c, c_row, rows, panels, n, k, add);
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn block_body<S: Simd>(
    s: S,
    a: Lhs,
    b: Rhs,
    c: *mut f32,
    c_row: usize,
    rows: (usize, usize),
    panels: (usize, usize),
    n: usize,
    k: usize,
    add: bool,
) {
    // Rows of a transposed A are spread over many cache lines: use each for all panels
    // before the next, and walk k in shorter blocks so that they stay.
    let transposed = a.col != 1;
    let k_block = if transposed { K_BLOCK / 2 } else { K_BLOCK };
    let (wide, high) = (panels.1 - panels.0, (rows.1 - rows.0).div_ceil(S::TILE_ROWS));
    for k0 in (0..k).step_by(k_block) {
        let depth = k_block.min(k - k0);
        for i in 0..wide * high {
            let (panel, tile) = if transposed { (i % wide, i / wide) } else { (i / high, i % high) };
            let (panel, m) = (panels.0 + panel, rows.0 + tile * S::TILE_ROWS);
            let column = panel * PANEL;
            let (b, b_row, padded) = match b {
                Rhs::Rows { data, row } => (data[k0 * row + column..].as_ptr(), row, false),
                Rhs::Panels { data } => (data[panel * PANEL * k + k0 * PANEL..].as_ptr(), PANEL, true),
            };
            let width = PANEL.min(n - column);
            let tile = Tile {
                depth,
                a: a.data[m * a.row + k0 * a.col..].as_ptr(),
                a_row: a.row,
                a_col: a.col,
                b,
                b_row,
                // SAFETY: row m and this column are inside C.
                c: unsafe { c.add(m * c_row + column) },
                c_row,
                width,
                padded,
                add: add || k0 > 0,
            };
            let height = S::TILE_ROWS.min(rows.1 - m);
            // SAFETY: the caller checked the operands; the tile lies inside them.
            unsafe {
                match height {
                    12 => tile.run::<S, 12>(s),
                    11 => tile.run::<S, 11>(s),
                    10 => tile.run::<S, 10>(s),
                    9 => tile.run::<S, 9>(s),
                    8 => tile.run::<S, 8>(s),
                    7 => tile.run::<S, 7>(s),
                    6 => tile.run::<S, 6>(s),
                    5 => tile.run::<S, 5>(s),
                    4 => tile.run::<S, 4>(s),
                    3 => tile.run::<S, 3>(s),
                    2 => tile.run::<S, 2>(s),
                    _ => tile.run::<S, 1>(s),
                }
            }
        }
    }
}

struct Tile {
    depth: usize,
    a: *const f32,
    a_row: usize,
    a_col: usize,
    b: *const f32,
    b_row: usize,
    c: *mut f32,
    c_row: usize,
    /// Columns of C, at most [`PANEL`].
    width: usize,
    /// B has [`PANEL`] columns even where C has not.
    padded: bool,
    add: bool,
}

impl Tile {
    /// # Safety
    /// All of the tile's rows, columns and depth lie inside A, B and C.
    #[inline(always)]
    unsafe fn run<S: Simd, const M: usize>(&self, s: S) {
        let full = self.width == PANEL;
        let mut acc = [[s.zero(); 2]; M];
        if self.add {
            for (m, acc) in acc.iter_mut().enumerate() {
                // SAFETY: row m of the tile has `width` columns.
                *acc = unsafe { load_part(s, self.c.add(m * self.c_row), self.width) };
            }
        }
        // SAFETY: promised by the caller, for every access below.
        unsafe {
            if full || self.padded {
                for k in 0..self.depth {
                    let b = self.b.add(k * self.b_row);
                    let b = [s.load_ptr(b), s.load_ptr(b.add(LANES))];
                    self.step(s, &mut acc, k, b);
                }
            } else {
                for k in 0..self.depth {
                    let b = load_part(s, self.b.add(k * self.b_row), self.width);
                    self.step(s, &mut acc, k, b);
                }
            }
            for (m, acc) in acc.iter().enumerate() {
                let c = self.c.add(m * self.c_row);
                if full {
                    s.store_ptr(c, acc[0]);
                    s.store_ptr(c.add(LANES), acc[1]);
                } else {
                    let mut lanes = [0.0f32; PANEL];
                    s.store(&mut lanes, 0, acc[0]);
                    s.store(&mut lanes, LANES, acc[1]);
                    std::ptr::copy_nonoverlapping(lanes.as_ptr(), c, self.width);
                }
            }
        }
    }

    /// # Safety
    /// k is below the depth.
    #[inline(always)]
    unsafe fn step<S: Simd, const M: usize>(&self, s: S, acc: &mut [[S::V; 2]; M], k: usize, b: [S::V; 2]) {
        for (m, acc) in acc.iter_mut().enumerate() {
            // SAFETY: (m, k) is inside the tile.
            let a = s.splat(unsafe { *self.a.add(m * self.a_row + k * self.a_col) });
            acc[0] = s.fma(a, b[0], acc[0]);
            acc[1] = s.fma(a, b[1], acc[1]);
        }
    }
}

/// `width` elements as two vectors, the rest 0.
///
/// # Safety
/// `at` is readable for `width` f32, at most [`PANEL`].
#[inline(always)]
unsafe fn load_part<S: Simd>(s: S, at: *const f32, width: usize) -> [S::V; 2] {
    if width == PANEL {
        // SAFETY: promised by the caller.
        return unsafe { [s.load_ptr(at), s.load_ptr(at.add(LANES))] };
    }
    let first = width.min(LANES);
    // SAFETY: promised by the caller.
    unsafe { [s.load_ptr_n(at, first), s.load_ptr_n(at.add(first), width - first)] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Rng;

    fn random(len: usize, seed: u64) -> Vec<f32> {
        let mut rng = Rng::new(seed);
        (0..len).map(|_| rng.normal() as f32).collect()
    }

    /// The definition: one fused chain an element.
    fn chain(m: usize, n: usize, k: usize, a: Lhs, b: impl Fn(usize, usize) -> f32, c: &mut [f32]) {
        for i in 0..m {
            for j in 0..n {
                for x in 0..k {
                    c[i * n + j] = a.data[i * a.row + x * a.col].mul_add(b(x, j), c[i * n + j]);
                }
            }
        }
    }

    #[test]
    fn every_shape_and_layout_is_the_chain_to_the_bit() {
        for threads in [1, 2] {
            let cpu = Cpu::with_threads(threads).unwrap();
            for (m, n, k) in [(1, 1, 1), (1, 110, 64), (13, 33, 300), (97, 64, 192), (200, 128, 64), (25, 31, 7)] {
                let (a, w) = (random(m * k, 1), random(n * k, 2));
                let mut panels = vec![0.0; packed_len(n, k)];
                pack(&cpu, &w, n, k, &mut panels);
                let lhs = Lhs { data: &a, row: k, col: 1 };
                let mut c = vec![0.0; m * n];
                gemm(&cpu, (m, n, k), lhs, Rhs::Panels { data: &panels }, &mut c, n, false);
                let mut want = vec![0.0; m * n];
                chain(m, n, k, lhs, |x, j| w[j * k + x], &mut want);
                assert_eq!(c, want, "packed {m} {n} {k}");

                // Aᵀ, row-major B, added to what is there.
                let lhs = Lhs { data: &a, row: 1, col: m };
                let start = random(m * n, 3);
                let (mut c, mut want) = (start.clone(), start);
                gemm(&cpu, (m, n, k), lhs, Rhs::Rows { data: &w, row: n }, &mut c, n, true);
                chain(m, n, k, lhs, |x, j| w[x * n + j], &mut want);
                assert_eq!(c, want, "rows {m} {n} {k}");
            }
        }
    }
}
