//! Kernels compiled for the host and launched over guarded buffers.

use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::Mutex;

use gristmill::backend::cuda::device as cuda;
use gristmill::backend::cuda::driver::Grid;
use gristmill::seed::Rng;

use crate::compile::{Library, compile, compiler, library};
use crate::gpu;

/// What an activation is in a build of the kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    F32,
    Bf16,
}

pub const ACTS: [Act; 2] = [Act::F32, Act::Bf16];

impl Act {
    /// The value as an activation holds it.
    pub fn round(self, x: f32) -> f32 {
        match self {
            Act::F32 => x,
            Act::Bf16 => half::bf16::from_f32(x).to_f32(),
        }
    }

    /// Normal numbers that an activation holds exactly, so that both sides start from the same.
    pub fn random(self, len: usize, seed: u64) -> Vec<f32> {
        random(len, seed).into_iter().map(|x| self.round(x)).collect()
    }

    /// Compares results with the reference's, to the rounding of an activation.
    #[track_caller]
    pub fn close(self, what: &str, found: &[f32], expected: &[f32]) {
        close(what, found, expected, if self == Act::F32 { 4e-6 } else { 1.0 / 128.0 });
    }
}

pub fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut rng = Rng::new(seed);
    (0..len).map(|_| rng.normal() as f32).collect()
}

/// Every element within `tolerance`, relative to its size or to the average size where that is more.
#[track_caller]
pub fn close(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    let mean = expected.iter().map(|x| x.abs()).sum::<f32>() / expected.len().max(1) as f32;
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        let error = (f - e).abs();
        assert!(error <= tolerance * e.abs().max(mean), "{what}[{i}]: {f} for {e} (mean size {mean})");
    }
}

/// The error as a whole, relative to the whole: what rounding leaves shrinks among many elements, and a slip in some does not.
#[track_caller]
pub fn close_together(what: &str, found: &[f32], expected: &[f32], tolerance: f64) {
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let error = norm(&mut found.iter().zip(expected).map(|(f, e)| f - e));
    let size = norm(&mut expected.iter().copied());
    println!("{what}: error {:.5} of the whole", error / size);
    assert!(error <= tolerance * size, "{what}: an error of {error} in {size}");
}

/// Plain values out of bytes of any alignment.
pub fn collect<T: bytemuck::AnyBitPattern>(bytes: &[u8]) -> Vec<T> {
    bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect()
}

/// The first lines of every test here: says so and stops where there is no compiler.
pub fn available() -> bool {
    gpu::device().is_some() || on_host()
}

/// As [`available`], for tests that are about the shim itself, or the host in a GPU's place.
pub fn on_host() -> bool {
    if gpu::device().is_some() {
        println!("skipped on a GPU: this is about the kernels on the host");
        return false;
    }
    if compiler().is_none() {
        println!("skipped: no C++ compiler (set CXX) to run the kernels on the host with");
    }
    compiler().is_some()
}

/// One block at a time in the whole process: a block's shared memory is static.
static LAUNCH: Mutex<()> = Mutex::new(());

/// A buffer of a [`Device`].
#[derive(Clone, Copy)]
pub struct Buf(usize);

/// A kernel's argument.
#[derive(Clone, Copy)]
pub enum Arg {
    Buf(Buf),
    Null,
    I32(i32),
    U64(u64),
    F32(f32),
}

impl Arg {
    /// As eight bytes; a buffer's address is the launch's to fill in.
    fn value(self) -> [u8; 8] {
        let word = |bytes: [u8; 4]| [bytes, [0; 4]].concat().try_into().expect("eight bytes");
        match self {
            Arg::Buf(_) | Arg::Null => [0; 8],
            Arg::I32(x) => word(x.to_ne_bytes()),
            Arg::U64(x) => x.to_ne_bytes(),
            Arg::F32(x) => word(x.to_ne_bytes()),
        }
    }
}

/// Nothing was written before or behind a buffer.
fn guarded(i: usize, bytes: &[u8], at: usize, len: usize) -> Result<(), String> {
    match bytes[..at].iter().chain(&bytes[at + len..]).all(|&b| b == 0xff) {
        true => Ok(()),
        false => Err(format!("buffer {i} was written outside its {len} bytes")),
    }
}

impl From<Buf> for Arg {
    fn from(buffer: Buf) -> Self {
        Arg::Buf(buffer)
    }
}
impl From<usize> for Arg {
    fn from(x: usize) -> Self {
        Arg::I32(i32::try_from(x).unwrap())
    }
}
impl From<u64> for Arg {
    fn from(x: u64) -> Self {
        Arg::U64(x)
    }
}
impl From<f32> for Arg {
    fn from(x: f32) -> Self {
        Arg::F32(x)
    }
}

