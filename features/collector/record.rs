//! The records that a collector keeps: the events of each session, with duplicates and gaps.

use alloc::{borrow::ToOwned, format, string::String, sync::Arc, vec::Vec};
use core::ops::RangeInclusive;
use std::collections::HashMap;

use super::super::wire::calls::{CallEvent, Calls};
use super::super::wire::checked::{Checked, EventKind};
use super::super::wire::losses::{self, Losses};
use super::super::wire::record::EventRecord;
use super::super::wire::violation::{Place, Violation};

/// What a request says about its sender.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sender {
    pub(crate) platform: String,
    pub(crate) sdk_version: String,
    pub(crate) process_uuid: Option<String>,
}

impl Sender {
    pub(super) fn process_uuid(&self) -> Option<&str> {
        self.process_uuid.as_deref()
    }
}

impl From<&Checked<'_>> for Sender {
    fn from(checked: &Checked<'_>) -> Self {
        Self {
            platform: checked.platform().to_owned(),
            sdk_version: checked.sdk_version().to_owned(),
            process_uuid: checked.process_uuid().map(ToOwned::to_owned),
        }
    }
}

/// The record of one session.
#[derive(Clone, Debug, Default)]
pub struct SessionRecord {
    id: String,
    sender: Sender,
    /// Sorted by index; each index occurs once.
    events: Vec<EventRecord>,
    indices: HashMap<Arc<str>, u64>,
    duplicates: u64,
    has_ended: bool,
    has_failed: bool,
    /// It has ended, and not by a fatal exception.
    is_over: bool,
    calls: Calls,
    /// The latest loss report, and its index.
    report: Option<(u64, Losses)>,
    run: u32,
    /// The first index that can be missing: of a session whose beginning was forgotten, the first that came after.
    first: u64,
    /// The bytes of its sender's texts that are accounted for.
    sender_bytes: usize,
    /// Its estimated memory, if that is bounded, and when it was changed last.
    pub(super) cost: usize,
    pub(super) changed: u64,
}

/// The rules on the order of a session's events.
#[derive(Clone, Copy, Debug)]
pub(super) struct OrderRules {
    /// The first event is a `SESSION_START`.
    pub(super) begins_with_start: bool,
    /// Nothing follows the `SESSION_END`, unless a fatal exception may have ended the session: a program that survives it
    /// goes on logging. Other threads may log between the exception and the end.
    pub(super) nothing_after_end: bool,
    /// There is at most one `SESSION_END`.
    pub(super) ends_once: bool,
    /// A new event's index is greater than all earlier ones.
    pub(super) increases: bool,
    /// A call has one start and, after it, one end.
    pub(super) pairs_calls: bool,
    /// Loss reports agree with the events.
    pub(super) checks_losses: bool,
}

impl SessionRecord {
    /// The estimated memory of a record without events, in bytes.
    pub(super) const COST: usize = 512;

    pub(super) fn new(id: &str, run: u32) -> Self {
        Self {
            id: id.to_owned(),
            run,
            ..Self::default()
        }
    }

    /// The session's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The number of the run, from 1. A lenient collector begins a new run, with a record of its own, when the session's
    /// first event arrives again under another id: a program that ran twice with the same session id.
    pub fn run(&self) -> u32 {
        self.run
    }

    /// The platform, from the latest request.
    pub fn platform(&self) -> &str {
        &self.sender.platform
    }

    /// The sender's version, from the latest request.
    pub fn sdk_version(&self) -> &str {
        &self.sender.sdk_version
    }

    /// The sender's process, from the latest request.
    pub fn process_uuid(&self) -> Option<&str> {
        self.sender.process_uuid.as_deref()
    }

    /// The distinct events, sorted by index.
    pub fn events(&self) -> &[EventRecord] {
        &self.events
    }

    /// The number of distinct events.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there are no events.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The number of received events that had already been kept.
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// The missing indices, from 0 to the last one kept: those of lost events. Of a session that goes on after it was
    /// cleared or forgotten they count from the first event after that.
    pub fn gaps(&self) -> Vec<RangeInclusive<u64>> {
        gaps_of(self.first, self.events.iter())
    }

