//! The book of the events that sessions have handed to spools: which were confirmed, and which have arrived.

use super::hash::hash;
use crate::features::spool::sim::files::number;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

#[derive(Debug, Default)]
pub(super) struct Book {
    /// By what is random in the event's id.
    events: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    session: Arc<str>,
    hash: u64,
    /// Its session was told that it is on disk, by a spool that sends to the simulated server.
    is_confirmed: bool,
    /// And that a power cut cannot cost it.
    is_synced: bool,
    /// A fault has destroyed it.
    is_excused: bool,
    has_arrived: bool,
}

impl Entry {
    const fn is_missing(&self) -> bool {
        self.is_confirmed && !self.has_arrived && !self.is_excused
    }
}

impl Book {
    /// A session hands in an event.
    pub(super) fn log(&mut self, session: &Arc<str>, event: &[u8]) {
        if let Some(number) = number(event) {
            self.events.entry(number).or_insert_with(|| Entry {
                session: Arc::clone(session),
                hash: content(event),
                is_confirmed: false,
                is_synced: false,
                is_excused: false,
                has_arrived: false,
            });
        }
    }

    pub(super) fn confirm(&mut self, event: &[u8], is_synced: bool) {
        if let Some(entry) = number(event).and_then(|it| self.events.get_mut(&it)) {
            entry.is_confirmed = true;
            entry.is_synced |= is_synced;
        }
    }

    /// The server stores an event.
    pub(super) fn receive(&mut self, event: &[u8]) -> Result<(), &'static str> {
        let entry = number(event).and_then(|it| self.events.get_mut(&it));
        let entry = entry.ok_or("an event arrives that was never logged")?;
        entry.has_arrived = true;
        match entry.hash == content(event) {
            true => Ok(()),
            false => Err("an event does not arrive as it was logged"),
        }
    }

    /// A fault has destroyed these.
    pub(super) fn excuse(&mut self, events: impl IntoIterator<Item = u64>) {
        for number in events {
            if let Some(entry) = self.events.get_mut(&number) {
                entry.is_excused = true;
            }
        }
    }

    /// What these need to be read was destroyed after a sync: a power cut may cost them.
    pub(super) fn doubt(&mut self, events: impl IntoIterator<Item = u64>) {
        for number in events {
            if let Some(entry) = self.events.get_mut(&number) {
                entry.is_synced = false;
            }
        }
    }

    /// Those of these that must not be missing.
    pub(super) fn broken_promises(&self, gone: &BTreeSet<u64>) -> Vec<u64> {
        let is_broken = |number: &u64| {
            let entry = self.events.get(number);
            entry.is_some_and(|it| it.is_synced && it.is_missing())
        };
        gone.iter().copied().filter(is_broken).collect()
    }

    /// Those that were confirmed, and are neither at the server nor destroyed.
    pub(super) fn missing(&self) -> BTreeSet<u64> {
        let missing = self.events.iter().filter(|(_, it)| it.is_missing());
        missing.map(|(number, _)| *number).collect()
    }

    /// The sessions and ids of some of these.
    pub(super) fn names(&self, events: &[u64]) -> String {
        let some = events.iter().take(5).filter_map(|number| {
            let session = &self.events.get(number)?.session;
            Some(format!("{session} …{number:016x}"))
        });
        some.collect::<Vec<_>>().join(", ")
    }
}

/// The hash of an event. A line feed between two tokens may become a space on disk.
fn content(event: &[u8]) -> u64 {
    if !event.contains(&b'\n') {
        return hash(event);
    }
    let is_feed = |byte: &u8| if *byte == b'\n' { b' ' } else { *byte };
    hash(&event.iter().map(is_feed).collect::<Vec<_>>())
}
