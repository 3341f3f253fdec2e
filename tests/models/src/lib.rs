//! Models of the code that several threads share, under thousands of thread schedules: the timers of runtimes that
//! have none, the executor of the thread runtime, and the simulated clock.
//!
//! The sources are the crate's own; `build.rs` gives them the shim in place of the standard library.
#![cfg(test)]
#![allow(dead_code, unused_imports, reason = "a model does not use everything")]

extern crate alloc;

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

mod executor;
mod sim_clock;
mod timer;

/// How many schedules each model runs under.
fn schedules() -> usize {
    let count = std::env::var_os("TINKEX_SCHEDULES");
    let number = |count: std::ffi::OsString| count.to_str().and_then(|count| count.parse().ok());
    count.map_or(1_000, |count| number(count).expect("a number of schedules"))
}

/// Runs a scenario under random schedules, and under those that switch threads rarely, which find other faults.
fn check(scenario: impl Fn() + Send + Sync + Copy + 'static) {
    shuttle::check_random(move || shim::model::run(scenario), schedules());
    shuttle::check_pct(move || shim::model::run(scenario), schedules(), 3);
}

/// A thread of the model, and whether it has ended.
fn spawn(body: impl FnOnce() + Send + 'static) -> impl Fn() -> bool {
    let is_done = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&is_done);
    shuttle::thread::spawn(move || {
        body();
        done.store(true, Ordering::SeqCst);
    });
    move || is_done.load(Ordering::SeqCst)
}

/// The crate's modules that the sources import.
mod time {
    include!(concat!(env!("OUT_DIR"), "/time.rs"));
}

mod clock {
    include!(concat!(env!("OUT_DIR"), "/clock.rs"));
}

mod sys {
    pub(crate) mod panics {
        use core::task::Waker;

        pub(crate) fn wake(waker: Waker) {
            waker.wake();
        }
    }

    pub(crate) mod fork {
        //! No process of a model forks.

        use std::collections::HashMap;
        use std::sync::{LazyLock, Mutex};
        use std::thread::{self, ThreadId};

        pub(crate) struct Fork;

        impl Fork {
            pub(crate) const fn here() -> Self {
                Self
            }

            pub(crate) const fn is_forked(&self) -> bool {
                false
            }
        }

        /// A value per execution, since nothing may outlive one. Models run side by side, each on a thread of the
        /// system.
        pub(crate) struct PerProcess<T: 'static>(LazyLock<Mutex<Slots<T>>>);

        /// The execution that runs on each thread of the system, and its value.
        type Slots<T> = HashMap<ThreadId, (u64, &'static T)>;

        impl<T: Send + Sync> PerProcess<T> {
            pub(crate) const fn new() -> Self {
                Self(LazyLock::new(Mutex::default))
            }

            pub(crate) fn get_or_init(&self, make: impl FnOnce() -> T) -> &'static T {
                let mut slots = self.0.lock().expect("nothing panics under it");
                let execution = shim::model::execution();
                let here = thread::current().id();
                match slots.get(&here) {
                    Some((of, value)) if *of == execution => value,
                    _ => {
                        // A few hundred bytes for each schedule.
                        let value = Box::leak(Box::new(make()));
                        slots.insert(here, (execution, value));
                        value
                    }
                }
            }
        }
    }
}
