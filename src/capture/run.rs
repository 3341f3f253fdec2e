//! Running blocks and futures under capture, and reporting their failures.

use super::OnError;
use crate::event::exception::AnyError;

#[cfg(feature = "std")]
pub(super) use with_panics::*;
#[cfg(not(feature = "std"))]
pub(super) use without_panics::*;

/// A failure as an error that can be logged.
pub(super) type Failure<'a> = dyn AnyError + 'a;

#[cfg(feature = "std")]
mod with_panics {
    use super::{Failure, OnError};
    use crate::capture::frames::{Fingerprint, Frame, MAX_LOGGED, mark_logged};
    use crate::capture::panicked::{Panicked, message};
    use crate::capture::unclaimed;
    use crate::event::exception::chain;
    use crate::session::handle::Handle;
    use crate::sys::panics;
    use alloc::vec::Vec;
    use core::future::{Future, poll_fn};
    use core::panic::AssertUnwindSafe;
    use core::pin::pin;
    use core::task::Poll;
    use std::panic::{catch_unwind, resume_unwind};
    use std::thread;

    /// The session that is current while a captured future is polled, if the capture decides that.
    pub(in crate::capture) type Scope = Option<Handle>;

    /// The result of a captured future, before it is passed on to the caller.
    pub(in crate::capture) struct Completion<R> {
        result: thread::Result<R>,
        /// Of the failure, for the enclosing captures.
        fingerprint: Option<Fingerprint>,
    }

    impl<R> Completion<R> {
        /// Returns the value, or resumes the panic.
        #[inline]
        pub(in crate::capture) fn resume(self) -> R {
            self.fingerprint.into_iter().for_each(mark_logged);
            match self.result {
                Ok(value) => value,
                Err(payload) => resume_unwind(payload),
            }
        }
    }

    /// Runs `work`, and returns or panics as it did. Calls `report` with a failure and whether it has already been
    /// logged.
    #[inline]
    pub(in crate::capture) fn run_block<R>(
        handle: &Handle,
        work: impl FnOnce() -> R,
        inspect: impl FnOnce(&R, OnError<'_>),
        mut report: impl FnMut(&Failure<'_>, bool),
    ) -> R {
        let frame = Frame::enter();
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(value) => {
                inspect(&value, &mut |error| {
                    let logged = frame.leave();
                    report_error(handle, error, &logged, &mut report)
                        .into_iter()
                        .for_each(mark_logged);
                });
                value
            }
            Err(payload) => {
                let logged = frame.leave();
                mark_logged(report_panic(handle, &*payload, &logged, &mut report));
                resume_unwind(payload)
            }
        }
    }

    /// [`run_block`] for a future.
    pub(in crate::capture) async fn run_future<F: Future>(
        handle: &Handle,
        scope: &Scope,
        future: F,
        inspect: impl FnOnce(&F::Output, OnError<'_>),
        mut report: impl FnMut(&Failure<'_>, bool),
    ) -> Completion<F::Output> {
        let mut future = pin!(future);
        let mut logged = Vec::new();
        let result = poll_fn(|context| {
            let _entered = scope.as_ref().map(Handle::enter);
            let frame = Frame::enter();
            let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
            logged.append(&mut frame.leave());
            logged.drain(..logged.len().saturating_sub(MAX_LOGGED));
            match polled {
                Ok(poll) => poll.map(Ok),
                Err(payload) => Poll::Ready(Err(payload)),
            }
        });
        let result = result.await;
        let mut fingerprint = None;
        match &result {
            Ok(value) => inspect(value, &mut |error| {
                fingerprint = report_error(handle, error, &logged, &mut report);
            }),
            Err(payload) => {
                fingerprint = Some(report_panic(handle, &**payload, &logged, &mut report))
            }
        }
        Completion {
            result,
            fingerprint,
        }
    }

    /// Reports an error. Returns its fingerprint for the enclosing captures, or `None` if its `Display` panics.
    #[cold]
    fn report_error(
        handle: &Handle,
        error: &Failure<'_>,
        logged: &[Fingerprint],
        report: &mut dyn FnMut(&Failure<'_>, bool),
    ) -> Option<Fingerprint> {
        let session = handle.session_id().unwrap_or_default();
        let fingerprint = |error| panics::catch(|| Fingerprint::of_error(session, error));
        let is_logged = !logged.is_empty()
            && chain(error.as_error())
                .filter_map(fingerprint)
                .any(|fingerprint| logged.contains(&fingerprint));
        report(error, is_logged);
        fingerprint(error.as_error())
    }

    /// Reports a panic. Returns its fingerprint for the enclosing captures.
    #[cold]
    fn report_panic(
        handle: &Handle,
        payload: &(dyn core::any::Any + Send),
        logged: &[Fingerprint],
        report: &mut dyn FnMut(&Failure<'_>, bool),
    ) -> Fingerprint {
        let session = handle.session_id().unwrap_or_default();
        let message = message(payload);
        let address = core::ptr::from_ref(payload).cast::<()>().addr();
        let fingerprint = Fingerprint::of_panic(session, message, address);
        // Claimed in any case, so that no later panic is mistaken for this one.
        let is_hooked = unclaimed::claim(session, message);
        report(
            &Panicked::new(message, None),
            is_hooked || logged.contains(&fingerprint),
        );
        fingerprint
    }
}

#[cfg(not(feature = "std"))]
mod without_panics {
    use super::{Failure, OnError};
    use crate::session::handle::Handle;

    /// There is no current session.
    #[cfg(feature = "alloc")]
    pub(in crate::capture) type Scope = Option<core::convert::Infallible>;

    /// The result of a captured future.
    #[cfg(feature = "alloc")]
    pub(in crate::capture) struct Completion<R>(R);

    #[cfg(feature = "alloc")]
    impl<R> Completion<R> {
        pub(in crate::capture) fn resume(self) -> R {
            self.0
        }
    }

    /// Runs `work`. Calls `report` with a failure; without `std`, none is known to be logged already.
    pub(in crate::capture) fn run_block<R>(
        _: &Handle,
        work: impl FnOnce() -> R,
        inspect: impl FnOnce(&R, OnError<'_>),
        mut report: impl FnMut(&Failure<'_>, bool),
    ) -> R {
        let value = work();
        inspect(&value, &mut |error| report(error, false));
        value
    }

    /// [`run_block`] for a future.
    #[cfg(feature = "alloc")]
    pub(in crate::capture) async fn run_future<F: core::future::Future>(
        _: &Handle,
        _: &Scope,
        future: F,
        inspect: impl FnOnce(&F::Output, OnError<'_>),
        mut report: impl FnMut(&Failure<'_>, bool),
    ) -> Completion<F::Output> {
        let value = future.await;
        inspect(&value, &mut |error| report(error, false));
        Completion(value)
    }
}
