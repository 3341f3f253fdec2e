//! Spawning tasks on a session's executor, and blocking on its driver.

use super::shared::Shared;
use crate::spawner::SpawnError;
use alloc::boxed::Box;
use core::future::Future;
use core::pin::Pin;

#[cfg(has_arc)]
use crate::spawner::Spawner;
#[cfg(feature = "std")]
use crate::spawner::WouldDeadlock;
#[cfg(has_arc)]
use alloc::sync::Arc;

/// A boxed future, for trait objects.
pub(crate) type BoxFuture<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

impl Shared {
    /// Whether dropping the reporter here waits for the driver.
    #[cfg(feature = "std")]
    pub(crate) fn waits_on_drop(&self) -> bool {
        // In the child of a fork the executor is the parent's, and so is its lock, perhaps held forever.
        !self.is_forked()
            && self
                .spawner
                .as_ref()
                .is_some_and(|spawner| spawner.waits_on_drop())
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
        // A wait inside the session's own work would wait for itself.
        if self.host.own_work.is_here() {
            return Err(WouldDeadlock);
        }
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
    fn waits_on_drop(&self) -> bool;
    #[cfg(feature = "std")]
    fn block_in_place(&self, is_here: bool, wait: &mut dyn FnMut()) -> Result<(), WouldDeadlock>;
}

#[cfg(has_arc)]
impl<S: Spawner> AnySpawner for Arc<S> {
    fn spawn(&self, task: BoxFuture<'static>) -> Result<(), SpawnError> {
        S::spawn(self, task)
    }

    #[cfg(feature = "std")]
    fn waits_on_drop(&self) -> bool {
        S::waits_on_drop(self)
    }

    #[cfg(feature = "std")]
    fn block_in_place(&self, is_here: bool, wait: &mut dyn FnMut()) -> Result<(), WouldDeadlock> {
        S::block_in_place(self, is_here, wait)
    }
}
