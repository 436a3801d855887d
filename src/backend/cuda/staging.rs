//! Copies between the host and the GPU, by way of pinned memory.
//!
//! The GPU reads and writes pinned memory by itself, at the full speed of the bus. Of other memory nobody promises when an
//! asynchronous copy has read it: a driver may take the bytes before the call returns, and where the GPU reaches all of
//! the host's memory (GH200, HMM) it may read them when its turn comes, after their owner has reused them. So what is
//! handed over is put here first. Two halves take turns: a copy lies behind the one before it as long as there is room,
//! and a half is written again once the GPU has passed all that lay in it; while the GPU copies one, the host fills the other.

use std::ops::Range;

/// Two halves of pinned memory, and a GPU that copies from and to them in the order in which it is told.
pub(super) trait Bus {
    type Fault;

    /// A part of the half's [`Staging::HALF`] bytes. What was issued on this part must be over.
    fn memory(&mut self, half: usize, part: Range<usize>) -> &mut [u8];

    /// Issues a copy of a part of the half to the GPU.
    ///
    /// # Safety
    /// The range on the GPU lies within an allocation.
    unsafe fn send(&mut self, half: usize, part: Range<usize>, to: u64) -> Result<(), Self::Fault>;

    /// Issues a copy of `len` bytes of the GPU to the half's beginning.
    ///
    /// # Safety
    /// As [`Bus::send`].
    unsafe fn fetch(&mut self, half: usize, from: u64, len: usize) -> Result<(), Self::Fault>;

    /// Waits for the last copy that was issued on the half.
    fn wait(&mut self, half: usize) -> Result<(), Self::Fault>;
}

/// Copies through the two halves in turn.
pub(super) struct Staging<B> {
    bus: B,
    /// Whether the GPU may still be copying from a half.
    busy: [bool; 2],
    /// The half in use, and how much of it is.
    half: usize,
    used: usize,
}

impl<B: Bus> Staging<B> {
    /// Bytes of a half: long enough to fill the bus, little beside a model.
    pub const HALF: usize = 4 << 20;

    pub fn new(bus: B) -> Self {
        Staging { bus, busy: [false; 2], half: 0, used: 0 }
    }

    /// Copies to the GPU; `bytes` may be reused at once.
    ///
    /// # Safety
    /// The range on the GPU lies within an allocation.
    pub unsafe fn write(&mut self, to: u64, bytes: &[u8]) -> Result<(), B::Fault> {
        // In one piece where that is possible: a call of the driver costs more than the room.
        if self.used + bytes.len() > Self::HALF {
            self.turn()?;
        }
        for (i, piece) in bytes.chunks(Self::HALF).enumerate() {
            if i > 0 {
                self.turn()?;
            }
            let part = self.used..self.used + piece.len();
            self.bus.memory(self.half, part.clone()).copy_from_slice(piece);
            // Before it is issued: a call that fails may have issued it.
            (self.busy[self.half], self.used) = (true, part.end);
            // SAFETY: a part of the caller's range.
            unsafe { self.bus.send(self.half, part, to + (i * Self::HALF) as u64)? };
        }
        Ok(())
    }

    /// Copies from the GPU, after everything issued before.
    ///
    /// # Safety
    /// As [`Staging::write`].
    pub unsafe fn read(&mut self, from: u64, bytes: &mut [u8]) -> Result<(), B::Fault> {
        let mut fetched: Option<(usize, &mut [u8])> = None;
        for (i, piece) in bytes.chunks_mut(Self::HALF).enumerate() {
            self.turn()?;
            (self.busy[self.half], self.used) = (true, piece.len());
            // SAFETY: a part of the caller's range.
            unsafe { self.bus.fetch(self.half, from + (i * Self::HALF) as u64, piece.len())? };
            // While the GPU copies this one, the host copies the one before.
            self.land(fetched.replace((self.half, piece)))?;
        }
        self.land(fetched)
    }

    /// Copies what the GPU has put into a half to where it belongs.
    fn land(&mut self, fetched: Option<(usize, &mut [u8])>) -> Result<(), B::Fault> {
        let Some((half, piece)) = fetched else { return Ok(()) };
        self.bus.wait(half)?;
        self.busy[half] = false;
        piece.copy_from_slice(self.bus.memory(half, 0..piece.len()));
        Ok(())
    }

