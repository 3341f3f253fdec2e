//! Blocking the calling thread on a future.

use crate::sys::park::Parker;
use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll};

/// Runs a future to completion on the calling thread.
pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let (parker, waker) = Parker::current();
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => parker.park(None),
        }
    }
}
