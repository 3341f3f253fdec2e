//! Sleeps of the [`Thread`](super::Thread) runtime: an alarm of the session's own executor, or a process-wide timer.

use super::executor::{Alarm, set_alarm};
use crate::features::common::timer;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::time::Instant;

/// Waits until `at`. Dropping the future cancels it.
pub(super) const fn sleep_until(at: Instant) -> Sleep {
    Sleep {
        at,
        alarm: None,
        timer: None,
    }
}

/// See [`sleep_until`].
pub(super) struct Sleep {
    at: Instant,
    alarm: Option<Alarm>,
    timer: Option<timer::Sleep>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.at {
            (self.alarm, self.timer) = (None, None);
            return Poll::Ready(());
        }
        let at = self.at;
        if self.timer.is_none() {
            self.alarm = set_alarm(context.waker(), at, self.alarm.take());
            if self.alarm.is_some() {
                return Poll::Pending;
            }
        }
        let timer = self.timer.get_or_insert_with(|| timer::sleep_until(at));
        Pin::new(timer).poll(context)
    }
}
