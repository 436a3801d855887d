//! Who answers `generate` and `eval`, once it is open.

use super::servers::ServedModel;
use crate::engine::Engine;
use crate::engine::vllm::VllmEngine;

/// An engine that is open; servers have more to tell than others.
pub(super) enum OpenEngine {
    Local(Box<dyn Engine>),
    Servers(Box<VllmEngine>),
    Policy(Box<ServedModel>),
}

impl OpenEngine {
    pub fn engine(&self) -> &dyn Engine {
        match self {
            OpenEngine::Local(engine) => &**engine,
            OpenEngine::Servers(engine) => &**engine,
            OpenEngine::Policy(engine) => &**engine,
        }
    }

    pub fn servers(&self) -> Option<&VllmEngine> {
        match self {
            OpenEngine::Local(_) => None,
            OpenEngine::Servers(engine) => Some(engine),
            OpenEngine::Policy(engine) => Some(engine.servers()),
        }
    }
}
