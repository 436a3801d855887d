//! Long copies between the host and the GPU, by way of pinned memory.
//!
//! The GPU reads and writes pinned memory by itself, at the full speed of the bus; from other memory the driver copies
//! piece by piece through a place of its own, and the caller waits for it. Two halves take turns here: while the GPU
//! copies one, the host copies the other.

/// Two halves of pinned memory, and a GPU that copies from and to them in the order in which it is told.
pub(super) trait Bus {
    type Fault;

    /// The half's memory, [`Staging::HALF`] bytes. What was issued on the half must be over.
    fn memory(&mut self, half: usize) -> &mut [u8];

    /// Issues a copy of the half's first `len` bytes to the GPU.
    ///
    /// # Safety
    /// The range on the GPU lies within an allocation.
    unsafe fn send(&mut self, half: usize, to: u64, len: usize) -> Result<(), Self::Fault>;

    /// Issues a copy of `len` bytes of the GPU to the half.
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
    next: usize,
}

impl<B: Bus> Staging<B> {
    /// Bytes of a half: long enough to fill the bus, little beside a model.
    pub const HALF: usize = 4 << 20;

    pub fn new(bus: B) -> Self {
        Staging { bus, busy: [false; 2], next: 0 }
    }

    /// Copies to the GPU; `bytes` may be reused at once.
    ///
    /// # Safety
    /// The range on the GPU lies within an allocation.
    pub unsafe fn write(&mut self, to: u64, bytes: &[u8]) -> Result<(), B::Fault> {
        for (i, piece) in bytes.chunks(Self::HALF).enumerate() {
            let half = self.take()?;
            self.bus.memory(half)[..piece.len()].copy_from_slice(piece);
            // SAFETY: a part of the caller's range.
            unsafe { self.bus.send(half, to + (i * Self::HALF) as u64, piece.len())? };
            self.busy[half] = true;
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
            let half = self.take()?;
            // SAFETY: a part of the caller's range.
            unsafe { self.bus.fetch(half, from + (i * Self::HALF) as u64, piece.len())? };
            self.busy[half] = true;
            // While the GPU copies this one, the host copies the one before.
            self.land(fetched.replace((half, piece)))?;
        }
        self.land(fetched)
    }

    /// Copies what the GPU has put into a half to where it belongs.
    fn land(&mut self, fetched: Option<(usize, &mut [u8])>) -> Result<(), B::Fault> {
        let Some((half, piece)) = fetched else { return Ok(()) };
        self.bus.wait(half)?;
        self.busy[half] = false;
        piece.copy_from_slice(&self.bus.memory(half)[..piece.len()]);
        Ok(())
    }

    /// The half whose turn it is, once the GPU is done with it.
    fn take(&mut self) -> Result<usize, B::Fault> {
        let half = self.next;
        self.next = 1 - half;
        if std::mem::take(&mut self.busy[half]) {
            self.bus.wait(half)?;
        }
        Ok(half)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    enum Issued {
        Send(u64, usize),
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
                    Issued::Send(to, len) => {
                        self.device[to as usize..][..len].copy_from_slice(&self.halves[half][..len])
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

        fn memory(&mut self, half: usize) -> &mut [u8] {
            assert!(self.issued.iter().all(|(used, _)| *used != half), "the GPU still copies this half");
            &mut self.halves[half]
        }

        unsafe fn send(&mut self, half: usize, to: u64, len: usize) -> Result<(), &'static str> {
            self.issued.push((half, Issued::Send(to, len)));
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
    fn a_write_of_two_halves_waits_for_nothing() {
        let half = Staging::<Lazy>::HALF;
        let mut staging = Staging::new(Lazy::new(2 * half));
        // SAFETY: as above.
        unsafe { staging.write(0, &vec![1; 2 * half]).unwrap() };
        assert_eq!(staging.bus.waits, 0);
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
