//! The writer's queue: what sessions want written, and whether the writer still gets on with it.

use super::changed::Changed;
use super::discard::Discard;
use super::job::Job;
use crate::transport::SendError;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
#[cfg(feature = "sim")]
use core::task::Waker;
use core::time::Duration;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What the writer is to do, in order.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<QueueState>,
    changed: Changed,
}

#[derive(Default)]
struct QueueState {
    tasks: VecDeque<Task>,
    /// The job that is being written, and whether its session has given up waiting.
    current: Option<Arc<Job>>,
    is_given_up: bool,
    is_closed: bool,
}

impl QueueState {
    fn take(&mut self) -> Option<Task> {
        let task = self.tasks.pop_front()?;
        if let Task::Write(job) = &task {
            self.current = Some(Arc::clone(job));
        }
        Some(task)
    }

    fn end_current(&mut self) {
        self.current = None;
        self.is_given_up = false;
    }
}

pub(super) enum Task {
    Write(Arc<Job>),
    /// The transport with this number is dropped.
    End(u64),
    /// All that is on disk is to go.
    Discard(Discard),
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a job, unless the writer hangs in one that was given up.
    pub(super) fn push(&self, job: Arc<Job>) -> Result<(), SendError> {
        let mut state = self.lock();
        if state.is_given_up {
            return Err(SendError::retryable("the spool's disk does not answer"));
        }
        state.tasks.push_back(Task::Write(job));
        drop(state);
        self.changed.notify();
        Ok(())
    }

    /// Gives up a job. Returns whether it is being written: then the disk is slow, or hangs.
    pub(super) fn give_up(&self, job: &Arc<Job>) -> bool {
        let mut state = self.lock();
        let is_current = state
            .current
            .as_ref()
            .is_some_and(|it| Arc::ptr_eq(it, job));
        state.is_given_up |= is_current;
        state
            .tasks
            .retain(|task| !matches!(task, Task::Write(other) if Arc::ptr_eq(other, job)));
        is_current
    }

    /// Says that a transport is dropped.
    pub(super) fn end(&self, transport: u64) {
        self.lock().tasks.push_back(Task::End(transport));
        self.changed.notify();
    }

    /// Has all that is on disk discarded, after what was handed in before.
    pub(super) fn discard(&self, discard: Discard) {
        self.lock().tasks.push_back(Task::Discard(discard));
        self.changed.notify();
    }

    /// Whether the writer has taken a job and is not done with it.
    #[cfg(all(test, feature = "sim"))]
    pub(super) fn is_writing(&self) -> bool {
        self.lock().current.is_some()
    }

    /// The events in a write that was given up, and that the disk has not finished.
    pub(super) fn stalled(&self) -> u64 {
        let state = self.lock();
        let job = state.current.as_ref().filter(|_| state.is_given_up);
        job.map_or(0, |job| job.events as u64)
    }

    /// Says that no more jobs will come.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify();
    }

    /// The next task, if there is one, without waiting. The one before is done.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn take(&self) -> Option<Task> {
        let mut state = self.lock();
        state.end_current();
        state.take()
    }

    /// Whether there is nothing to do, and never will be again.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn is_over(&self) -> bool {
        let state = self.lock();
        state.is_closed && state.tasks.is_empty()
    }

    /// The task that was taken is done.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn rest(&self) {
        self.lock().end_current();
    }

    /// Has this task woken when there is something to do.
    #[cfg(feature = "sim")]
    pub(super) fn register(&self, waker: &Waker) {
        self.changed.register(waker);
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.lock().tasks.is_empty()
    }

    /// The next task; `None` when the queue is closed and empty. `idle` is called once in `period`.
    pub(super) fn next(&self, period: Option<Duration>, mut idle: impl FnMut()) -> Option<Task> {
        let mut due = period.and_then(|period| Instant::now().checked_add(period));
        let mut state = self.lock();
        state.end_current();
        loop {
            if due.is_some_and(|due| due <= Instant::now()) {
                drop(state);
                idle();
                due = period.and_then(|period| Instant::now().checked_add(period));
                state = self.lock();
            }
            if let Some(task) = state.take() {
                return Some(task);
            }
            if state.is_closed {
                return None;
            }
            state = match due {
                None => self.changed.wait(state),
                Some(due) => {
                    let left = due.saturating_duration_since(Instant::now());
                    self.changed.wait_timeout(state, left)
                }
            };
        }
    }
}
