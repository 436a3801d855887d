//! The head: its classifier kernels by themselves, which move bytes, and its passes whole, which multiply.

use std::slice::from_ref;

use gristmill::Result;
use gristmill::backend::cuda::driver::{Arg, Driver, Grid, Kind, Pointer};
use gristmill::backend::cuda::signature::signature;
use gristmill::backend::{Backend, Cuda};

use super::figure::time;
use super::noise::Noise;
use super::shapes::tokens;
use super::{Card, Figure, Scale, Shape, Unit};

pub fn head(card: &Card, noise: &Noise, shape: &Shape, scale: &Scale, print: &mut dyn FnMut(Figure)) -> Result<()> {
    classifier(card, noise, scale, print)?;
    let (gpu, n) = (card.gpu(), scale.rows);
    let Shape { hidden: h, vocab: v, .. } = *shape;
    let (x, w) = (noise.act(n * h), noise.matrix(v, h));
    let targets = tokens(n, v);
    let [mut logprob, mut entropy, mut lse] = [0; 3].map(|_| gpu.f32(n));
    let mut kept = gpu.f32(0);
    let product = 2.0 * (n * v * h) as f64;
    let size = format!("{n} x {v} of {h}");
    let seconds = time(gpu, scale, || {
        gpu.head(&x, &w, &targets, &mut logprob, &mut entropy, &mut lse, &mut kept);
        Ok(())
    })?;
    print(Figure::new("head forward", &size, Unit::Flops, product, seconds));
    let (mut dx, mut dw) = (gpu.act(n * h), gpu.f32(v * h));
    let seeds = vec![-1.0 / n as f32; n];
    let seconds = time(gpu, scale, || {
        gpu.head_backward(&x, &w, &targets, &entropy, &lse, &mut kept, &seeds, None, &mut dx, Some(&mut dw));
        Ok(())
    })?;
    // The logits again, dx and dw.
    print(Figure::new("head backward", &size, Unit::Flops, 3.0 * product, seconds));
    let (all, free) = (Cuda::kept_logits(n, v, usize::MAX), gpu.free_bytes().unwrap_or(0));
    if 8 * all as u64 > free {
        return Ok(());
    }
    let mut kept = gpu.f32(all);
    gpu.head(&x, &w, &targets, &mut logprob, &mut entropy, &mut lse, &mut kept);
    let seconds = time(gpu, scale, || {
        gpu.head_backward(&x, &w, &targets, &entropy, &lse, &mut kept, &seeds, None, &mut dx, Some(&mut dw));
        Ok(())
    })?;
    print(Figure::new("head backward of kept logits", &size, Unit::Flops, 2.0 * product, seconds));
    Ok(())
}