/// `args![a, b, c]`: arguments of a launch.
#[macro_export]
macro_rules! args {
    ($($x:expr),* $(,)?) => { &[$($crate::shim::Arg::from($x)),*] };
}

/// Bytes on each side of a buffer: NaN to whoever reads them, checked after each launch.
const GUARD: usize = 256;

/// Threads upwards, downwards, and shuffled: a kernel whose bits differ has a race.
const ORDERS: [u32; 3] = [0, 1, 7];

/// Where launches go.
enum Target {
    Host(Library),
    /// The kernels of this file on the GPU.
    Gpu(&'static cuda::Device, String),
}

/// Buffers, and a kernel source to launch over them.
pub struct Device {
    target: Target,
    act: Act,
    /// 128-byte aligned; GUARD bytes of 0xff at both ends.
    buffers: Vec<Vec<u128>>,
    lens: Vec<usize>,
}

impl Device {
    /// For the kernels of `kernels/source`.
    pub fn new(source: &str, act: Act) -> Self {
        let target = match gpu::device() {
            Some(device) => Target::Gpu(device, source.to_owned()),
            None => Target::Host(library(source, None, act)),
        };
        Device { target, act, buffers: Vec::new(), lens: Vec::new() }
    }

    /// For kernels of other text, on the host: what the gates themselves are tested with.
    pub fn of_text(name: &str, text: &str, act: Act) -> Self {
        Device { target: Target::Host(compile(name, text, act)), act, buffers: Vec::new(), lens: Vec::new() }
    }

    fn add(&mut self, bytes: &[u8]) -> Buf {
        let words = (bytes.len() + 2 * GUARD).div_ceil(16) + 8;
        let mut buffer = vec![u128::MAX; words];
        let at = Self::start(&buffer);
        bytemuck::cast_slice_mut::<u128, u8>(&mut buffer)[at..at + bytes.len()].copy_from_slice(bytes);
        self.buffers.push(buffer);
        self.lens.push(bytes.len());
        Buf(self.buffers.len() - 1)
    }

    /// Offset of the first byte: aligned, behind the guard.
    fn start(buffer: &[u128]) -> usize {
        let address = buffer.as_ptr() as usize + GUARD;
        GUARD + address.next_multiple_of(128) - address
    }

    pub fn f32(&mut self, values: &[f32]) -> Buf {
        self.add(bytemuck::cast_slice(values))
    }

    pub fn u32(&mut self, values: &[u32]) -> Buf {
        self.add(bytemuck::cast_slice(values))
    }

    pub fn bytes(&mut self, values: &[u8]) -> Buf {
        self.add(values)
    }

    /// Activations, rounded.
    pub fn act(&mut self, values: &[f32]) -> Buf {
        match self.act {
            Act::F32 => self.f32(values),
            Act::Bf16 => {
                let bits: Vec<u16> = values.iter().map(|&x| half::bf16::from_f32(x).to_bits()).collect();
                self.add(bytemuck::cast_slice(&bits))
            }
        }
    }

    /// NaN until written.
    pub fn f32_out(&mut self, len: usize) -> Buf {
        self.add(&vec![0xff; len * 4])
    }

    /// NaN until written.
    pub fn act_out(&mut self, len: usize) -> Buf {
        self.add(&vec![0xff; len * if self.act == Act::F32 { 4 } else { 2 }])
    }

    pub fn read_bytes(&self, Buf(i): Buf) -> &[u8] {
        let at = Self::start(&self.buffers[i]);
        &bytemuck::cast_slice(&self.buffers[i])[at..at + self.lens[i]]
    }

    pub fn read_f32(&self, buffer: Buf) -> Vec<f32> {
        collect(self.read_bytes(buffer))
    }

    pub fn read_u32(&self, buffer: Buf) -> Vec<u32> {
        collect(self.read_bytes(buffer))
    }

    pub fn read_act(&self, buffer: Buf) -> Vec<f32> {
        match self.act {
            Act::F32 => self.read_f32(buffer),
            Act::Bf16 => {
                let bits: Vec<u16> = collect(self.read_bytes(buffer));
                bits.into_iter().map(|b| half::bf16::from_bits(b).to_f32()).collect()
            }
        }
    }

    /// Launches in every order, and panics at what the shim finds: divergence,
    /// writes outside a buffer, bits that depend on the order.
    #[track_caller]
    pub fn launch(&mut self, kernel: &str, grid: [usize; 3], block: usize, shared: usize, args: &[Arg]) {
        self.try_launch(kernel, grid, block, shared, args).unwrap_or_else(|error| panic!("{kernel}: {error}"));
    }

