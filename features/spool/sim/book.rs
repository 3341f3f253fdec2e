//! The book of all events: which were logged, confirmed and received, and which of them a fault has destroyed.

use super::faults::Fault;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

#[derive(Default)]
pub(super) struct Book {
    /// By the number in the event's id.
    pub(super) events: Vec<Event>,
    /// Confirmed, and neither received nor excused.
    pub(super) open: BTreeSet<u64>,
    /// How often each fault has happened, and how often it could have cost an event.
    pub(super) faults: BTreeMap<Fault, (u32, u32)>,
    /// The events in batches that were under way when their process ended, or when a session gave them up.
    pub(super) unknown: u64,
    /// What processes that have ended have counted.
    pub(super) evicted: u64,
    /// The events whose last file was removed before they were sent.
    pub(super) removed: BTreeSet<u64>,
    pub(super) late: u64,
    pub(super) received: u64,
    /// A process has started when the wall clock was wrong: no one can know how old its events are.
    pub(super) began_late: bool,
    /// Sent without being stored.
    pub(super) straight: u64,
}

pub(super) struct Event {
    pub(super) json: String,
    pub(super) to: usize,
    /// The session, by its place in the order in which they were opened, and the index in it.
    pub(super) session: u64,
    pub(super) index: u64,
    /// Its session was told that it is on disk.
    pub(super) is_confirmed: bool,
    /// It must survive a power cut.
    pub(super) is_durable: bool,
    /// What its line needs to be read was destroyed after a sync: none is expected to have it.
    pub(super) is_damaged: bool,
    /// A fault has destroyed it.
    pub(super) is_excused: bool,
    /// The backend refuses it.
    pub(super) is_invalid: bool,
    /// The backend has refused it alone.
    pub(super) was_refused: bool,
    pub(super) received: u32,
}

impl Event {
    /// It was confirmed and must still arrive, unless it is evicted.
    pub(super) const fn is_missing(&self) -> bool {
        self.is_confirmed && self.is_unsent()
    }

    /// It is neither where it goes nor destroyed.
    pub(super) const fn is_unsent(&self) -> bool {
        self.received == 0 && !self.is_excused && !self.was_refused
    }
}

impl Book {
    pub(super) fn count(&mut self, fault: Fault) {
        let counts = self.faults.entry(fault).or_default();
        counts.0 += 1;
        counts.1 += u32::from(!self.open.is_empty());
    }

    pub(super) fn event(&mut self, number: u64) -> Option<&mut Event> {
        self.events.get_mut(usize::try_from(number).ok()?)
    }

    pub(super) fn confirm(&mut self, number: u64, is_durable: bool) {
        if let Some(event) = self.event(number) {
            event.is_confirmed = true;
            event.is_durable |= is_durable;
            if event.received == 0 && !event.is_excused {
                self.open.insert(number);
            }
        }
    }

    pub(super) fn receive(&mut self, number: u64) {
        self.open.remove(&number);
        self.received += 1;
        if let Some(event) = self.event(number) {
            event.received += 1;
        }
    }

    pub(super) fn excuse(&mut self, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            self.open.remove(&number);
            if let Some(event) = self.event(number) {
                event.is_excused = true;
            }
        }
    }

    /// It is a session's start that was kept when the rest was evicted, although it could not be synced where it is now.
    pub(super) fn may_be_unsynced(&self, event: &Event) -> bool {
        let has_failed = self.has_happened(&[Fault::FailingSync, Fault::ReadOnly]);
        event.index == 0 && has_failed && !self.removed.is_empty()
    }

    pub(super) fn has_happened(&self, faults: &[Fault]) -> bool {
        faults.iter().any(|fault| self.faults.contains_key(fault))
    }
}
