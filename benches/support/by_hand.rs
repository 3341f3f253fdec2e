//! What the clients by hand have in common: the event on the wire, with a real timestamp and a cheap id, and the post.

use crate::event::{Data, NAME};
use core::time::Duration;
use serde::Serialize;
use std::io::Write;
use std::time::SystemTime;
use tinkex_telemetry::session::Uuid;
use tinkex_telemetry::time::Timestamp;

/// The beginning of a body, up to its events.
pub(crate) const PREFIX: &[u8] = br#"{"session_id":"send-path","platform":"unix/linux","sdk_version":"0.1.0","process_uuid":"0b7ae1d4-66a7-4e7e-a9b1-1f3a42ca3d5b","events":["#;

/// The end of a body.
pub(crate) const SUFFIX: &[u8] = b"]}";

#[derive(Serialize)]
struct Event<'a> {
    event: &'a str,
    event_id: &'a str,
    event_session_index: u64,
    severity: &'a str,
    #[serde(serialize_with = "timestamp")]
    timestamp: Timestamp,
    event_name: &'a str,
    event_data: Data,
}

fn timestamp<S: serde::Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(at)
}

/// Writes events, numbered.
pub(crate) struct Writer {
    index: u64,
    random: u64,
}

impl Writer {
    pub(crate) const fn new() -> Self {
        Self {
            index: 0,
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }

    #[inline]
    pub(crate) fn append(&mut self, at: SystemTime, data: Data, to: &mut impl Write) {
        let mut text = [0; 36];
        let event = Event {
            event: "GENERIC_EVENT",
            event_id: uuid(&mut self.random).hyphenated().encode_lower(&mut text),
            event_session_index: self.index,
            severity: "INFO",
            timestamp: at.into(),
            event_name: NAME,
            event_data: data,
        };
        self.index += 1;
        serde_json::to_writer(to, &event).expect("the event can be encoded");
    }
}

/// A cheap version 4 UUID.
fn uuid(state: &mut u64) -> Uuid {
    let mut next = || {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    };
    let bytes = (u128::from(next()) << 64 | u128::from(next())).to_be_bytes();
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

/// Counts of what was posted successfully.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// The events in all bodies.
    pub events: u64,
    /// Responses that say success.
    pub requests: u64,
    /// Of the bodies.
    pub bytes: u64,
}

/// Posts bodies with ureq.
pub(crate) struct Poster {
    url: String,
    agent: ureq::Agent,
    keys: u64,
    pub(crate) sent: Sent,
}

impl Poster {
    pub(crate) fn new(url: &str, timeout: Option<Duration>) -> Self {
        Self {
            url: format!("{url}/api/v1/telemetry"),
            agent: ureq::Agent::config_builder()
                .timeout_global(timeout)
                .build()
                .new_agent(),
            keys: 1,
            sent: Sent::default(),
        }
    }

    pub(crate) fn post(&mut self, body: &[u8], events: usize) {
        let response = self
            .agent
            .post(&self.url)
            .header("content-type", "application/json")
            .header("accept", "application/json")
            .header("user-agent", "minimal/0.1.0")
            .header("x-api-key", "sk-0123456789")
            .header("x-idempotency-key", uuid(&mut self.keys).to_string())
            .send(body);
        let response = response.and_then(|mut response| response.body_mut().read_to_vec());
        if response.is_ok() {
            self.sent.events += events as u64;
            self.sent.requests += 1;
            self.sent.bytes += body.len() as u64;
        }
    }
}
