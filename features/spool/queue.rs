//! The writer's queue: what sessions want written, and whether the writer still gets on with it.

use super::job::Job;
use crate::transport::SendError;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::time::Duration;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What the writer is to do, in order.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<QueueState>,
    changed: Condvar,
}

#[derive(Default)]
struct QueueState {
    tasks: VecDeque<Task>,
    /// The job that is being written, and whether its session has given up waiting.
    current: Option<Arc<Job>>,
    is_given_up: bool,
    is_closed: bool,
}

pub(super) enum Task {
    Write(Arc<Job>),
    /// The transport with this number is dropped.
    End(u64),
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
        self.changed.notify_one();
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
        self.changed.notify_one();
    }

    /// Says that no more jobs will come.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_one();
    }

    /// The next task; `None` when the queue is closed and empty. `idle` is called once in `period`.
    pub(super) fn next(&self, period: Option<Duration>, mut idle: impl FnMut()) -> Option<Task> {
        let mut due = period.and_then(|period| Instant::now().checked_add(period));
        let mut state = self.lock();
        state.current = None;
        state.is_given_up = false;
        loop {
            if due.is_some_and(|due| due <= Instant::now()) {
                drop(state);
                idle();
                due = period.and_then(|period| Instant::now().checked_add(period));
                state = self.lock();
            }
            if let Some(task) = state.tasks.pop_front() {
                if let Task::Write(job) = &task {
                    state.current = Some(Arc::clone(job));
                }
                return Some(task);
            }
            if state.is_closed {
                return None;
            }
            state = match due {
                None => self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(due) => {
                    let left = due.saturating_duration_since(Instant::now());
                    let waited = self.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}
