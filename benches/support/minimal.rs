//! The least that one would write by hand: `serde_json` on the caller, a channel, a thread that posts with ureq. No
//! limits, no retries, no deadlines, no ledger.

use super::event::{Data, NAME};
use core::time::Duration;
use serde::Serialize;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::SystemTime;
use tinkex_telemetry::session::Uuid;
use tinkex_telemetry::time::Timestamp;

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

enum Message {
    Event(Vec<u8>),
    Flush(SyncSender<Sent>),
}

/// What was posted, and answered with a success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) events: u64,
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
}

pub(crate) struct Minimal {
    messages: Sender<Message>,
    index: u64,
    random: u64,
}

impl Minimal {
    pub(crate) fn start(url: &str, batch: usize, timeout: Option<Duration>) -> Self {
        let agent = ureq::Agent::config_builder()
            .timeout_global(timeout)
            .build()
            .new_agent();
        let (messages, receiver) = channel();
        let mut poster = Poster {
            url: format!("{url}/api/v1/telemetry"),
            agent,
            body: Vec::new(),
            pending: 0,
            keys: 1,
            sent: Sent::default(),
        };
        thread::spawn(move || poster.run(&receiver, batch));
        Self {
            messages,
            index: 0,
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }

    pub(crate) fn log(&mut self, data: Data) {
        let mut text = [0; 36];
        let event = Event {
            event: "GENERIC_EVENT",
            event_id: uuid(&mut self.random).hyphenated().encode_lower(&mut text),
            event_session_index: self.index,
            severity: "INFO",
            timestamp: SystemTime::now().into(),
            event_name: NAME,
            event_data: data,
        };
        self.index += 1;
        let json = serde_json::to_vec(&event).expect("it can be encoded");
        self.messages
            .send(Message::Event(json))
            .expect("the thread lives");
    }

    /// Waits until everything is sent.
    pub(crate) fn drain(&self) -> Sent {
        let (done, wait) = sync_channel(1);
        self.messages
            .send(Message::Flush(done))
            .expect("the thread lives");
        wait.recv().expect("the thread lives")
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

struct Poster {
    url: String,
    agent: ureq::Agent,
    body: Vec<u8>,
    pending: usize,
    keys: u64,
    sent: Sent,
}

impl Poster {
    fn run(&mut self, messages: &Receiver<Message>, batch: usize) {
        while let Ok(message) = messages.recv() {
            match message {
                Message::Event(json) => {
                    self.append(&json);
                    if self.pending == batch {
                        self.post();
                    }
                }
                Message::Flush(done) => {
                    if self.pending > 0 {
                        self.post();
                    }
                    let _ = done.send(self.sent);
                }
            }
        }
    }

    fn append(&mut self, json: &[u8]) {
        if self.pending == 0 {
            self.body.clear();
            self.body.extend_from_slice(
                br#"{"session_id":"send-path","platform":"unix/linux","sdk_version":"0.1.0","process_uuid":"0b7ae1d4-66a7-4e7e-a9b1-1f3a42ca3d5b","events":["#,
            );
        } else {
            self.body.push(b',');
        }
        self.body.extend_from_slice(json);
        self.pending += 1;
    }

    fn post(&mut self) {
        self.body.extend_from_slice(b"]}");
        let answer = self
            .agent
            .post(&self.url)
            .header("content-type", "application/json")
            .header("accept", "application/json")
            .header("user-agent", "minimal/0.1.0")
            .header("x-api-key", "sk-0123456789")
            .header("x-idempotency-key", uuid(&mut self.keys).to_string())
            .send(&self.body[..]);
        let answer = answer.and_then(|mut answer| answer.body_mut().read_to_vec());
        if answer.is_ok() {
            self.sent.events += self.pending as u64;
            self.sent.requests += 1;
            self.sent.bytes += self.body.len() as u64;
        }
        self.pending = 0;
    }
}
