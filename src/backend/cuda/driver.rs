//! What the operations need of a GPU, and no more.
//!
//! [`Device`](super::device::Device) is the one with a GPU behind it. The tests have another that runs the
//! kernels' own sources on the host, so that every launch of every operation (its grid, its arguments, the
//! sizes of its buffers) is tried on machines without a GPU.

use super::matmul::Product;
use crate::error::Result;

/// Element type behind a pointer, as the kernels name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `act`: bf16.
    Act,
    /// `float`.
    F32,
    /// `double`.
    F64,
    /// `u32`.
    U32,
}

/// A value that device memory holds.
pub trait Element: bytemuck::Pod {
    /// How kernels name the type.
    const KIND: Kind;
}

impl Element for half::bf16 {
    const KIND: Kind = Kind::Act;
}
impl Element for f32 {
    const KIND: Kind = Kind::F32;
}
impl Element for f64 {
    const KIND: Kind = Kind::F64;
}
impl Element for u32 {
    const KIND: Kind = Kind::U32;
}

/// A range of device memory, as an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pointer {
    /// Type of what lies there; a launch compares it with the kernel's declaration.
    pub kind: Kind,
    /// 0 where the kernel takes "none".
    pub address: u64,
    /// How far the kernel reads or writes from there.
    pub bytes: usize,
    /// Whether the kernel may write.
    pub mutable: bool,
}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arg {
    /// `T*`, or `const T*` where the kernel only reads.
    Pointer(Pointer),
    /// `int`.
    Int(i32),
    /// `u32`.
    U32(u32),
    /// `u64`.
    U64(u64),
    /// `float`.
    Float(f32),
}

impl Arg {
    /// A pointer to nothing.
    pub fn null(kind: Kind) -> Self {
        Arg::Pointer(Pointer { kind, address: 0, bytes: 0, mutable: false })
    }

    /// The value as eight bytes, of which a launch takes as many as the type has.
    pub fn bytes(self) -> [u8; 8] {
        let word = |bytes: [u8; 4]| {
            let mut all = [0; 8];
            all[..4].copy_from_slice(&bytes);
            all
        };
        match self {
            Arg::Pointer(pointer) => pointer.address.to_ne_bytes(),
            Arg::Int(x) => word(x.to_ne_bytes()),
            Arg::U32(x) => word(x.to_ne_bytes()),
            Arg::U64(x) => x.to_ne_bytes(),
            Arg::Float(x) => word(x.to_ne_bytes()),
        }
    }
}

/// Shape of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Along x, y and z; none is 0.
    pub blocks: [u32; 3],
    /// Of a block, along x: at most 1,024.
    pub threads: u32,
    /// Dynamic shared memory of a block, in bytes.
    pub shared: u32,
}

/// Memory and work of one GPU; work is done in the order it is issued.
pub trait Driver: Send + Sync {
    /// Zeroed memory, 256-byte aligned.
    ///
    /// # Errors
    /// Where there is not enough.
    fn allocate(&self, bytes: usize) -> Result<u64>;

    /// Zeroed memory of the host, 256-byte aligned, that kernels read and write over the bus: for what is touched once
    /// a step and need not take the device's.
    ///
    /// # Errors
    /// Where there is not enough, or the device cannot reach it.
    fn allocate_host(&self, bytes: usize) -> Result<u64>;

    /// Gives memory back once everything issued before is done.
    ///
    /// # Safety
    /// `address` is of [`Driver::allocate`] or [`Driver::allocate_host`] and is not used again.
    unsafe fn free(&self, address: u64);

    /// Copies from the host; `bytes` may be reused at once.
    ///
    /// # Safety
    /// The range lies within an allocation.
    ///
    /// # Errors
    /// What the driver reports: an earlier failure, as a rule.
    unsafe fn write(&self, to: u64, bytes: &[u8]) -> Result<()>;

    /// Copies to the host, waiting for everything issued before.
    ///
    /// # Safety
    /// As [`Driver::write`].
    ///
    /// # Errors
    /// As [`Driver::write`].
    unsafe fn read(&self, from: u64, bytes: &mut [u8]) -> Result<()>;

    /// Sets bytes to 0.
    ///
    /// # Safety
    /// As [`Driver::write`].
    ///
    /// # Errors
    /// As [`Driver::write`].
    unsafe fn zero(&self, at: u64, bytes: usize) -> Result<()>;

    /// Issues kernel `name` of an embedded file.
    ///
    /// # Safety
    /// The arguments are those that the kernel declares; pointers lie in live allocations that are as long as they say.
    ///
    /// # Errors
    /// Where the kernel does not compile or the launch is refused.
    unsafe fn launch(&self, file: &str, name: &'static str, grid: Grid, args: &[Arg]) -> Result<()>;

    /// Issues a matrix product of device addresses; `false` where the library has no algorithm for the shape, which
    /// is the caller's to compute then.
    ///
    /// # Safety
    /// Each address is that of as many elements of its type as the product takes; c is not a or b.
    ///
    /// # Errors
    /// Where the library is missing or refuses to run.
    unsafe fn multiply(&self, product: &Product, a: u64, b: u64, c: u64) -> Result<bool>;

    /// From here on launches, products and zeroing are recorded and not done. Memory is neither taken nor given back,
    /// nothing is copied and nothing waited for until [`Driver::end_recording`].
    ///
    /// # Errors
    /// Where the device cannot record.
    fn begin_recording(&self) -> Result<()>;

    /// Ends recording, whatever came of it; names what was recorded.
    ///
    /// # Errors
    /// Where something issued cannot be recorded.
    fn end_recording(&self) -> Result<u64>;

    /// Issues recorded work, with the arguments and addresses it was recorded with.
    ///
    /// # Safety
    /// Every allocation that the work names is live, and is the one it was when it was recorded.
    ///
    /// # Errors
    /// What the driver reports.
    unsafe fn replay(&self, recorded: u64) -> Result<()>;

    /// Recorded work that is not replayed again.
    fn forget(&self, recorded: u64);

    /// Waits for everything issued.
    ///
    /// # Errors
    /// What went wrong on the way: an illegal access, an ECC error.
    fn synchronize(&self) -> Result<()>;

    /// Free and total bytes of memory.
    ///
    /// # Errors
    /// Where the driver does not tell.
    fn memory(&self) -> Result<(usize, usize)>;
}
