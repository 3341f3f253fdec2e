//! What the simulated server keeps of events that a test asks for: the events themselves.

use crate::wire::{CheckedEvent, EventRecord};
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

/// New events, by session and in the order of their indices.
#[derive(Default)]
pub(super) struct Kept {
    sessions: BTreeMap<String, Vec<EventRecord>>,
    count: usize,
}

impl Kept {
    /// Later events are counted as ever, but not kept.
    pub(super) const MAX: usize = 100_000;

    pub(super) fn add(&mut self, session: &str, event: &CheckedEvent<'_>) {
        if self.count == Self::MAX {
            return;
        }
        self.count += 1;
        let record = EventRecord::from(event);
        match self.sessions.get_mut(session) {
            Some(records) => records.push(record),
            None => {
                self.sessions.insert(session.to_string(), [record].into());
            }
        }
    }

    pub(super) fn of(&self, session: &str) -> Vec<EventRecord> {
        self.sessions.get(session).cloned().unwrap_or_default()
    }
}