    /// As [`Device::launch`], with what the shim found.
    pub fn try_launch(
        &mut self,
        kernel: &str,
        grid: [usize; 3],
        block: usize,
        shared: usize,
        args: &[Arg],
    ) -> Result<(), String> {
        let library = match &self.target {
            Target::Host(library) => *library,
            Target::Gpu(device, file) => {
                let file = file.clone();
                return self.launch_on_gpu(device, &file, kernel, grid, block, shared, args);
            }
        };
        let _alone = LAUNCH.lock().unwrap_or_else(|broken| broken.into_inner());
        // Restored byte by byte into the same places, so that addresses and their alignment stay.
        let before = self.buffers.clone();
        let mut first: Option<Vec<Vec<u128>>> = None;
        for order in ORDERS {
            for (buffer, before) in self.buffers.iter_mut().zip(&before) {
                buffer.copy_from_slice(before);
            }
            self.launch_once(library, kernel, grid, block, shared, args, order)?;
            for (i, buffer) in self.buffers.iter().enumerate() {
                guarded(i, bytemuck::cast_slice(buffer), Self::start(buffer), self.lens[i])?;
            }
            match &first {
                None => first = Some(self.buffers.clone()),
                Some(first) if *first != self.buffers => return Err("the threads' order changes the result".into()),
                Some(_) => {}
            }
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments)]
    fn launch_on_gpu(
        &mut self,
        device: &cuda::Device,
        file: &str,
        kernel: &str,
        grid: [usize; 3],
        block: usize,
        shared: usize,
        args: &[Arg],
    ) -> Result<(), String> {
        let guard = [0xff; GUARD];
        let mut buffers: Vec<Vec<u8>> =
            (0..self.buffers.len()).map(|i| [&guard, self.read_bytes(Buf(i)), &guard].concat()).collect();
        let pointers: Vec<(usize, usize)> = args
            .iter()
            .enumerate()
            .filter_map(|(at, arg)| if let Arg::Buf(Buf(i)) = arg { Some((at, *i)) } else { None })
            .collect();
        let mut values: Vec<[u8; 8]> = args.iter().map(|arg| arg.value()).collect();
        let grid = Grid { blocks: grid.map(|n| n as u32), threads: block as u32, shared: shared as u32 };
        gpu::launch(device, file, self.act, kernel, grid, &mut values, &pointers, &mut buffers, GUARD)?;
        for (i, bytes) in buffers.iter().enumerate() {
            guarded(i, bytes, GUARD, self.lens[i])?;
            let at = Self::start(&self.buffers[i]);
            let whole: &mut [u8] = bytemuck::cast_slice_mut(&mut self.buffers[i]);
            whole[at..at + self.lens[i]].copy_from_slice(&bytes[GUARD..GUARD + self.lens[i]]);
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments)]
    fn launch_once(
        &mut self,
        library: Library,
        kernel: &str,
        grid: [usize; 3],
        block: usize,
        shared: usize,
        args: &[Arg],
        order: u32,
    ) -> Result<(), String> {
        let mut values: Vec<[u8; 8]> = args.iter().map(|arg| arg.value()).collect();
        for (value, arg) in values.iter_mut().zip(args) {
            if let Arg::Buf(Buf(i)) = *arg {
                *value = (self.buffers[i].as_mut_ptr() as usize + Self::start(&self.buffers[i])).to_ne_bytes();
            }
        }
        let grid = Grid { blocks: grid.map(|n| n as u32), threads: block as u32, shared: shared as u32 };
        call(library, kernel, grid, &mut values, order)
    }
}

/// Runs a kernel of an embedded file, or of another text in its place, in its bf16 form, over addresses of the host.
/// Threads run in the order that `order` names.
pub fn run_on_host(
    file: &str,
    text: Option<&str>,
    kernel: &str,
    grid: Grid,
    values: &mut [[u8; 8]],
    order: usize,
) -> Result<(), String> {
    let library = library(file, text, Act::Bf16);
    let _alone = LAUNCH.lock().unwrap_or_else(|broken| broken.into_inner());
    call(library, kernel, grid, values, ORDERS[order % ORDERS.len()])
}

fn call(library: Library, kernel: &str, grid: Grid, values: &mut [[u8; 8]], order: u32) -> Result<(), String> {
    let mut pointers: Vec<*mut c_void> = values.iter_mut().map(|v| v.as_mut_ptr().cast()).collect();
    let (name, mut message) = (CString::new(kernel).unwrap(), [0 as c_char; 512]);
    // SAFETY: the test gives the kernel the arguments it declares; every pointer lives until the call returns.
    let failed = unsafe {
        (library.0)(
            name.as_ptr(),
            grid.blocks.as_ptr(),
            [grid.threads, 1, 1].as_ptr(),
            grid.shared,
            pointers.as_mut_ptr(),
            order,
            message.as_mut_ptr(),
            message.len(),
        )
    };
    // SAFETY: the shim ends its message with a zero.
    let message = unsafe { CStr::from_ptr(message.as_ptr()) };
    if failed == 0 { Ok(()) } else { Err(message.to_string_lossy().into_owned()) }
}
