//! Nested captures: each failure is logged once.

use crate::support::{Failed, finish, pair, payload, thread};
use core::error::Error;
use core::fmt;
use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use tinkex_telemetry::{Severity, async_capture, capture};

#[derive(Debug)]
struct Outer(Failed);

impl fmt::Display for Outer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("outer")
    }
}

impl Error for Outer {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

impl From<Failed> for Outer {
    fn from(error: Failed) -> Self {
        Self(error)
    }
}

#[test]
fn an_error_that_passes_through_three_captures_is_logged_by_the_innermost() {
    let (session, kept) = thread();
    let result = capture!(reporter = session, {
        capture!(reporter = session, severity = Severity::Critical, {
            let () = capture!(reporter = session, { Err(Failed("deep")) })?;
            Ok::<_, Outer>(())
        })?;
        Ok::<_, Box<dyn Error>>(())
    });
    assert!(result.is_err());
    assert_eq!(finish(session, &kept), [pair("Failed", "deep")]);
    assert_eq!(kept.logged()[0]["severity"], "ERROR");
}

#[test]
fn a_panic_that_passes_through_three_captures_is_logged_once() {
    let (session, kept) = thread();
    let text = payload(|| {
        capture!(reporter = session, {
            capture!(reporter = session, {
                capture!(reporter = session, { panic!("deep") })
            })
        })
    });
    assert_eq!(text.downcast_ref(), Some(&"deep"));
    assert_eq!(finish(session, &kept), [pair("panic", "deep")]);
}

#[test]
fn a_failure_after_a_handled_failure_is_logged_too() {
    let (session, kept) = thread();
    let result = capture!(reporter = session, {
        let handled: Result<(), _> = capture!(reporter = session, { Err(Failed("first")) });
        assert!(handled.is_err());
        let caught = catch_unwind(AssertUnwindSafe(|| {
            capture!(reporter = session, { panic!("second") });
        }));
        assert!(caught.is_err());
        Err::<(), _>(Failed("third"))
    });
    assert!(result.is_err());
    assert_eq!(
        finish(session, &kept),
        [
            pair("Failed", "first"),
            pair("panic", "second"),
            pair("Failed", "third")
        ]
    );
}

#[test]
fn the_same_failure_in_two_consecutive_captures_is_logged_twice() {
    let (session, kept) = thread();
    for _ in 0..2 {
        let _: Result<(), _> = capture!(reporter = session, { Err(Failed("again")) });
        payload(|| capture!(reporter = session, { panic!("again") }));
    }
    assert_eq!(finish(session, &kept).len(), 4);
}

#[test]
fn two_sessions_each_log_what_passes_through_their_captures() {
    let ((one, in_one), (two, in_two)) = (thread(), second());
    let result = capture!(reporter = one, {
        capture!(reporter = two, { Err::<(), _>(Failed("both")) })
    });
    assert!(result.is_err());
    assert_eq!(finish(one, &in_one), [pair("Failed", "both")]);
    assert_eq!(finish(two, &in_two), [pair("Failed", "both")]);
}

/// A session with another name.
fn second() -> (
    crate::support::Session<tinkex_telemetry::Thread>,
    crate::support::Kept,
) {
    let kept = crate::support::Kept::default();
    let builder = tinkex_telemetry::Reporter::builder("another")
        .transport(kept.clone())
        .runtime(tinkex_telemetry::Thread)
        .enabled(true);
    (builder.start().expect("the session starts"), kept)
}

#[test]
fn a_fatal_capture_ends_the_session_for_a_failure_logged_by_an_inner_one() {
    let (session, kept) = thread();
    let result = capture!(reporter = session, fatal = true, {
        capture!(reporter = session, { Err::<(), _>(Failed("deep")) })
    });
    assert!(result.is_err());
    assert_eq!(kept.exceptions(), [pair("Failed", "deep")]);
    assert_eq!(kept.events().len(), 3, "{:?}", kept.events());
    assert_eq!(kept.events()[2]["event"], "SESSION_END");
}

#[test]
fn futures_and_tasks_within_captures_log_once_wherever_they_run() {
    let (session, kept) = thread();
    smol::block_on(capture!(reporter = session, async {
        let inner = capture!(reporter = session, async {
            smol::future::yield_now().await;
            Err::<(), _>(Failed("future"))
        });
        smol::future::yield_now().await;
        inner.await
    }))
    .expect_err("the block fails");
    smol::block_on(capture!(reporter = session, async {
        let task = async_capture!(reporter = session, { Err::<(), _>(Failed("task")) });
        task.await?.map_err(Outer)?;
        Ok::<_, Box<dyn Error>>(())
    }))
    .expect_err("the block fails");
    let text = payload(|| {
        smol::block_on(capture!(reporter = session, async {
            let task = async_capture!(reporter = session, { panic!("in a task") });
            task.await
        }))
    });
    assert_eq!(text.downcast_ref(), Some(&"in a task"));
    assert_eq!(
        finish(session, &kept),
        [
            pair("Failed", "future"),
            pair("Failed", "task"),
            pair("panic", "in a task")
        ]
    );
}

#[test]
fn two_interleaved_futures_keep_their_failures_apart() {
    let (session, kept) = thread();
    let one = capture!(reporter = session, async {
        let inner: Result<(), _> = capture!(reporter = session, { Err(Failed("same")) });
        smol::future::yield_now().await;
        inner
    });
    let two = capture!(reporter = session, async {
        smol::future::yield_now().await;
        Err::<(), _>(Failed("same"))
    });
    let (one, two) = smol::block_on(smol::future::zip(one, two));
    assert!(one.is_err() && two.is_err());
    // One of each future, though their messages are equal.
    assert_eq!(
        finish(session, &kept),
        [pair("Failed", "same"), pair("Failed", "same")]
    );
}
