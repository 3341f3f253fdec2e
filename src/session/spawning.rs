//! Spawning tasks on a session's executor, and blocking on its driver.

use super::shared::Shared;
use crate::spawner::SpawnError;
use alloc::boxed::Box;
use core::future::Future;
use core::pin::Pin;

#[cfg(has_arc)]
use crate::spawner::Spawner;
#[cfg(feature = "std")]
use crate::spawner::{Placement, WouldDeadlock};
#[cfg(has_arc)]
use alloc::sync::Arc;

/// A boxed future, for trait objects.
pub(crate) type BoxFuture<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

impl Shared {
    /// Whether the driver has a dedicated thread.
    #[cfg(feature = "std")]
    pub(crate) fn has_dedicated_thread(&self) -> bool {
        self.spawner
            .as_ref()
            .is_some_and(|spawner| spawner.placement() == Placement::Dedicated)
    }

    pub(crate) fn spawn(&self, task: BoxFuture<'static>) -> Result<(), SpawnError> {
        match &self.spawner {
            _ if self.is_forked() => Err(SpawnError::new(
                "the executor is the parent process's: open a session after the fork",
            )),
            Some(spawner) => spawner.spawn(task),
            None => Err(SpawnError::new(
                "the session was built without a spawner: set one with runtime() or spawner()",
            )),
        }
    }

    /// Runs `wait` on the calling thread in the way that the executor requires.
    #[cfg(feature = "std")]
    pub(crate) fn block_in_place(&self, wait: &mut dyn FnMut()) -> Result<(), WouldDeadlock> {
        let is_here = self.is_driven_here();
        match &self.spawner {
            Some(spawner) => spawner.block_in_place(is_here, wait),
            None if is_here => Err(WouldDeadlock),
            None => {
                wait();
                Ok(())
            }
        }
    }
}

/// A [`Spawner`] without its type.
pub(crate) trait AnySpawner: Send + Sync {
    fn spawn(&self, task: BoxFuture<'static>) -> Result<(), SpawnError>;
    #[cfg(feature = "std")]
    fn placement(&self) -> Placement;
    #[cfg(feature = "std")]
    fn block_in_place(&self, is_here: bool, wait: &mut dyn FnMut()) -> Result<(), WouldDeadlock>;
}

#[cfg(has_arc)]
impl<S: Spawner> AnySpawner for Arc<S> {
    fn spawn(&self, task: BoxFuture<'static>) -> Result<(), SpawnError> {
        S::spawn(self, task)
    }

    #[cfg(feature = "std")]
    fn placement(&self) -> Placement {
        S::placement(self)
    }

    #[cfg(feature = "std")]
    fn block_in_place(&self, is_here: bool, wait: &mut dyn FnMut()) -> Result<(), WouldDeadlock> {
        S::block_in_place(self, is_here, wait)
    }
}
