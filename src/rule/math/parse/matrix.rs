//! Arithmetic of matrices of numbers, done while parsing: a sum or product of matrices is a matrix.

use super::super::ast::{Func, Id, Node, hash_name};
use super::super::eval::exact;
use super::super::number::Q;
use super::frame::Op;
use super::{Fault, Parser};

/// Most rows and columns, and the highest power, that are worked out.
const LARGEST: usize = 8;
const HIGHEST: i64 = 12;

/// Row-major entries.
struct Cells {
    rows: usize,
    cols: usize,
    cells: Vec<Q>,
}

impl Parser<'_, '_> {
    /// `A + B`, `A − B`, `A B` and `A^n` as one matrix, where shapes fit and all entries are rational
    /// numbers; `None` leaves the operation as it stands.
    pub(super) fn matrices(&mut self, op: Op, left: Id, right: Id) -> Result<Option<Id>, Fault> {
        let is_matrix = |id: Id| self.arena.any(id, |n| matches!(n, Node::Matrix { .. }));
        let works = match op {
            // Both sides are looked through, once for each bracket around them: not where no matrix is.
            Op::Add | Op::Sub | Op::Mul if self.matrices => {
                self.budget.charge(u64::from(right - self.arena.first(left)))?;
                is_matrix(right) && is_matrix(left)
            }
            Op::Pow if self.says_transposed(right) => return self.transposed(left, Some(right)),
            Op::Pow => matches!(self.arena.node(left), Node::Matrix { .. }),
            _ => false,
        };
        if !works {
            return Ok(None);
        }
        let exact = exact::fold(self.arena, self.budget).map_err(Fault::from)?;
        let Some(a) = self.cells(left, &exact)? else { return Ok(None) };
        let result = match op {
            Op::Pow => match exact.get(right as usize).and_then(|q| q.as_ref()?.to_i64()) {
                Some(n @ 1..=HIGHEST) if a.rows == a.cols => self.power(a, n)?,
                _ => return Ok(None),
            },
            _ => {
                let Some(b) = self.cells(right, &exact)? else { return Ok(None) };
                match op {
                    Op::Mul if a.cols == b.rows => self.product(&a, &b)?,
                    Op::Add | Op::Sub if (a.rows, a.cols) == (b.rows, b.cols) => {
                        let mut cells = Vec::with_capacity(a.cells.len());
                        for (x, y) in a.cells.iter().zip(&b.cells) {
                            let y = if matches!(op, Op::Sub) { y.neg() } else { y.clone() };
                            cells.push(x.add(&y, self.budget)?);
                        }
                        Cells { cells, ..a }
                    }
                    _ => return Ok(None),
                }
            }
        };
        for part in self.arena.first(left)..=right {
            self.arena.retire(part);
        }
        let mut entries = Vec::with_capacity(result.cells.len());
        for value in result.cells {
            entries.push(self.arena.push(Node::Num(value))?);
        }
        let entries = self.arena.make_list(&entries);
        let (rows, cols) = (result.rows as u16, result.cols as u16);
        Ok(Some(self.arena.push(Node::Matrix { rows, cols, entries })?))
    }

    /// `T`; the lexer reads `\top` and an upright T as the same letter.
    fn says_transposed(&self, power: Id) -> bool {
        *self.arena.node(power) == Node::Sym(hash_name("T"))
    }

    /// A matrix with its rows as columns; a row typed in brackets is a vector either way. `None` for anything
    /// else. `mark` is the node that said so.
    pub(super) fn transposed(&mut self, id: Id, mark: Option<Id>) -> Result<Option<Id>, Fault> {
        let node = match *self.arena.node(id) {
            Node::Matrix { rows, cols, entries } => {
                let ids = self.arena.list(entries).to_vec();
                self.budget.charge(ids.len() as u64)?;
                let (height, width) = (usize::from(rows), usize::from(cols));
                let turned: Vec<Id> = (0..width)
                    .flat_map(|col| (0..height).map(move |row| row * width + col))
                    .map(|at| ids[at])
                    .collect();
                Node::Matrix { rows: cols, cols: rows, entries: self.arena.make_list(&turned) }
            }
            Node::Tuple(list) => Node::Tuple(list),
            Node::Interval { lo, hi, closed: (true, true) } => Node::Tuple(self.arena.make_list(&[lo, hi])),
            _ => return Ok(None),
        };
        for gone in [Some(id), mark].into_iter().flatten() {
            self.arena.retire(gone);
        }
        Ok(Some(self.arena.push(node)?))
    }