    /// Whether its `SESSION_END` was kept.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Keeps the events of one request: all, or none if one violates `rules`. Returns the new ones.
    pub(super) fn take(
        &mut self,
        sender: Sender,
        events: Vec<EventRecord>,
        rules: OrderRules,
    ) -> Result<Vec<EventRecord>, Violation> {
        let new = self.admit(&events, rules)?;
        self.duplicates += (events.len() - new.len()) as u64;
        self.sender = sender;
        self.insert(&new);
        Ok(new)
    }

    /// What came before these events is not lost, only not here.
    pub(super) fn begins_with(&mut self, events: &[EventRecord]) {
        self.first = events.first().map_or(0, EventRecord::index);
    }

    /// How many bytes the sender's texts have more than ever before.
    pub(super) fn sender_grown(&mut self) -> usize {
        let Sender {
            platform,
            sdk_version,
            process_uuid,
        } = &self.sender;
        let uuid = process_uuid.as_ref().map_or(0, String::len);
        let bytes = platform.len() + sdk_version.len() + uuid;
        let grown = bytes.saturating_sub(self.sender_bytes);
        self.sender_bytes += grown;
        grown
    }

    /// Inserts events that increase in index. Time is linear in all events, and only in these if they are the last.
    fn insert(&mut self, new: &[EventRecord]) {
        for event in new {
            self.has_failed |= event.is_failure();
            self.is_over |= event.kind == EventKind::SessionEnd
                && !self.has_failed
                && self.has_predecessor(new, event.index);
            self.has_ended |= event.kind == EventKind::SessionEnd;
            if let Some(call) = CallEvent::read(&event.json) {
                // Known to be in order, or not expected to be.
                let _ = self.calls.note(call);
            }
            if let Some(Ok(losses)) = Losses::read(&event.json) {
                self.report = Some((event.index, losses));
            }
            self.indices.insert(event.id.clone(), event.index);
        }
        let last = self.events.last().map(|event| event.index);
        let is_late = new.first().map(|event| event.index) < last;
        self.events.extend_from_slice(new);
        if is_late {
            // Two sorted runs, which a stable sort only merges.
            self.events.sort_by_key(|event| event.index);
        }
    }

    /// Whether the event directly before this index is known, kept or among `new`: a missing one may have been the
    /// exception that ended the session. A loss report may come between that and the end.
    fn has_predecessor(&self, new: &[EventRecord], index: u64) -> bool {
        match self.before(new, index) {
            Some(event) if losses::is_report(&event.json) => {
                self.before(new, event.index).is_some()
            }
            event => event.is_some(),
        }
    }

    /// The event directly before this index, kept or among `new`.
    fn before<'a>(&'a self, new: &'a [EventRecord], index: u64) -> Option<&'a EventRecord> {
        let before = index.checked_sub(1)?;
        let at = new.binary_search_by_key(&before, |event| event.index);
        match at {
            Ok(at) => new.get(at),
            Err(_) => self.at(before),
        }
    }

