//! The timer thread: no sleep is early, none is lost, and each wakes the task that polled it last.

use core::pin::Pin;
use core::task::{Context, Waker};
use core::time::Duration;
use shim::model;
use shim::time::Instant;
use shuttle::future::block_on;

mod code {
    include!(concat!(env!("OUT_DIR"), "/timer.rs"));
}

use code::{Sleep, sleep_until};

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Polls a sleep that is not over, in a task that it will leave.
fn poll(sleep: &mut Sleep) {
    let mut context = Context::from_waker(Waker::noop());
    assert!(Pin::new(sleep).poll(&mut context).is_pending());
}

#[test]
fn a_sleep_ends_in_time_whatever_the_timer_thread_waits_for() {
    super::check(|| {
        let begin = Instant::now();
        let mut long = sleep_until(begin + millis(1_000));
        let sleepers = [20, 10, 20].map(|at| {
            super::spawn(move || {
                block_on(sleep_until(begin + millis(at)));
                assert!(Instant::now() >= begin + millis(at), "a sleep is early");
            })
        });
        poll(&mut long);
        // Time passes only as far as the short ones: if the thread waits for the long one, they wait for ever.
        model::pass_until(millis(100), || sleepers.iter().all(|has_ended| has_ended()));
    });
}

#[test]
fn a_sleep_that_moves_wakes_the_task_that_polled_it_last() {
    super::check(|| {
        let begin = Instant::now();
        let mut sleep = sleep_until(begin + millis(10));
        poll(&mut sleep);
        let sleeper = super::spawn(move || block_on(sleep));
        model::pass_until(millis(10), sleeper);
    });
}

#[test]
fn a_sleep_that_is_dropped_holds_nothing_up() {
    super::check(|| {
        let begin = Instant::now();
        let mut given_up = sleep_until(begin + millis(5));
        poll(&mut given_up);
        let dropper = super::spawn(move || drop(given_up));
        let sleeper = super::spawn(move || block_on(sleep_until(begin + millis(10))));
        model::pass_until(millis(10), || sleeper() && dropper());
    });
}
