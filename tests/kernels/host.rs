//! The CUDA backend with no GPU: its driver is the host, its kernels are their own sources run by the shim.
//!
//! So every operation's launches (which kernel, over which grid, with which arguments, on buffers of which
//! size) are the ones that a GPU gets. Pointers must lie within live allocations, and nothing may be written
//! outside of them. Threads run in another order at every launch, so a race changes bits between two runs.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use gristmill::backend::Cuda;
use gristmill::backend::cuda::driver::{Arg, Driver, Grid, Pointer};
use gristmill::backend::cuda::matmul::{Out, Product};
use gristmill::{Error, Result};
use half::bf16;

use crate::gpu;
use crate::shim::{on_host, run_on_host};

/// Bytes of 0xff on each side of an allocation: NaN to whoever reads them.
const GUARD: usize = 256;

/// The backend to test: on the GPU where one was asked for, else on the host; `None`, said aloud, without a compiler.
pub fn cuda() -> Option<Cuda> {
    match gpu::device() {
        Some(device) => Some(Cuda::on(device.clone())),
        None => on_host().then(|| Cuda::on(Arc::new(Host::default()))),
    }
}

thread_local! {
    /// What devices that this thread makes have in a file's place.
    static SEEDED: RefCell<Option<(&'static str, String)>> = const { RefCell::new(None) };
}

/// Runs tests in a thread whose devices have another text for one file of kernels; `false` where a test fails.
pub fn pass_with(file: &'static str, text: String, tests: &'static [fn()]) -> bool {
    let run = move || {
        SEEDED.set(Some((file, text)));
        tests.iter().for_each(|test| test());
    };
    std::thread::spawn(run).join().is_ok()
}

/// Memory and work of a GPU that is not there.
pub struct Host {
    /// A file of kernels and the text that it has here.
    seeded: Option<(&'static str, String)>,
    /// By address: the bytes with their guards, and how many are between them.
    memory: Mutex<BTreeMap<u64, (Vec<u128>, usize)>>,
    /// Allocations that a GPU would find in the host's memory.
    pinned: Mutex<BTreeSet<u64>>,
    launches: AtomicUsize,
    /// Copies from the host.
    writes: AtomicUsize,
    /// Times that somebody has waited for it.
    waits: AtomicUsize,
    /// Whether its library has no algorithm for any product; how many it refused.
    without_algorithms: bool,
    refused: AtomicUsize,
    recorded: Mutex<Recorded>,
    /// Faults to come, each once.
    faults: Mutex<Vec<Fault>>,
}

/// What was issued while it was recorded, as a GPU keeps it: not done until it is replayed.
#[derive(Default)]
struct Recorded {
    open: Option<Vec<Command>>,
    kept: BTreeMap<u64, Vec<Command>>,
    made: u64,
    replayed: u64,
    refuses: bool,
}

#[derive(Clone)]
enum Command {
    Launch(String, &'static str, Grid, Vec<Arg>),
    Multiply(Product, [u64; 3]),
    Zero(u64, usize),
}

/// Something that goes wrong on a GPU, at the n-th time from now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// There is no more memory for an allocation.
    Memory(usize),
    /// What a kernel writes is NaN.
    Nan(&'static str, usize),
    /// The device stops for good with these words, at a launch of a kernel.
    Dead(&'static str, usize, &'static str),
}

impl Fault {
    /// Counts down; whether it happens now.
    fn now(&mut self) -> bool {
        let (Fault::Memory(left) | Fault::Nan(_, left) | Fault::Dead(_, left, _)) = self;
        *left -= usize::from(*left > 0);
        *left == 0
    }
}

impl Default for Host {
    fn default() -> Self {
        Host {
            seeded: SEEDED.with_borrow(Clone::clone),
            memory: Mutex::default(),
            pinned: Mutex::default(),
            launches: AtomicUsize::default(),
            writes: AtomicUsize::default(),
            waits: AtomicUsize::default(),
            without_algorithms: false,
            refused: AtomicUsize::default(),
            recorded: Mutex::default(),
            faults: Mutex::default(),
        }
    }
}

impl Host {
    /// A device that cannot record work.
    pub fn without_recording() -> Self {
        let host = Host::default();
        host.recorded.lock().unwrap().refuses = true;
        host
    }

    /// A device whose library of products has no algorithm for any shape.
    pub fn without_algorithms() -> Self {
        Host { without_algorithms: true, ..Host::default() }
    }

    /// Products that its library had no algorithm for.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    /// Copies from the host, and launches, so far.
    pub fn issued(&self) -> (usize, usize) {
        (self.writes.load(Ordering::Relaxed), self.launches.load(Ordering::Relaxed))
    }

    /// How often it was waited for.
    pub fn waits(&self) -> usize {
        self.waits.load(Ordering::Relaxed)
    }

    /// Plans a fault.
    pub fn fail(&self, fault: Fault) {
        self.faults.lock().unwrap().push(fault);
    }

    /// The fault of this kind that happens now, if one does.
    fn fault(&self, is_it: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        let at = faults.iter_mut().position(|fault| is_it(fault) && fault.now())?;
        // A device that stopped stays so.
        if let Fault::Dead(..) = faults[at] { Some(faults[at]) } else { Some(faults.swap_remove(at)) }
    }

    /// Recordings made, and how often one was replayed.
    pub fn recordings(&self) -> (u64, u64) {
        let recorded = self.recorded.lock().unwrap();
        (recorded.made, recorded.replayed)
    }

    /// Recordings that were not forgotten.
    pub fn kept(&self) -> usize {
        self.recorded.lock().unwrap().kept.len()
    }

    /// Keeps a command if work is being recorded; else gives it back.
    fn keep(&self, command: Command) -> Option<Command> {
        match &mut self.recorded.lock().unwrap().open {
            Some(open) => {
                open.push(command);
                None
            }
            None => Some(command),
        }
    }

    /// What a GPU refuses while it records.
    fn idle(&self, what: &str) {
        assert!(self.recorded.lock().unwrap().open.is_none(), "{what} while work is recorded");
    }

    /// Bytes of live allocations on the device.
    pub fn allocated(&self) -> u64 {
        let pinned = self.pinned.lock().unwrap();
        let memory = self.memory.lock().unwrap();
        memory.iter().filter(|(at, _)| !pinned.contains(at)).map(|(_, (_, len))| *len as u64).sum()
    }

    /// Bytes of live allocations that a GPU would find in the host's memory.
    pub fn pinned(&self) -> u64 {
        let all: u64 = self.memory.lock().unwrap().values().map(|(_, len)| *len as u64).sum();
        all - self.allocated()
    }

    /// The allocation that holds this range.
    fn holding(&self, at: u64, bytes: usize) -> Result<u64> {
        let memory = self.memory.lock().unwrap();
        let found =
            memory.range(..=at).next_back().filter(|&(start, (_, len))| at + bytes as u64 <= start + *len as u64);
        found
            .map(|(start, _)| *start)
            .ok_or_else(|| Error::new(format!("{bytes} bytes at {at:#x} are in no allocation")))
    }

    fn guarded(&self, start: u64) -> Result<()> {
        let memory = self.memory.lock().unwrap();
        let (words, len) = &memory[&start];
        let (bytes, before) = (bytemuck::cast_slice::<u128, u8>(words), (start as usize) - words.as_ptr() as usize);
        match bytes[..before].iter().chain(&bytes[before + len..]).all(|&b| b == 0xff) {
            true => Ok(()),
            false => Err(Error::new(format!("an allocation was written outside its {len} bytes"))),
        }
    }

    /// # Safety
    /// The range is of a live allocation.
    unsafe fn slice<'a, T: bytemuck::Pod>(&self, at: u64, count: usize) -> &'a mut [T] {
        self.holding(at, count * size_of::<T>()).unwrap();
        // SAFETY: within an allocation, aligned to 256 bytes or a multiple of the element from there.
        unsafe { std::slice::from_raw_parts_mut(at as *mut T, count) }
    }
}

impl Driver for Host {
    fn allocate(&self, bytes: usize) -> Result<u64> {
        self.idle("taking memory");
        if self.fault(|fault| matches!(fault, Fault::Memory(_))).is_some() {
            return Err(Error::new(format!("the GPU has no {bytes} bytes more")).hint("lower the micro-batch"));
        }
        let mut words = vec![u128::MAX; (bytes + 3 * GUARD).div_ceil(16)];
        let start = (words.as_ptr() as usize + GUARD).next_multiple_of(GUARD);
        let before = start - words.as_ptr() as usize;
        bytemuck::cast_slice_mut::<u128, u8>(&mut words)[before..before + bytes].fill(0);
        self.memory.lock().unwrap().insert(start as u64, (words, bytes));
        Ok(start as u64)
    }

    fn allocate_host(&self, bytes: usize) -> Result<u64> {
        let at = self.allocate(bytes)?;
        self.pinned.lock().unwrap().insert(at);
        Ok(at)
    }

    unsafe fn free(&self, address: u64) {
        self.idle("giving memory back");
        self.guarded(address).unwrap();
        self.pinned.lock().unwrap().remove(&address);
        self.memory.lock().unwrap().remove(&address).expect("freed once");
    }

    unsafe fn write(&self, to: u64, bytes: &[u8]) -> Result<()> {
        self.idle("a copy");
        self.holding(to, bytes.len())?;
        self.writes.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the range is of a live allocation.
        unsafe { self.slice::<u8>(to, bytes.len()) }.copy_from_slice(bytes);
        Ok(())
    }

    unsafe fn read(&self, from: u64, bytes: &mut [u8]) -> Result<()> {
        self.idle("a copy");
        self.holding(from, bytes.len())?;
        // SAFETY: the range is of a live allocation.
        bytes.copy_from_slice(unsafe { self.slice::<u8>(from, bytes.len()) });
        Ok(())
    }

    unsafe fn zero(&self, at: u64, bytes: usize) -> Result<()> {
        let Some(_) = self.keep(Command::Zero(at, bytes)) else { return Ok(()) };
        self.holding(at, bytes)?;
        // SAFETY: the range is of a live allocation.
        unsafe { self.slice::<u8>(at, bytes) }.fill(0);
        Ok(())
    }

    unsafe fn launch(&self, file: &str, name: &'static str, grid: Grid, args: &[Arg]) -> Result<()> {
        let command = Command::Launch(file.to_owned(), name, grid, args.to_vec());
        let Some(_) = self.keep(command) else { return Ok(()) };
        let is_dead = |fault: &Fault| matches!(fault, Fault::Dead(of, ..) if *of == name);
        if let Some(Fault::Dead(_, _, words)) = self.fault(is_dead) {
            return Err(Error::new(words));
        }
        let mut touched = Vec::new();
        for arg in args {
            if let Arg::Pointer(Pointer { address, bytes, .. }) = *arg
                && address != 0
            {
                touched.push(self.holding(address, bytes)?);
            }
        }
        let mut values: Vec<[u8; 8]> = args.iter().map(|arg| arg.bytes()).collect();
        let order = self.launches.fetch_add(1, Ordering::Relaxed);
        let text = self.seeded.as_ref().filter(|(seeded, _)| *seeded == file).map(|(_, text)| &text[..]);
        run_on_host(file, text, name, grid, &mut values, order)
            .map_err(|said| Error::new(format!("{name}: {said}")))?;
        if self.fault(|fault| matches!(fault, Fault::Nan(of, _) if *of == name)).is_some() {
            let written = args.iter().find_map(|arg| match arg {
                Arg::Pointer(Pointer { address, bytes, mutable: true, .. }) => Some((*address, *bytes)),
                _ => None,
            });
            let (at, bytes) = written.expect("a kernel writes something");
            // SAFETY: the range is of a live allocation.
            unsafe { self.slice::<u8>(at, bytes) }.fill(0xff);
        }
        touched.into_iter().try_for_each(|start| self.guarded(start))
    }

    unsafe fn multiply(&self, product: &Product, a: u64, b: u64, c: u64) -> Result<bool> {
        if self.without_algorithms {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Ok(false);
        }
        let Some(_) = self.keep(Command::Multiply(*product, [a, b, c])) else { return Ok(true) };
        let Product { m, n, k, a_transposed, b_transposed, out, accumulate, parts } = *product;
        // SAFETY: the ranges are of live allocations; c is not a or b.
        let (a, b) = unsafe { (self.slice::<bf16>(a, m * k), self.slice::<bf16>(b, k * n)) };
        let floats = |x: &[bf16]| x.iter().map(|x| x.to_f32()).collect::<Vec<_>>();
        // As rows of a and columns of b, so that the inner loop runs along both.
        let flip = |x: &[f32], rows: usize, cols: usize| {
            (0..rows * cols).map(|i| x[i % rows * cols + i / rows]).collect::<Vec<f32>>()
        };
        let (mut a, mut b) = (floats(a), floats(b));
        if a_transposed {
            a = flip(&a, k, m);
        }
        if !b_transposed {
            b = flip(&b, k, n);
        }
        let each = k / parts;
        let sum = |at: usize| -> f32 {
            let (part, at) = (at / (m * n), at % (m * n));
            let (row, column) = (&a[at / n * k + part * each..][..each], &b[at % n * k + part * each..][..each]);
            row.iter().zip(column).map(|(x, y)| x * y).sum()
        };
        match out {
            Out::F32 => {
                // SAFETY: as above.
                let c = unsafe { self.slice::<f32>(c, parts * m * n) };
                c.iter_mut().enumerate().for_each(|(i, c)| *c = sum(i) + if accumulate { *c } else { 0.0 });
            }
            Out::Bf16 => {
                // SAFETY: as above.
                let c = unsafe { self.slice::<bf16>(c, parts * m * n) };
                let before = |c: bf16| if accumulate { c.to_f32() } else { 0.0 };
                c.iter_mut().enumerate().for_each(|(i, c)| *c = bf16::from_f32(sum(i) + before(*c)));
            }
        }
        Ok(true)
    }

    fn begin_recording(&self) -> Result<()> {
        let mut recorded = self.recorded.lock().unwrap();
        if recorded.refuses {
            return Err(Error::new("this device does not record"));
        }
        assert!(recorded.open.replace(Vec::new()).is_none(), "one recording at a time");
        Ok(())
    }

    fn end_recording(&self) -> Result<u64> {
        let recorded = &mut *self.recorded.lock().unwrap();
        let commands = recorded.open.take().expect("a recording was begun");
        recorded.made += 1;
        recorded.kept.insert(recorded.made, commands);
        Ok(recorded.made)
    }

    unsafe fn replay(&self, id: u64) -> Result<()> {
        self.idle("a replay");
        let commands = self.recorded.lock().unwrap().kept[&id].clone();
        self.recorded.lock().unwrap().replayed += 1;
        commands.iter().try_for_each(|command| {
            // SAFETY: each checks that its ranges are of live allocations.
            unsafe {
                match command {
                    Command::Launch(file, name, grid, args) => self.launch(file, name, *grid, args),
                    Command::Multiply(product, [a, b, c]) => self.multiply(product, *a, *b, *c).map(drop),
                    Command::Zero(at, bytes) => self.zero(*at, *bytes),
                }
            }
        })
    }

    fn forget(&self, id: u64) {
        self.idle("forgetting a recording");
        self.recorded.lock().unwrap().kept.remove(&id).expect("forgotten once");
    }

    fn synchronize(&self) -> Result<()> {
        self.idle("waiting");
        self.waits.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn memory(&self) -> Result<(usize, usize)> {
        Ok((usize::MAX, usize::MAX))
    }
}

#[test]
fn the_backend_launches_every_kernel_there_is() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/backend/cuda");
    let files = dir.read_dir().unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let files = files.map(|path| std::fs::read_to_string(path).unwrap());
    let text: String = files.map(|text| text.split("#[cfg(test)]").next().unwrap().to_owned()).collect();
    for name in gristmill::backend::cuda::signature::all().keys() {
        assert!(text.contains(&format!("\"{name}\"")), "nothing launches {name}");
    }
}

#[test]
fn an_allocation_too_small_for_its_launch_is_seen() {
    let host = Host::default();
    let at = host.allocate(64).unwrap();
    assert!(host.holding(at, 64).is_ok() && host.holding(at + 60, 4).is_ok());
    assert!(host.holding(at + 60, 8).is_err() && host.holding(at - 4, 4).is_err());
    // SAFETY: a live allocation; the guard behind it is part of the same vector.
    unsafe { *((at + 64) as *mut u8) = 1 };
    assert!(host.guarded(at).is_err());
    // SAFETY: as above.
    unsafe { *((at + 64) as *mut u8) = 0xff };
    // SAFETY: allocated above.
    unsafe { host.free(at) };
    assert!(host.holding(at, 1).is_err());
}
