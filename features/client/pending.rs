//! A call under way.

use super::error::Result;
use super::port::Boxed;
use crate::sys::park::block_on;
use alloc::boxed::Box;
use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

/// A call: a future for what it comes to. [`wait`](Self::wait) waits on the calling thread instead.
///
/// It does nothing before it is polled, but for the requests of a [`TrainingClient`](super::TrainingClient), which are
/// submitted in the order of the calls whether anybody waits or not.
///
/// # Cancel safety
/// Dropping it cancels the call: nothing more is sent for it, but for the submission of a request that is under way,
/// which goes to its end. What the backend has taken already it may still carry out.
#[must_use = "a call is carried out when it is awaited"]
pub struct Pending<T>(Boxed<'static, Result<T>>);

impl<T> Pending<T> {
    pub(super) fn new(call: impl Future<Output = Result<T>> + Send + 'static) -> Self {
        Self(Box::pin(call))
    }

    /// Waits on the calling thread, for programs without an executor.
    ///
    /// On a thread of an executor it blocks that one, so that the call may never end: await it there. With the runtime
    /// `Tokio` it works on threads that have entered tokio's runtime, and are not its own.
    ///
    /// # Errors
    /// As the call.
    ///
    /// # Panics
    /// As the call.
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
