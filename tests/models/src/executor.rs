//! The executor of the thread runtime: no wake-up is lost, no call keeps the task from running, and every thread ends.

use alloc::sync::Arc;
use core::future::{Future, poll_fn};
use core::task::{Poll, Waker};
use core::time::Duration;
use shim::model;
use shim::time::Instant;
use shuttle::sync::atomic::{AtomicU32, Ordering};
use shuttle::sync::mpsc::{Receiver, channel};
use shuttle::thread;

mod code {
    use shim::CellKey as _;
    include!(concat!(env!("OUT_DIR"), "/executor.rs"));

    pub(super) fn start(task: impl Future<Output = ()> + Send + 'static) {
        spawn(task).expect("a thread");
    }
}

use code::{Call, finish_call, run_on_leader, set_alarm, start};

/// Requests a call, and is ready once `is_done`.
async fn request(call: impl FnOnce() + Send + 'static, is_done: impl Fn() -> bool) {
    let mut call: Option<Call> = Some(Box::new(call));
    poll_fn(|context| {
        if let Some(call) = call.take() {
            assert!(run_on_leader(context.waker(), call).is_ok());
        } else if is_done() {
            return Poll::Ready(());
        }
        Poll::Pending
    })
    .await;
}

async fn waker() -> Waker {
    poll_fn(|context| Poll::Ready(context.waker().clone())).await
}

fn run<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> Receiver<T> {
    let (sender, receiver) = channel();
    start(async move {
        let _ = sender.send(task.await);
    });
    receiver
}

/// All threads of a finished task end, without being told that the model is over.
fn expect_no_threads() {
    while model::threads() > 0 {
        thread::yield_now();
    }
}

#[test]
fn each_call_runs_once_and_its_task_goes_on() {
    super::check(|| {
        let calls = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&calls);
        let result = run(async move {
            for n in 1..=3 {
                let (waker, calls) = (waker().await, Arc::clone(&counted));
                let call = move || {
                    calls.fetch_add(1, Ordering::SeqCst);
                    finish_call(|| waker.wake());
                };
                request(call, || counted.load(Ordering::SeqCst) == n).await;
            }
        });
        result.recv().expect("the task ends");
        assert_eq!(calls.load(Ordering::SeqCst), 3);
        expect_no_threads();
    });
}

#[test]
fn a_wake_up_during_a_call_is_not_lost() {
    super::check(|| {
        let result = run(async {
            let (waker, woken) = (waker().await, Arc::new(AtomicU32::new(0)));
            let (by_call, by_other) = (waker.clone(), waker);
            let (first, second) = (Arc::clone(&woken), Arc::clone(&woken));
            // Like a response and a deadline at once.
            thread::spawn(move || {
                second.fetch_add(1, Ordering::SeqCst);
                by_other.wake();
            });
            let call = move || {
                first.fetch_add(1, Ordering::SeqCst);
                finish_call(|| by_call.wake());
            };
            request(call, || woken.load(Ordering::SeqCst) == 2).await;
        });
        result.recv().expect("the task ends");
        expect_no_threads();
    });
}

#[test]
fn a_call_that_hangs_holds_nothing_up() {
    super::check(|| {
        let (end, hanging) = channel::<()>();
        let result = run(async move {
            let waker = waker().await;
            let by_deadline = Arc::new(AtomicU32::new(0));
            let set = Arc::clone(&by_deadline);
            thread::spawn(move || {
                set.store(1, Ordering::SeqCst);
                waker.wake();
            });
            let call = move || {
                let _ = hanging.recv();
            };
            request(call, || by_deadline.load(Ordering::SeqCst) == 1).await;
        });
        result.recv().expect("the task ends while the call hangs");
        drop(end);
        expect_no_threads();
    });
}

/// Sleeps by an alarm. `call` runs on the leader once the first alarm is set.
async fn sleep_until(at: Instant, call: impl FnOnce() + Send + 'static) {
    let (mut alarm, mut call) = (None, Some(call));
    poll_fn(|context| {
        if Instant::now() >= at {
            return Poll::Ready(());
        }
        alarm = set_alarm(context.waker(), at, alarm.take());
        assert!(alarm.is_some());
        if let Some(call) = call.take() {
            assert!(run_on_leader(context.waker(), Box::new(call)).is_ok());
        }
        Poll::Pending
    })
    .await;
}

/// Sleeps by an alarm, with nothing else to do.
async fn idle_until(at: Instant) {
    let mut alarm = None;
    poll_fn(|context| {
        if Instant::now() >= at {
            return Poll::Ready(());
        }
        alarm = set_alarm(context.waker(), at, alarm.take());
        assert!(alarm.is_some());
        Poll::Pending
    })
    .await;
}

fn after(millis: u64) -> Instant {
    Instant::now() + Duration::from_millis(millis)
}

/// Runs a task that ends within this time, which passes only as far.
fn expect_end_within(millis: u64, task: impl Future<Output = ()> + Send + 'static) {
    let is_over = Arc::new(AtomicU32::new(0));
    let over = Arc::clone(&is_over);
    start(async move {
        task.await;
        over.store(1, Ordering::SeqCst);
    });
    let is_over = || is_over.load(Ordering::SeqCst) == 1;
    model::pass_until(Duration::from_millis(millis), is_over);
    expect_no_threads();
}

#[test]
fn an_alarm_wakes_its_task_in_time_whatever_wakes_it_before() {
    super::check(|| {
        expect_end_within(30, async {
            let waker = waker().await;
            thread::spawn(move || waker.wake());
            // Each alarm is another one, and one given up holds nothing up.
            idle_until(after(10)).await;
            let mut given_up = Box::pin(idle_until(after(60_000)));
            poll_fn(|context| {
                assert!(given_up.as_mut().poll(context).is_pending());
                Poll::Ready(())
            })
            .await;
            drop(given_up);
            idle_until(after(10)).await;
        });
    });
}

#[test]
fn an_alarm_is_watched_during_calls_and_after_them() {
    super::check(|| {
        let (end, hanging) = channel::<()>();
        let hangs = move || {
            let _ = hanging.recv();
        };
        expect_end_within(40, async move {
            // A call that returns, with a follower for the next one.
            sleep_until(after(10), || ()).await;
            sleep_until(after(10), hangs).await;
            drop(end);
            idle_until(after(10)).await;
        });
    });
}

#[test]
fn an_alarm_is_watched_where_a_later_one_was() {
    super::check(|| {
        expect_end_within(30, async {
            // From here on there are two threads.
            sleep_until(after(10), || ()).await;
            let (waker, woken) = (waker().await, Arc::new(AtomicU32::new(0)));
            let by_other = Arc::clone(&woken);
            thread::spawn(move || {
                by_other.store(1, Ordering::SeqCst);
                waker.wake();
            });
            let mut long = Box::pin(idle_until(after(60_000)));
            poll_fn(|context| match woken.load(Ordering::SeqCst) {
                0 => long.as_mut().poll(context),
                _ => Poll::Ready(()),
            })
            .await;
            drop(long);
            idle_until(after(10)).await;
        });
    });
}
