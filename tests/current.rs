//! The current session: the innermost that a thread has entered, else the global one.
#![cfg(feature = "std")]

use core::cell::RefCell;
use core::future::{Future, pending, poll_fn};
use core::panic::AssertUnwindSafe;
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::panic::catch_unwind;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use tinkex_telemetry::capture::Capture;
use tinkex_telemetry::runtime::Clock;
use tinkex_telemetry::session::Driver;
use tinkex_telemetry::time::{Instant, Timestamp};
use tinkex_telemetry::{Batch, Handle, Receipt, Reporter, SendError, Transport};
use tinkex_telemetry::{async_capture, capture};

struct Still;

impl Clock for Still {
    fn now(&self) -> Instant {
        Instant::ORIGIN
    }

    fn utc(&self) -> Timestamp {
        Timestamp::from_unix_micros(0)
    }

    async fn sleep_until(&self, _: Instant) {
        pending().await
    }
}

struct Nowhere;

impl Transport for Nowhere {
    async fn send(&mut self, _: Batch<'_>) -> Result<Receipt, SendError> {
        Ok(Receipt::delivered())
    }
}

type Session = (Reporter<Nowhere, Still, ()>, Driver<Nowhere, Still>);

fn session(id: &str) -> Session {
    let builder = Reporter::builder(id).transport(Nowhere).clock(Still);
    let session = builder.drop_timeout(Duration::ZERO).enabled(true).build();
    session.expect("the session is built")
}

/// One test at a time changes the process's global session.
fn without_global() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    let guard = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    Handle::off().make_global();
    guard
}

fn current() -> Option<String> {
    Handle::current().session_id().map(String::from)
}

#[track_caller]
fn assert_current(id: &str) {
    assert_eq!(current().as_deref(), Some(id));
}

fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Pending once.
async fn pause() {
    let mut is_second = false;
    poll_fn(|_| match core::mem::replace(&mut is_second, true) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}

fn fail() -> Result<(), String> {
    Err("it failed".into())
}

#[test]
fn without_a_session_the_current_one_is_off() {
    let _global = without_global();
    assert!(!Handle::current().is_enabled());
    assert!(!Handle::current().log("x", ()));
    assert_eq!(capture!({ fail() }), fail());
}

#[test]
fn the_innermost_entered_session_is_current_and_guards_end_in_any_order() {
    let _global = without_global();
    let (a, b, c) = (session("a"), session("b"), session("c"));
    let of_a = a.0.enter();
    let of_b = b.0.enter();
    let of_c = c.0.enter();
    assert_current("c");
    drop(of_b);
    assert_current("c");
    drop(of_c);
    assert_current("a");
    let again = b.0.enter();
    drop(of_a);
    assert_current("b");
    drop(again);
    assert_eq!(current(), None);
}

#[test]
fn one_session_may_be_entered_twice() {
    let _global = without_global();
    let (a, b) = (session("a"), session("b"));
    let first = a.0.enter();
    let of_b = b.0.enter();
    let second = a.0.enter();
    drop(first);
    assert_current("a");
    drop(second);
    assert_current("b");
    drop(of_b);
    assert_eq!(current(), None);
}

#[test]
fn a_session_is_entered_by_one_thread_alone() {
    let _global = without_global();
    let a = session("a");
    let _of_a = a.0.enter();
    thread::scope(|scope| {
        let other = scope.spawn(current).join();
        assert_eq!(other.expect("it does not panic"), None);
    });
}

#[test]
fn a_panic_leaves_what_was_current_before() {
    let _global = without_global();
    let (a, b) = (session("a"), session("b"));
    let _of_a = a.0.enter();
    let panicked = catch_unwind(|| {
        let _of_b = b.0.enter();
        assert_current("b");
        panic!("within");
    });
    assert!(panicked.is_err());
    assert_current("a");
}

#[test]
fn within_a_handle_that_is_off_nothing_is_logged() {
    let _global = without_global();
    let a = session("a");
    a.0.make_global();
    let before = a.0.stats();
    let off = Handle::off().enter();
    assert_eq!(capture!({ fail() }), fail());
    assert!(!Handle::current().log("x", ()));
    assert_eq!(a.0.stats(), before);
    drop(off);
    assert_current("a");
}

#[test]
fn the_global_session_is_every_threads_unless_it_has_entered_another() {
    let _global = without_global();
    let (a, b) = (session("a"), session("b"));
    assert!(!a.0.make_global().unwrap_or_default().is_enabled());
    thread::scope(|scope| {
        let other = scope.spawn(current).join();
        assert_eq!(other.expect("it does not panic").as_deref(), Some("a"));
    });
    let of_b = b.0.enter();
    assert_current("b");
    drop(of_b);
    assert_current("a");
}

#[test]
fn a_second_global_session_replaces_the_first_and_returns_it() {
    let _global = without_global();
    let (a, b) = (session("a"), session("b"));
    a.0.make_global();
    let replaced = b.0.make_global().expect("there was one");
    assert_eq!(replaced.session_id(), Some("a"));
    assert_current("b");
    replaced.make_global();
    assert_current("a");
    Handle::off().make_global();
    assert_eq!(current(), None);
}

#[test]
fn a_global_session_ends_with_its_owner_and_stays_global() {
    let _global = without_global();
    let (owner, driver) = session("a");
    owner.make_global();
    assert!(Handle::current().log("x", ()));
    drop((owner, driver));
    assert_current("a");
    assert!(!Handle::current().log("x", ()));
    assert_eq!(Handle::current().stats().refused.session_ended, 1);
}

#[test]
fn a_capture_without_a_reporter_logs_to_the_current_session_and_none_logs_nothing() {
    let _global = without_global();
    let (a, b) = (session("a"), session("b"));
    a.0.make_global();
    assert_eq!(capture!({ fail() }), fail());
    assert_eq!((a.0.stats().accepted, b.0.stats().accepted), (2, 1));
    let of_b = b.0.enter();
    assert_eq!(capture!({ fail() }), fail());
    let caught = catch_unwind(|| Capture::new().run_plain(|| panic!("within")));
    assert!(caught.is_err());
    assert_eq!((a.0.stats().accepted, b.0.stats().accepted), (2, 3));
    assert_eq!(capture!(reporter = None::<Handle>, { fail() }), fail());
    assert_eq!(capture!(reporter = a.0, { fail() }), fail());
    assert_eq!((a.0.stats().accepted, b.0.stats().accepted), (3, 3));
    drop(of_b);
}

#[test]
fn a_fatal_capture_without_a_reporter_ends_the_current_session() {
    let _global = without_global();
    let a = session("a");
    let _of_a = a.0.enter();
    drop(a.1);
    assert_eq!(capture!(fatal = true, { fail() }), fail());
    let stats = a.0.stats();
    assert!(stats.session_ended);
    assert_eq!(stats.accepted, 3);
}

#[test]
fn a_captured_future_keeps_the_session_that_was_current_where_it_was_made() {
    let _global = without_global();
    let (a, b) = (session("a"), session("b"));
    let of_a = a.0.enter();
    let mut future = Box::pin(capture!(async {
        pause().await;
        // Swallowed, so the inner capture alone can log it.
        let _ = capture!({ fail() });
        Ok::<_, String>(current())
    }));
    drop(of_a);
    let _of_b = b.0.enter();
    assert!(poll(future.as_mut()).is_pending());
    let elsewhere = thread::scope(|scope| {
        let polled = scope.spawn(move || poll(future.as_mut())).join();
        polled.expect("it does not panic")
    });
    assert_eq!(elsewhere, Poll::Ready(Ok(Some("a".into()))));
    assert_current("b");
    assert_eq!((a.0.stats().accepted, b.0.stats().accepted), (2, 1));
}

#[test]
fn a_task_without_a_reporter_runs_in_the_scope_of_the_session_that_spawned_it() {
    let _global = without_global();
    let a = session("a");
    let of_a = a.0.enter();
    let mut task = pin!(async_capture!({
        let _ = capture!({ fail() });
        pause().await;
        Ok::<_, String>(current())
    }));
    drop(of_a);
    // No executor takes it, so it runs here.
    assert!(poll(task.as_mut()).is_pending());
    let Poll::Ready(Ok(result)) = poll(task.as_mut()) else {
        panic!("the task is not done");
    };
    assert_eq!(result, Ok(Some("a".into())));
    assert_eq!(a.0.stats().accepted, 2);
    assert_eq!(current(), None);
}

#[test]
fn a_scope_is_current_in_each_poll_on_every_thread_and_in_none_between() {
    let _global = without_global();
    let (a, b) = (session("a"), session("b"));
    let mut scope = Box::pin(a.0.scope(async {
        assert_current("a");
        pause().await;
        assert_current("a");
        pause().await;
        current()
    }));
    assert!(poll(scope.as_mut()).is_pending());
    assert_eq!(current(), None);
    let _of_b = b.0.enter();
    assert!(poll(scope.as_mut()).is_pending());
    assert_current("b");
    thread::scope(|threads| {
        let polled = threads.spawn(move || {
            let polled = poll(scope.as_mut());
            (polled, current())
        });
        let (polled, after) = polled.join().expect("it does not panic");
        assert_eq!(polled, Poll::Ready(Some("a".into())));
        assert_eq!(after, None);
    });
}

#[test]
fn scopes_nest() {
    let _global = without_global();
    let (a, b) = (session("a"), session("b"));
    let inner = b.0.handle();
    let mut scope = pin!(a.0.scope(async move {
        assert_current("a");
        inner
            .scope(async {
                assert_current("b");
                pause().await;
                assert_current("b");
            })
            .await;
        assert_current("a");
    }));
    assert!(poll(scope.as_mut()).is_pending());
    assert_eq!(current(), None);
    assert!(poll(scope.as_mut()).is_ready());
    assert_eq!(current(), None);
}

#[test]
fn a_scope_that_panics_leaves_what_was_current_before() {
    let _global = without_global();
    let (a, b) = (session("a"), session("b"));
    let _of_b = b.0.enter();
    let mut scope = pin!(a.0.scope(async {
        let _left = Handle::current().enter();
        panic!("within")
    }));
    let polled = catch_unwind(AssertUnwindSafe(|| poll(scope.as_mut())));
    assert!(polled.is_err());
    assert_current("b");
}

/// Remembers the current session at its drop.
struct AtDrop<'a>(&'a Mutex<Option<String>>);

