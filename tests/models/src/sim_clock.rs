//! The simulated clock: no timer is lost to a thread that advances it at the same time.

use core::time::Duration;
use shuttle::future::block_on;
use shuttle::thread;

mod code {
    pub(super) mod clock {
        include!(concat!(env!("OUT_DIR"), "/sim_clock.rs"));
    }
    mod timers {
        include!(concat!(env!("OUT_DIR"), "/sim_timers.rs"));
    }
    pub(super) use clock::SimClock;
}

use crate::clock::Clock as _;
use code::SimClock;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_timer_that_is_set_while_the_clock_advances_fires() {
    super::check(|| {
        let clock = SimClock::new();
        let sleepers = [1, 2].map(|seconds| {
            let clock = clock.clone();
            let at = clock.now().checked_add(seconds * SECOND).expect("in time");
            thread::spawn(move || {
                block_on(clock.sleep_until(at));
                assert!(clock.now() >= at, "a timer is early");
            })
        });
        clock.advance(SECOND);
        clock.advance(SECOND);
        // A sleep that was not polled before that is ready at once.
        for sleeper in sleepers {
            sleeper.join().expect("no panic");
        }
    });
}

#[test]
fn two_threads_that_advance_a_clock_move_it_to_the_later_of_both_ends() {
    super::check(|| {
        let clock = SimClock::new();
        let begin = clock.now();
        let other = clock.clone();
        let advancing = thread::spawn(move || other.advance(2 * SECOND));
        clock.advance(SECOND);
        advancing.join().expect("no panic");
        let passed = clock.now().saturating_duration_since(begin);
        assert!((2 * SECOND..=3 * SECOND).contains(&passed), "{passed:?}");
    });
}
