//! Work as a count of steps, never as time: the same input costs the same on any machine.

/// Why the rule gave up on an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The step budget is spent.
    Budget,
    /// The value is not defined here (a pole, a branch the point misses).
    Undefined,
    /// This evaluator has no such operation.
    Unsupported,
}

/// What is left of the step budget. One step is about one nanosecond to ten. It has no copy, so that no work goes
/// uncounted.
#[derive(Debug)]
pub struct Budget {
    left: u64,
}

impl Budget {
    /// A budget of so many steps.
    pub fn new(steps: u64) -> Self {
        Budget { left: steps }
    }

    /// Pays for work *before* it is done.
    #[inline]
    pub fn charge(&mut self, steps: u64) -> Result<(), Stop> {
        if steps > self.left {
            self.left = 0;
            return Err(Stop::Budget);
        }
        self.left -= steps;
        Ok(())
    }

    /// How many steps are left.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// True once a charge was refused.
    pub fn spent(&self) -> bool {
        self.left == 0
    }
}
