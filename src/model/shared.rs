//! One model for several users.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::Model;
use crate::backend::{Backend, Cpu};

/// A model that an engine samples from and a trainer updates in turn, with no copy between them. Clones are the same
/// model. The trainer holds the lock only while it computes: never while it asks for rollouts or an evaluation.
///
/// A panic while it was held does not make the weights less true, so the lock outlives it.
pub struct SharedModel<B: Backend = Cpu>(Arc<RwLock<Model<B>>>);

impl<B: Backend> SharedModel<B> {
    /// Shares a model.
    pub fn new(model: Model<B>) -> Self {
        SharedModel(Arc::new(RwLock::new(model)))
    }

    /// The model, for reading, by as many as want to.
    pub fn read(&self) -> RwLockReadGuard<'_, Model<B>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The model, for one who changes it.
    pub fn write(&self) -> RwLockWriteGuard<'_, Model<B>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: Backend> Clone for SharedModel<B> {
    fn clone(&self) -> Self {
        SharedModel(Arc::clone(&self.0))
    }
}
