//! Running what is captured, and looking at how it ended.

use super::Found;
use crate::event::exception::AnyError;

#[cfg(feature = "std")]
pub(super) use with_panics::*;
#[cfg(not(feature = "std"))]
pub(super) use without_panics::*;

/// A failure, as it is logged.
pub(super) type Failure<'a> = dyn AnyError + 'a;

#[cfg(feature = "std")]
mod with_panics {
    use super::{Failure, Found};
    use crate::capture::frames::{Frame, MOST, Print, tell};
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

    /// How something captured has ended, on its way to whom it belongs.
    pub(in crate::capture) struct Ended<R> {
        result: thread::Result<R>,
        /// What was logged of it, for the captures around.
        print: Option<Print>,
    }

    impl<R> Ended<R> {
        pub(in crate::capture) const fn value(value: R) -> Self {
            Self {
                result: Ok(value),
                print: None,
            }
        }

        /// Goes on as if nobody had looked.
        #[inline]
        pub(in crate::capture) fn resume(self) -> R {
            self.print.into_iter().for_each(tell);
            match self.result {
                Ok(value) => value,
                Err(payload) => resume_unwind(payload),
            }
        }
    }

    /// Runs `work` to its end, and goes on as it ended. `fail` is called with a failure, and with whether it is logged
    /// already.
    #[inline]
    pub(in crate::capture) fn run<R>(
        handle: &Handle,
        work: impl FnOnce() -> R,
        look: impl FnOnce(&R, Found<'_>),
        mut fail: impl FnMut(&Failure<'_>, bool),
    ) -> R {
        let frame = Frame::enter();
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(value) => {
                look(&value, &mut |error| {
                    let logged = frame.leave();
                    error_ended(handle, error, &logged, &mut fail)
                        .into_iter()
                        .for_each(tell);
                });
                value
            }
            Err(payload) => {
                let logged = frame.leave();
                tell(panic_ended(handle, &*payload, &logged, &mut fail));
                resume_unwind(payload)
            }
        }
    }

    /// The same for a future.
    pub(in crate::capture) async fn watch<F: Future>(
        handle: &Handle,
        future: F,
        look: impl FnOnce(&F::Output, Found<'_>),
        mut fail: impl FnMut(&Failure<'_>, bool),
    ) -> Ended<F::Output> {
        let mut future = pin!(future);
        let mut logged = Vec::new();
        let result = poll_fn(|context| {
            let frame = Frame::enter();
            let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
            logged.append(&mut frame.leave());
            logged.drain(..logged.len().saturating_sub(MOST));
            match polled {
                Ok(poll) => poll.map(Ok),
                Err(payload) => Poll::Ready(Err(payload)),
            }
        });
        let result = result.await;
        let mut print = None;
        match &result {
            Ok(value) => look(value, &mut |error| {
                print = error_ended(handle, error, &logged, &mut fail);
            }),
            Err(payload) => print = Some(panic_ended(handle, &**payload, &logged, &mut fail)),
        }
        Ended { result, print }
    }

    /// What the captures around will know the error by. `None` when it cannot be looked at.
    #[cold]
    fn error_ended(
        handle: &Handle,
        error: &Failure<'_>,
        logged: &[Print],
        fail: &mut dyn FnMut(&Failure<'_>, bool),
    ) -> Option<Print> {
        let session = handle.session_id().unwrap_or_default();
        let print = |error| panics::catch(|| Print::of_error(session, error));
        let is_logged = !logged.is_empty()
            && chain(error.as_error())
                .filter_map(print)
                .any(|print| logged.contains(&print));
        fail(error, is_logged);
        print(error.as_error())
    }

    #[cold]
    fn panic_ended(
        handle: &Handle,
        payload: &(dyn core::any::Any + Send),
        logged: &[Print],
        fail: &mut dyn FnMut(&Failure<'_>, bool),
    ) -> Print {
        let session = handle.session_id().unwrap_or_default();
        let message = message(payload);
        let address = core::ptr::from_ref(payload).cast::<()>().addr();
        let print = Print::of_panic(session, message, address);
        // The hook's note is taken in any case.
        let is_hooked = unclaimed::claim(session, message);
        fail(
            &Panicked::new(message, None),
            is_hooked || logged.contains(&print),
        );
        print
    }
}

#[cfg(not(feature = "std"))]
mod without_panics {
    use super::{Failure, Found};
    use crate::session::handle::Handle;

    /// How something captured has ended.
    #[cfg(feature = "alloc")]
    pub(in crate::capture) struct Ended<R>(R);

    #[cfg(feature = "alloc")]
    impl<R> Ended<R> {
        pub(in crate::capture) const fn value(value: R) -> Self {
            Self(value)
        }

        pub(in crate::capture) fn resume(self) -> R {
            self.0
        }
    }

    /// Runs `work` to its end. `fail` is called with a failure; nobody knows whether it is logged already.
    pub(in crate::capture) fn run<R>(
        _: &Handle,
        work: impl FnOnce() -> R,
        look: impl FnOnce(&R, Found<'_>),
        mut fail: impl FnMut(&Failure<'_>, bool),
    ) -> R {
        let value = work();
        look(&value, &mut |error| fail(error, false));
        value
    }

    /// The same for a future.
    #[cfg(feature = "alloc")]
    pub(in crate::capture) async fn watch<F: core::future::Future>(
        _: &Handle,
        future: F,
        look: impl FnOnce(&F::Output, Found<'_>),
        mut fail: impl FnMut(&Failure<'_>, bool),
    ) -> Ended<F::Output> {
        let value = future.await;
        look(&value, &mut |error| fail(error, false));
        Ended(value)
    }
}
