//! The async-std runtime: its global executor and its timers.

use super::common::std_clock;
use crate::clock::Clock;
use crate::spawner::{Runtime, SpawnError, Spawner, WouldDeadlock};
use crate::time::{Instant, Timestamp};
use async_std::task;
use core::future::{Future, pending};
use std::env;
use std::thread;

/// The async-std runtime, for programs that still use it: async-std is discontinued.
///
/// async-std starts its executor at first use and never ends it, so a session can start anywhere, and keeps its driver
/// until the process ends. Dropping the reporter waits until it has drained, except in a task, where it only requests a
/// stop: await [`stop`](crate::Handle::stop) there.
///
/// Blocking waits work outside the executor (including in `task::block_on`, whose thread is not one of the executor's),
/// in `spawn_blocking`, and in a task unless the driver was last polled on that task's thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AsyncStd;

impl Clock for AsyncStd {
    fn now(&self) -> Instant {
        std_clock::now()
    }

    fn utc(&self) -> Timestamp {
        std_clock::utc()
    }

    async fn sleep_until(&self, at: Instant) {
        let Some(at) = std_clock::std_instant(at) else {
            return pending().await;
        };
        loop {
            let left = at.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                break;
            }
            task::sleep(left).await;
        }
    }
}

impl Spawner for AsyncStd {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Result<(), SpawnError> {
        drop(task::spawn(task));
        Ok(())
    }

    /// Outside the executor's own threads, which may all be needed to poll the driver.
    fn waits_on_drop(&self) -> bool {
        !is_own_thread()
    }

    fn block_in_place(
        &self,
        is_on_this_thread: bool,
        wait: &mut dyn FnMut(),
    ) -> Result<(), WouldDeadlock> {
        if is_on_this_thread || is_the_only_thread() {
            return Err(WouldDeadlock);
        }
        wait();
        Ok(())
    }
}

impl Runtime for AsyncStd {}

/// Whether no other thread can run tasks while the calling one blocks. The driver may not have been polled yet.
fn is_the_only_thread() -> bool {
    let count = env::var("ASYNC_STD_THREAD_COUNT").ok();
    let count = count.and_then(|count| count.parse::<usize>().ok());
    let is_one = match count {
        Some(count) => count <= 1,
        None => thread::available_parallelism().is_ok_and(|count| count.get() == 1),
    };
    is_one && is_own_thread()
}

/// Whether the calling thread is one of the executor's.
fn is_own_thread() -> bool {
    thread::current().name() == Some(&*thread_name())
}

fn thread_name() -> alloc::string::String {
    env::var("ASYNC_STD_THREAD_NAME").unwrap_or_else(|_| "async-std/runtime".into())
}
