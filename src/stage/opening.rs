//! Who answers `generate` and `eval`, once it is open.

use super::served::Served;
use crate::engine::Engine;
use crate::engine::vllm::VllmEngine;

/// An engine that is open; servers have more to tell than others.
pub(super) enum Opening {
    Here(Box<dyn Engine>),
    Servers(Box<VllmEngine>),
    Policy(Box<Served>),
}

impl Opening {
    pub fn engine(&self) -> &dyn Engine {
        match self {
            Opening::Here(engine) => &**engine,
            Opening::Servers(engine) => &**engine,
            Opening::Policy(engine) => &**engine,
        }
    }

    pub fn servers(&self) -> Option<&VllmEngine> {
        match self {
            Opening::Here(_) => None,
            Opening::Servers(engine) => Some(engine),
            Opening::Policy(engine) => Some(engine.servers()),
        }
    }
}
