//! The record that a collector keeps of a request.

use alloc::{string::String, sync::Arc, vec::Vec};
use std::time::Instant;

use http::HeaderMap;

use super::super::wire::violation::Violation;
use super::script::ReplyKind;

/// One request to the telemetry endpoint.
#[derive(Clone, Debug)]
pub struct RequestRecord {
    pub(super) arrived: Instant,
    pub(super) headers: HeaderMap,
    pub(super) session: Option<String>,
    /// The id and index of each event; empty unless the body passed the check.
    pub(super) events: Vec<(Arc<str>, u64)>,
    pub(super) response: ReplyKind,
    pub(super) is_kept: bool,
    pub(super) violation: Option<Violation>,
}

impl RequestRecord {
    /// Its estimated memory, in bytes. The events' ids are shared with the session, unless that is forgotten.
    pub(super) fn cost(&self) -> usize {
        let headers = self.headers.iter();
        let headers: usize = headers
            .map(|(name, value)| 128 + name.as_str().len() + value.len())
            .sum();
        let events: usize = self.events.iter().map(|(id, _)| 48 + id.len()).sum();
        512 + headers + events + self.session.as_ref().map_or(0, String::len)
    }

    /// When its headers were read.
    pub fn arrived(&self) -> Instant {
        self.arrived
    }

    /// Its headers. The API key is marked sensitive, so `Debug` does not print it.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Its `x-idempotency-key`, if it has one that is text.
    pub fn idempotency_key(&self) -> Option<&str> {
        self.headers.get("x-idempotency-key")?.to_str().ok()
    }

    /// The session that it names, if the body could be read that far.
    pub fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }

    /// The ids of its events, in order; none unless the body passed the check.
    pub fn event_ids(&self) -> impl ExactSizeIterator<Item = &str> {
        self.events.iter().map(|(id, _)| &**id)
    }

    /// The number of its events; 0 unless the body passed the check.
    pub fn event_count(&self) -> usize {
        self.events.len()
    }

    /// The index of its first event.
    pub fn first_index(&self) -> Option<u64> {
        self.events.first().map(|(_, index)| *index)
    }

    /// The index of its last event.
    pub fn last_index(&self) -> Option<u64> {
        self.events.last().map(|(_, index)| *index)
    }

    /// The kind of response it received.
    pub fn reply(&self) -> ReplyKind {
        self.response
    }

    /// Whether its events were kept.
    pub fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// Its violation of the wire format, if any.
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }
}
