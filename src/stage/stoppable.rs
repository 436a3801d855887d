//! An engine that stops when the user does.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::engine::{Engine, EngineInfo, Generated, Request};
use crate::error::{Error, Result};

/// Fails with [`Error::interrupted`] at the next answer after Ctrl-C, and takes no request on from then.
pub struct Stoppable<'a> {
    pub engine: &'a dyn Engine,
    pub stop: &'a AtomicBool,
}

impl Engine for Stoppable<'_> {
    fn info(&self) -> EngineInfo {
        self.engine.info()
    }

    fn available(&self, request: &Request) -> Option<usize> {
        self.engine.available(request)
    }

    fn generate(
        &self,
        requests: &mut (dyn Iterator<Item = Request> + Send),
        sink: &mut (dyn FnMut(Generated) -> Result<()> + Send),
    ) -> Result<()> {
        let stopped = || self.stop.load(Ordering::Relaxed);
        let mut requests = requests.take_while(|_| !stopped());
        self.engine.generate(&mut requests, &mut |generated| match stopped() {
            true => Err(Error::interrupted()),
            false => sink(generated),
        })?;
        // Requests that were not taken on have no answers.
        if stopped() { Err(Error::interrupted()) } else { Ok(()) }
    }
}