/// Cross-entropy without its products: log-sum-exp, entropy and target of a tile of logits, and their gradient.
fn classifier(card: &Card, noise: &Noise, scale: &Scale, print: &mut dyn FnMut(Figure)) -> Result<()> {
    let (gpu, (rows, count)) = (card.gpu(), scale.tile);
    let driver = card.driver();
    let all = rows * count;
    let bytes = 4 * all;
    let words = |values: &[f32]| values.iter().flat_map(|x| x.to_ne_bytes()).collect::<Vec<u8>>();
    let logits = noise.values(2.0);
    let sets: Vec<Raw> = (0..=scale.rotated / bytes)
        .map(|_| {
            let raw = Raw::new(driver, Kind::F32, bytes)?;
            let noise = words(&logits);
            for at in (0..bytes).step_by(noise.len()) {
                raw.write(at, &noise[..noise.len().min(bytes - at)])?;
            }
            Ok(raw)
        })
        .collect::<Result<_>>()?;
    let state = Raw::new(driver, Kind::F32, 16 * rows)?;
    let targets = Raw::new(driver, Kind::U32, 4 * rows)?;
    targets.write(0, &tokens(rows, count).iter().flat_map(|x| x.to_ne_bytes()).collect::<Vec<_>>())?;
    let [entropy, lse, by_logprob] = [0; 3].map(|_| Raw::new(driver, Kind::F32, 4 * rows));
    let (entropy, lse, by_logprob) = (entropy?, lse?, by_logprob?);
    by_logprob.write(0, &words(&vec![-1.0 / rows as f32; rows]))?;
    let gradient = Raw::new(driver, Kind::Act, 2 * all)?;
    let size = format!("{rows} x {count}");
    let grid = Grid { blocks: [rows.div_ceil(4) as u32, 1, 1], threads: 128, shared: 0 };
    let sizes = [rows, 0, count].map(|n| Arg::Int(n as i32));

    let turn = sets.len() as f64;
    let seconds = time(gpu, scale, || {
        sets.iter().try_for_each(|logits| {
            let args = [&[state.out(), logits.of(), targets.of()][..], &sizes].concat();
            launch(driver, "head_join", grid, &args)
        })
    })?;
    // Logits; a state of four numbers written (a first tile reads none), targets, and the target's logit.
    let join = bytes + 24 * rows;
    print(Figure::new("cross-entropy forward", &size, Unit::Bytes, join as f64, per(seconds, turn)));

    let finish = Grid { blocks: [rows.div_ceil(128) as u32, 1, 1], threads: 128, shared: 0 };
    let logprob = Raw::new(driver, Kind::F32, 4 * rows)?;
    let args = [state.of(), Arg::Int(rows as i32), logprob.out(), entropy.out(), lse.out()];
    launch(driver, "head_finish", finish, &args)?;
    let seconds = time(gpu, scale, || {
        sets.iter().try_for_each(|logits| {
            let inputs = [gradient.out(), logits.of(), targets.of(), entropy.of(), lse.of(), by_logprob.of()];
            let args = [&inputs[..], from_ref(&Arg::null(Kind::F32)), &sizes].concat();
            launch(driver, "head_seed", grid, &args)
        })
    })?;
    // Logits, their gradient; targets, entropy, lse and seed of each row.
    let seed = bytes + 2 * all + 16 * rows;
    print(Figure::new("cross-entropy backward", &size, Unit::Bytes, seed as f64, per(seconds, turn)));
    Ok(())
}

fn per(seconds: Vec<f64>, turn: f64) -> Vec<f64> {
    seconds.into_iter().map(|s| s / turn).collect()
}

/// Launches a kernel with arguments that are compared with its declaration.
fn launch(driver: &dyn Driver, kernel: &'static str, grid: Grid, args: &[Arg]) -> Result<()> {
    let signature = signature(kernel)?;
    signature.check(kernel, args)?;
    // SAFETY: the arguments are those of the declaration; the pointers are of whole allocations, as long as the rows
    // and columns that the callers give.
    unsafe { driver.launch(signature.file, kernel, grid, args) }
}

/// Device memory that the backend does not know.
struct Raw<'a> {
    driver: &'a dyn Driver,
    kind: Kind,
    address: u64,
    bytes: usize,
}

impl<'a> Raw<'a> {
    fn new(driver: &'a dyn Driver, kind: Kind, bytes: usize) -> Result<Self> {
        Ok(Raw { driver, kind, address: driver.allocate(bytes)?, bytes })
    }

    fn write(&self, at: usize, bytes: &[u8]) -> Result<()> {
        assert!(at + bytes.len() <= self.bytes);
        // SAFETY: within the allocation, as was just looked at.
        unsafe { self.driver.write(self.address + at as u64, bytes) }
    }

    fn arg(&self, mutable: bool) -> Arg {
        Arg::Pointer(Pointer { kind: self.kind, address: self.address, bytes: self.bytes, mutable })
    }

    /// To be read.
    fn of(&self) -> Arg {
        self.arg(false)
    }

    /// To be written.
    fn out(&self) -> Arg {
        self.arg(true)
    }
}

impl Drop for Raw<'_> {
    fn drop(&mut self) {
        // SAFETY: allocated by `new`, and not used again.
        unsafe { self.driver.free(self.address) };
    }
}