    /// The numbers of `M`, `−M`, `c M` and `M / c`.
    fn cells(&mut self, id: Id, exact: &[Option<Q>]) -> Result<Option<Cells>, Fault> {
        let value = |id: Id| exact.get(id as usize).and_then(Clone::clone);
        let (id, factor) = match *self.arena.node(id) {
            Node::Neg(inner) => (inner, Some(Q::int(-1))),
            Node::Mul(a, b) if value(a).is_some() => (b, value(a)),
            Node::Mul(a, b) if value(b).is_some() => (a, value(b)),
            Node::Div(a, b) => match value(b).filter(|q| !q.is_zero()) {
                Some(q) => (a, Some(Q::ONE.div(&q, self.budget)?)),
                None => return Ok(None),
            },
            _ => (id, None),
        };
        let Node::Matrix { rows, cols, entries } = *self.arena.node(id) else { return Ok(None) };
        let (rows, cols) = (usize::from(rows), usize::from(cols));
        let cells: Vec<Q> = self.arena.list(entries).iter().map_while(|&id| value(id)).collect();
        if rows > LARGEST || cols > LARGEST || cells.len() != rows * cols {
            return Ok(None);
        }
        let cells = match factor {
            Some(factor) => cells.iter().map(|q| q.mul(&factor, self.budget)).collect::<Result<_, _>>()?,
            None => cells,
        };
        Ok(Some(Cells { rows, cols, cells }))
    }

    fn product(&mut self, a: &Cells, b: &Cells) -> Result<Cells, Fault> {
        let mut cells = Vec::with_capacity(a.rows * b.cols);
        for row in a.cells.chunks_exact(a.cols) {
            for col in 0..b.cols {
                let mut sum = Q::ZERO;
                for (k, x) in row.iter().enumerate() {
                    let term = x.mul(&b.cells[k * b.cols + col], self.budget)?;
                    sum = sum.add(&term, self.budget)?;
                }
                cells.push(sum);
            }
        }
        Ok(Cells { rows: a.rows, cols: b.cols, cells })
    }

    fn power(&mut self, a: Cells, n: i64) -> Result<Cells, Fault> {
        let mut result = Cells { cells: a.cells.clone(), ..a };
        for _ in 1..n {
            result = self.product(&result, &a)?;
        }
        Ok(result)
    }

    /// `|x|`: of a matrix its determinant, as a number where the entries are numbers.
    pub(super) fn determinant(&mut self, id: Id) -> Result<Id, Fault> {
        let Node::Matrix { rows, cols, entries } = *self.arena.node(id) else {
            return Ok(self.arena.push(Node::Call(Func::Abs, id))?);
        };
        let n = usize::from(rows);
        let mut cells = Vec::new();
        if rows == cols && n <= 8 {
            let exact = exact::fold(self.arena, self.budget).map_err(Fault::from)?;
            let ids = self.arena.list(entries);
            cells = ids.iter().map_while(|&id| exact.get(id as usize).and_then(Clone::clone)).collect();
        }
        if cells.len() != n * n || n == 0 {
            return Ok(self.arena.push(Node::Call(Func::Abs, id))?);
        }
        let value = self.eliminate(cells, n)?;
        for part in self.arena.first(id)..=id {
            self.arena.retire(part);
        }
        Ok(self.arena.push(Node::Num(value))?)
    }

    /// Gauss elimination over the rationals.
    fn eliminate(&mut self, mut m: Vec<Q>, n: usize) -> Result<Q, Fault> {
        let mut value = Q::ONE;
        for k in 0..n {
            let Some(pivot) = (k..n).find(|&row| !m[row * n + k].is_zero()) else { return Ok(Q::ZERO) };
            if pivot != k {
                for col in 0..n {
                    m.swap(pivot * n + col, k * n + col);
                }
                value = value.neg();
            }
            value = value.mul(&m[k * n + k], self.budget)?;
            for row in k + 1..n {
                let factor = m[row * n + k].div(&m[k * n + k], self.budget)?.neg();
                for col in k..n {
                    let change = m[k * n + col].mul(&factor, self.budget)?;
                    m[row * n + col] = m[row * n + col].add(&change, self.budget)?;
                }
            }
        }
        Ok(value)
    }
}
