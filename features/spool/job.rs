//! Jobs: batches on their way from a session to the disk, or straight to the forwarder.

use crate::transport::{Receipt, SendError};
use alloc::string::String;
use alloc::vec::Vec;
use core::task::{Poll, Waker};
use std::sync::{Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

/// One attempt at one batch. The attempt may be given up at any time; its worker looks before each step.
pub(super) struct Job {
    /// The transport that it comes from.
    pub(super) transport: u64,
    pub(super) session: String,
    pub(super) first_index: u64,
    pub(super) events: usize,
    pub(super) is_last: bool,
    pub(super) attempt: u32,
    pub(super) key: Uuid,
    /// The range of the events in the body.
    pub(super) list: (usize, usize),
    pub(super) body: Vec<u8>,
    slot: Mutex<Slot>,
}

#[derive(Default)]
struct Slot {
    is_cancelled: bool,
    result: Option<Result<Receipt, SendError>>,
    waker: Option<Waker>,
}

/// What a job is made of.
pub(super) struct JobParts {
    pub(super) transport: u64,
    pub(super) session: String,
    pub(super) first_index: u64,
    pub(super) events: usize,
    pub(super) is_last: bool,
    pub(super) attempt: u32,
    pub(super) key: Uuid,
    pub(super) list: (usize, usize),
    pub(super) body: Vec<u8>,
}

impl Job {
    pub(super) fn new(parts: JobParts) -> Self {
        Self {
            transport: parts.transport,
            session: parts.session,
            first_index: parts.first_index,
            events: parts.events,
            is_last: parts.is_last,
            attempt: parts.attempt,
            key: parts.key,
            list: parts.list,
            body: parts.body,
            slot: Mutex::default(),
        }
    }

    /// Gives up the attempt. Returns its result, if there was one that came too late to be seen.
    pub(super) fn cancel(&self) -> Option<Result<Receipt, SendError>> {
        let mut slot = self.slot();
        slot.is_cancelled = true;
        slot.result.take()
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.slot().is_cancelled
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what became of it. Returns false if the attempt had been given up, so that no one learns it.
    pub(super) fn finish(&self, result: Result<Receipt, SendError>) -> bool {
        let mut slot = self.slot();
        if slot.is_cancelled {
            return false;
        }
        slot.result = Some(result);
        let waker = slot.waker.take();
        drop(slot);
        if let Some(waker) = waker {
            crate::sys::panics::wake(waker);
        }
        true
    }

    pub(super) fn poll(&self, waker: &Waker) -> Poll<Result<Receipt, SendError>> {
        let mut slot = self.slot();
        if let Some(result) = slot.result.take() {
            return Poll::Ready(result);
        }
        let old = slot.waker.replace(waker.clone());
        drop(slot);
        drop(old);
        Poll::Pending
    }

    /// The events, with commas between them.
    pub(super) fn events(&self) -> &[u8] {
        let list = self.list.0..self.list.1;
        self.body.get(list).unwrap_or_default()
    }

    /// The fields before the events, as a JSON object without its closing brace.
    pub(super) fn fields(&self) -> &[u8] {
        let prefix = self.body.get(..self.list.0).unwrap_or_default();
        prefix.strip_suffix(br#","events":["#).unwrap_or(prefix)
    }
}
