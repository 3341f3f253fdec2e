//! A call in progress.

use super::block_on::block_on;
use super::error::Result;
use super::io::Boxed;
use alloc::boxed::Box;
use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

/// A call in progress: await it, or [`wait`](Self::wait) for it on the calling thread.
///
/// It does nothing until it is polled. The exception is a request of a [`TrainingClient`](super::TrainingClient), which
/// is submitted in the order of the calls without being polled.
///
/// # Cancel safety
/// Dropping it cancels the call: nothing more is sent for it, except that a [`TrainingClient`](super::TrainingClient)
/// completes a submission that has begun. The backend may still carry out a request that it has received.
#[must_use = "a call does nothing until it is awaited"]
pub struct Pending<T>(Boxed<'static, Result<T>>);

impl<T> Pending<T> {
    pub(super) fn new(call: impl Future<Output = Result<T>> + Send + 'static) -> Self {
        Self(Box::pin(call))
    }

    /// Waits on the calling thread, for programs without an executor.
    ///
    /// On an executor's own thread, await the call instead: `wait` blocks the thread that may have to run it, possibly
    /// forever. With the runtime `Tokio`, call it on a thread that has entered tokio's runtime but is not one of its
    /// workers.
    ///
    /// # Errors
    /// Those of the call.
    ///
    /// # Panics
    /// If the call panics.
    pub fn wait(self) -> Result<T> {
        block_on(self)
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

impl<T> fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}