impl Drop for AtDrop<'_> {
    fn drop(&mut self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = current();
    }
}

#[test]
fn a_scope_is_current_while_its_future_is_dropped() {
    let _global = without_global();
    let a = session("a");
    let seen = Mutex::new(None);
    for polls in 0..2 {
        let local = AtDrop(&seen);
        let mut scope = Box::pin(a.0.scope(async move {
            let _local = local;
            pause().await;
        }));
        (0..polls).for_each(|_| assert!(poll(scope.as_mut()).is_pending()));
        drop(scope);
        let seen = seen.lock().expect("not poisoned").take();
        assert_eq!(seen.as_deref(), Some("a"), "{polls}");
        assert_eq!(current(), None);
    }
}

/// Uses the current session when the thread's local values are destroyed.
struct AtExit(Handle);

impl Drop for AtExit {
    fn drop(&mut self) {
        let _entered = self.0.enter();
        Handle::current().log("exit", ());
        let _ = capture!({ fail() });
        let _ = poll(pin!(self.0.scope(pause())));
        drop(Handle::current());
    }
}

std::thread_local! {
    static BEFORE: RefCell<Option<AtExit>> = const { RefCell::new(None) };
    static AFTER: RefCell<Option<AtExit>> = const { RefCell::new(None) };
}

#[test]
fn nothing_panics_while_a_thread_exits_whatever_is_destroyed_first() {
    let _global = without_global();
    let a = session("a");
    a.0.make_global();
    for is_kept in [false, true] {
        let handle = a.0.handle();
        let exited = thread::spawn(move || {
            // One is destroyed before the crate's own values, one after them.
            BEFORE.with(|slot| *slot.borrow_mut() = Some(AtExit(handle.clone())));
            let entered = handle.enter();
            AFTER.with(|slot| *slot.borrow_mut() = Some(AtExit(handle.clone())));
            if is_kept {
                core::mem::forget(entered);
            }
        });
        exited.join().expect("nothing panics");
    }
    // An event and an error each time: of the entered session or else of the global one.
    assert_eq!(a.0.stats().accepted, 1 + 2 * 2 * 2);
}

#[test]
fn the_last_handle_may_be_dropped_with_its_guard() {
    let _global = without_global();
    struct Entering;
    impl Drop for Entering {
        fn drop(&mut self) {
            // The program's own code, run by the drop of a session.
            drop(Handle::current().enter());
        }
    }
    let entering = Entering;
    let builder = Reporter::builder("a").transport(Nowhere).clock(Still);
    let builder = builder.on_diagnostic(move |_| {
        let _owned = &entering;
    });
    let (owner, driver) = builder.enabled(true).build().expect("it is built");
    let entered = owner.enter();
    drop((owner, driver));
    drop(entered);
    assert_eq!(current(), None);
}