    /// Goes on to the other half, once the GPU is done with it.
    fn turn(&mut self) -> Result<(), B::Fault> {
        let next = 1 - self.half;
        if self.busy[next] {
            self.bus.wait(next)?;
            self.busy[next] = false;
        }
        (self.half, self.used) = (next, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    enum Issued {
        Send(u64, Range<usize>),
        Fetch(u64, usize),
    }

    /// A GPU as lazy as it may be: a copy happens when it is waited for, or when a later one is.
    struct Lazy {
        halves: [Vec<u8>; 2],
        device: Vec<u8>,
        issued: Vec<(usize, Issued)>,
        waits: usize,
        dead: bool,
    }

    impl Lazy {
        fn new(len: usize) -> Self {
            let halves = [0; 2].map(|_| vec![0xff; Staging::<Lazy>::HALF]);
            Lazy { halves, device: vec![0; len], issued: Vec::new(), waits: 0, dead: false }
        }

        fn settle(&mut self, count: usize) {
            for (half, issued) in self.issued.drain(..count) {
                match issued {
                    Issued::Send(to, part) => {
                        self.device[to as usize..][..part.len()].copy_from_slice(&self.halves[half][part])
                    }
                    Issued::Fetch(from, len) => {
                        self.halves[half][..len].copy_from_slice(&self.device[from as usize..][..len]);
                    }
                }
            }
        }
    }

    impl Bus for Lazy {
        type Fault = &'static str;

        fn memory(&mut self, half: usize, part: Range<usize>) -> &mut [u8] {
            let overlaps = |(used, issued): &(usize, Issued)| {
                let other = match issued {
                    Issued::Send(_, other) => other.clone(),
                    Issued::Fetch(_, len) => 0..*len,
                };
                *used == half && part.start < other.end && other.start < part.end
            };
            assert!(!self.issued.iter().any(overlaps), "the GPU still copies this part");
            &mut self.halves[half][part]
        }

        unsafe fn send(&mut self, half: usize, part: Range<usize>, to: u64) -> Result<(), &'static str> {
            self.issued.push((half, Issued::Send(to, part)));
            Ok(())
        }

        unsafe fn fetch(&mut self, half: usize, from: u64, len: usize) -> Result<(), &'static str> {
            self.issued.push((half, Issued::Fetch(from, len)));
            Ok(())
        }

        fn wait(&mut self, half: usize) -> Result<(), &'static str> {
            self.waits += 1;
            let last = self.issued.iter().rposition(|(used, _)| *used == half);
            self.settle(last.map_or(0, |last| last + 1));
            if self.dead { Err("the device is dead") } else { Ok(()) }
        }
    }

    #[test]
    fn bytes_of_any_length_arrive_and_come_back() {
        let half = Staging::<Lazy>::HALF;
        let most = 3 * half + 5;
        let mut staging = Staging::new(Lazy::new(most + 7));
        for (round, len) in [1, half - 1, half, half + 1, 2 * half, most].into_iter().enumerate() {
            let bytes: Vec<u8> = (0..len).map(|i| (i * (round + 3) / 7 + round) as u8).collect();
            let mut found = vec![0; len];
            // SAFETY: the device of the test checks its ranges.
            unsafe {
                staging.write(7, &bytes).unwrap();
                staging.read(7, &mut found).unwrap();
            }
            assert!(found == bytes, "{len} bytes");
        }
        assert!(staging.bus.device[..7].iter().all(|&byte| byte == 0), "nothing before them is touched");
    }

    #[test]
    fn a_write_of_a_half_and_many_short_ones_wait_for_nothing() {
        let half = Staging::<Lazy>::HALF;
        let mut staging = Staging::new(Lazy::new(2 * half));
        // SAFETY: as above.
        unsafe { staging.write(0, &vec![1; half]).unwrap() };
        for i in 0..1000 {
            // SAFETY: as above.
            unsafe { staging.write(i, &[2; 100]).unwrap() };
        }
        assert_eq!(staging.bus.waits, 0);
    }

    #[test]
    fn short_copies_keep_their_order_and_bytes_however_many_there_are() {
        let mut staging = Staging::new(Lazy::new(100_000));
        let mut want = vec![0; 100_000];
        // More than both halves hold, several times over.
        for i in 0..3000_usize {
            let (at, len) = (i * 7919 % 90_000, 1 + i * 31 % 9000);
            let bytes = vec![i as u8; len];
            // SAFETY: as above.
            unsafe { staging.write(at as u64, &bytes).unwrap() };
            want[at..at + len].copy_from_slice(&bytes);
        }
        let mut found = vec![0; want.len()];
        // SAFETY: as above.
        unsafe { staging.read(0, &mut found).unwrap() };
        assert!(found == want);
    }

    #[test]
    fn a_device_that_dies_is_told_to_whoever_copies() {
        let mut staging = Staging::new(Lazy::new(8));
        staging.bus.dead = true;
        // SAFETY: as above.
        let read = unsafe { staging.read(0, &mut [0; 8]) };
        assert_eq!(read, Err("the device is dead"));
    }
}
