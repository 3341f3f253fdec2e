//! The transport of a session that stores first: it hands batches to the writer.

use super::format;
use super::inner::Inner;
use super::job::{Job, JobParts};
use super::notes;
use crate::transport::{Batch, Objects, Receipt, SendError, SetupError, Transport};
use alloc::borrow::ToOwned as _;
use alloc::sync::Arc;
use core::fmt;
use core::future::poll_fn;
use core::sync::atomic::Ordering;

/// A session's way into a [`Spool`](super::Spool): a batch is handed over when it is written to disk.
///
/// Each session needs one of its own.
pub struct SpoolTransport {
    inner: Arc<Inner>,
    number: u64,
}

impl SpoolTransport {
    pub(super) fn new(inner: &Arc<Inner>) -> Self {
        inner.shared.lock().users += 1;
        Self {
            inner: Arc::clone(inner),
            number: inner.transports.fetch_add(1, Ordering::Relaxed),
        }
    }
}

/// At which attempt a batch goes straight although earlier events of its session are still on disk.
const PATIENT_ATTEMPTS: u32 = 2;

impl Transport for SpoolTransport {
    async fn send(&mut self, mut batch: Batch<'_>) -> Result<Receipt, SendError> {
        let inner = &*self.inner;
        if inner.fork.is_forked() {
            return Err(SendError::retryable(
                "the spool belongs to the parent process: start one after the fork",
            ));
        }
        if !inner.is_on {
            return Err(SendError::retryable("the spool is switched off"));
        }
        let (is_straight, must_wait) = {
            let state = inner.shared.lock();
            let is_straight = state.disk.is_bad(inner.shared.time.now());
            let must_wait = is_straight
                && batch.attempt() < PATIENT_ATTEMPTS
                && !state.counts.is_paused
                && state.has_pending(batch.session_id());
            (is_straight, must_wait)
        };
        if must_wait {
            return Err(SendError::retryable(
                "the spool cannot be written to, and earlier events are still in it",
            ));
        }
        let job = Arc::new(Job::new(JobParts {
            transport: self.number,
            session: batch.session_id().to_owned(),
            first_index: batch.first_index(),
            events: batch.event_count(),
            is_last: batch.is_last(),
            attempt: batch.attempt(),
            key: batch.idempotency_key(),
            list: batch.head.list,
            body: batch.take_body(),
        }));
        if let Some(witness) = &inner.witness {
            witness.takes(&job.session, job.events());
        }
        if is_straight {
            let job = Arc::clone(&job);
            inner.shared.update(|state| state.straight.push_back(job));
        } else if let Err(error) = inner.queue.push(Arc::clone(&job)) {
            note_failure(inner, &error);
            return Err(error);
        }
        let given_up = GivesUp {
            inner,
            job: &job,
            is_straight,
        };
        let result = poll_fn(|context| job.poll(context.waker())).await;
        core::mem::forget(given_up);
        if let (Some(witness), Ok(receipt)) = (&inner.witness, &result)
            && receipt.handed_over
            && !is_straight
        {
            let is_urgent = job.is_last || Objects(job.events()).any(format::is_error);
            witness.confirms(job.events(), is_urgent);
        }
        result
    }

    fn destination(&self) -> Option<&str> {
        self.inner.destination.as_deref()
    }

    fn warning(&self) -> Option<SetupError> {
        self.inner.warning.clone()
    }
}

fn note_failure(inner: &Inner, error: &SendError) {
    let is_straight_now = {
        let now = inner.shared.time.now();
        inner.shared.update(|state| state.disk.note_failure(now))
    };
    if is_straight_now {
        notes::disk_failed(&inner.path, &std::io::Error::other(error.clone()));
    }
}

/// Gives up the job when the attempt is dropped: at its deadline, or at a stop's.
struct GivesUp<'a> {
    inner: &'a Inner,
    job: &'a Arc<Job>,
    is_straight: bool,
}

impl Drop for GivesUp<'_> {
    fn drop(&mut self) {
        if let Some(Ok(receipt)) = self.job.cancel() {
            if receipt.handed_over && !self.is_straight {
                // Written, a moment too late for its session.
                let (transport, events) = (self.job.transport, self.job.events as u64);
                self.inner
                    .shared
                    .update(|state| state.note_late(transport, events));
            }
            return;
        }
        if self.is_straight {
            let mut state = self.inner.shared.lock();
            state.straight.retain(|job| !Arc::ptr_eq(job, self.job));
        } else if self.inner.queue.give_up(self.job) {
            notes::disk_stalls(&self.inner.path, self.job.events);
            note_failure(self.inner, &SendError::retryable("it does not answer"));
        }
    }
}

impl Drop for SpoolTransport {
    fn drop(&mut self) {
        if self.inner.fork.is_forked() {
            return;
        }
        self.inner.queue.end(self.number);
        self.inner.leave();
    }
}

impl fmt::Debug for SpoolTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpoolTransport")
            .field("path", &self.inner.path)
            .finish_non_exhaustive()
    }
}