    /// Checks a loss report against the events, kept or among `new`.
    fn check_report(
        &self,
        new: &[EventRecord],
        report: &EventRecord,
        losses: &Losses,
        place: Place,
    ) -> Result<(), Violation> {
        for (indices, is_refused) in losses.runs() {
            let first_of = |events: &'_ [EventRecord]| {
                let at = events.partition_point(|event| event.index < *indices.start());
                let index = events.get(at).map(|event| event.index);
                index.filter(|index| indices.contains(index))
            };
            // An event that was dropped may be here all the same, where a response was lost.
            let received = first_of(&self.events).or_else(|| first_of(new));
            let own = Some(report.index).filter(|index| losses.lists(*index));
            if let Some(index) = own.or(received.filter(|_| is_refused)) {
                let problem = format!("says that event {index} was never sent, which is here");
                return Err(place.violation("event_data.lost", problem));
            }
        }
        Ok(())
    }

    /// Checks that what is missing before a `SESSION_END` has been reported, if the session reports losses at all.
    fn check_missing(
        &self,
        new: &[EventRecord],
        end: u64,
        report: Option<&(u64, Losses)>,
        has_failed: bool,
        place: Place,
    ) -> Result<(), Violation> {
        let Some((at, losses)) = report else {
            return Ok(());
        };
        if at.checked_add(1) == Some(end) {
            let gaps = gaps_of(self.first, self.events.iter().chain(new));
            if losses.leaves_unexplained(&gaps) {
                let problem = format!(
                    "is {end}, and the loss report before it does not tell of all that is missing"
                );
                return Err(place.violation("event_session_index", problem));
            }
        } else if !has_failed && self.before(new, end).is_some() {
            let problem = "is the end of a session with losses, without a report of them before it";
            return Err(place.violation("event", problem));
        }
        Ok(())
    }

    /// Returns the new ones of `events`, which are increasing in index and distinct in id.
    fn admit(
        &self,
        events: &[EventRecord],
        rules: OrderRules,
    ) -> Result<Vec<EventRecord>, Violation> {
        let mut new = Vec::with_capacity(events.len());
        let (mut has_ended, mut is_over) = (self.has_ended, self.is_over);
        let mut has_failed = self.has_failed;
        let mut calls = Calls::default();
        let mut report = None;
        for (at, event) in events.iter().enumerate() {
            let place = Place::Event(at);
            if self.check_duplicate(event, place)? {
                continue;
            }
            self.check_order(event, place, rules)?;
            if rules.begins_with_start && self.is_empty() && new.is_empty() {
                check_start(event, place)?;
            }
            let is_second = has_ended && event.kind == EventKind::SessionEnd;
            if rules.ends_once && is_second || rules.nothing_after_end && is_over {
                return Err(place.violation("event", "follows the SESSION_END"));
            }
            if rules.pairs_calls
                && let Some(call) = CallEvent::read(&event.json)
                && let Err(problem) = calls.note_after(&self.calls, call)
            {
                return Err(place.violation("event_data.metadata.call", problem));
            }
            let is_end = event.kind == EventKind::SessionEnd;
            if rules.checks_losses {
                if let Some(losses) = Losses::read(&event.json) {
                    let losses =
                        losses.map_err(|problem| place.violation("event_data", problem))?;
                    self.check_report(&new, event, &losses, place)?;
                    report = Some((event.index, losses));
                }
                if is_end {
                    let report = report.as_ref().or(self.report.as_ref());
                    self.check_missing(&new, event.index, report, has_failed, place)?;
                }
            }
            has_failed |= event.is_failure();
            is_over |= is_end && !has_failed && self.has_predecessor(&new, event.index);
            has_ended |= is_end;
            new.push(event.clone());
        }
        Ok(new)
    }

    fn check_duplicate(&self, event: &EventRecord, place: Place) -> Result<bool, Violation> {
        match self
            .indices
            .get(&event.id)
            .and_then(|&index| self.at(index))
        {
            None => Ok(false),
            Some(kept) if kept.is_same(event) => Ok(true),
            Some(_) => Err(place.violation("event_id", "was already used with different content")),
        }
    }

    fn check_order(
        &self,
        event: &EventRecord,
        place: Place,
        rules: OrderRules,
    ) -> Result<(), Violation> {
        let key = "event_session_index";
        if let Some(kept) = self.at(event.index) {
            let hint = match event.kind {
                EventKind::SessionStart => "; does a second run use the session id of the first?",
                _ => "",
            };
            let problem = format!(
                "is {}, which belongs to event {}{hint}",
                event.index, kept.id
            );
            return Err(place.violation(key, problem));
        }
        match self.events.last() {
            Some(last) if rules.increases && event.index < last.index => {
                let problem = format!("is {} after {}, not greater", event.index, last.index);
                Err(place.violation(key, problem))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn has(&self, event_id: &str) -> bool {
        self.indices.contains_key(event_id)
    }

    pub(super) fn has_index(&self, index: u64) -> bool {
        self.at(index).is_some()
    }

    fn at(&self, index: u64) -> Option<&EventRecord> {
        let at = self
            .events
            .binary_search_by_key(&index, |event| event.index)
            .ok()?;
        self.events.get(at)
    }
}

/// The missing indices, from `first` to the last of these events, which increase in index.
fn gaps_of<'a>(
    first: u64,
    events: impl Iterator<Item = &'a EventRecord>,
) -> Vec<RangeInclusive<u64>> {
    let mut expected = first;
    let mut gaps = Vec::new();
    for event in events {
        if event.index > expected {
            gaps.push(expected..=event.index - 1);
        }
        expected = expected.max(event.index.saturating_add(1));
    }
    gaps
}

fn check_start(event: &EventRecord, place: Place) -> Result<(), Violation> {
    match event.kind {
        EventKind::SessionStart => Ok(()),
        other => {
            let problem = format!("is {other} before the session's SESSION_START");
            Err(place.violation("event", problem))
        }
    }
}
