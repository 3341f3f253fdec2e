//! An embedded telemetry backend on loopback, for examples, tests and development.
//!
//! A [`Collector`] listens on 127.0.0.1 in its own thread, checks each request against the wire format and keeps what
//! it receives: the events of each [session](SessionRecord), with duplicates and gaps, and every
//! [request](RequestRecord). Its [replies](Reply) can be scripted, from `503` with `retry-after` to connections that
//! break in the middle of a response.
//!
//! ```
//! use std::io::{Read, Write};
//! use std::net::TcpStream;
//! use std::time::Duration;
//! use tinkex_telemetry::collector::{Collector, Reply, ReplyKind};
//!
//! let collector = Collector::builder().lenient().start()?;
//! collector.script([Reply::status(503).retry_after("1")]);
//!
//! let body = r#"{"session_id":"s","platform":"unix/linux","sdk_version":"1.0.0","events":[
//!     {"event":"SESSION_START","event_id":"a","event_session_index":0,"severity":"INFO",
//!      "timestamp":"2025-11-26T10:30:45.000000Z"}]}"#;
//! for _attempt in 0..2 {
//!     let mut stream = TcpStream::connect(collector.addr())?;
//!     write!(
//!         stream,
//!         "POST /api/v1/telemetry HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
//!          content-length: {}\r\n\r\n{body}",
//!         body.len(),
//!     )?;
//!     stream.read_to_end(&mut Vec::new())?;
//! }
//!
//! assert!(collector.wait_for("s", 1, Duration::from_secs(5)));
//! let session = collector.session("s").expect("it was kept");
//! assert_eq!(session.events()[0].kind().as_str(), "SESSION_START");
//! assert_eq!(collector.requests()[0].reply(), ReplyKind::Status(503));
//! assert_eq!(collector.requests()[1].reply(), ReplyKind::Status(200));
//! # std::io::Result::Ok(())
//! ```
//!
//! # What is checked
//!
//! [`check`] checks one body alone. A strict collector, the default, also checks the headers, and the requests of a
//! session together:
//!
//! - the first event is a `SESSION_START`. This no longer applies once a request of the session, or one whose session
//!   could not be read, was not kept: it may have contained the `SESSION_START`;
//! - new events arrive in the order of their indices, which may have gaps;
//! - a repeated event equals the first: one id never has two contents, nor one index two ids;
//! - no new event follows `SESSION_END`, unless an exception or a `user_error` precedes it, or the event directly before
//!   it is missing: a program that survives a fatal exception goes on logging. A scrub hook that gives a fatal
//!   `user_error` another name needs [`events_after_end`](CollectorBuilder::events_after_end).
//!
//! The response to a request that violates a rule has the [`Violation`]'s status and the body
//! `{"error": "…", "field": "events[3].timestamp"}`, and none of the request's events are kept.
//!
//! # The rest of the backend
//!
//! A collector also serves the other calls of clients: sessions, sampling, training. Its [`Backend`] returns valid
//! results, or scripted ones. It speaks both the JSON of older clients and the protobuf of newer ones, which send the passes
//! of training in it and ask for the results of passes and samples in it. It does not speak compressed bodies.
//!
//! # Limits
//!
//! HTTP/1 without TLS, on loopback; bodies up to 64 MiB. Everything stays in memory until the collector is dropped,
//! unless [`max_memory`](CollectorBuilder::max_memory) bounds it.
//!
//! A request gets a 403 if its `Host` does not name this machine's loopback, or if its `Origin` or `Sec-Fetch-Site` says
//! that it comes from a web page: no page that a browser on this machine shows can send events or calls, not even under
//! a name that it has rebound to 127.0.0.1. The number of connections and the time that each may take without a
//! complete request are bounded, and the check of a long request holds up no other.

mod backend;
mod bodies;
mod connection;
mod guard;
mod ledger;
mod notice;
mod protobuf;
mod record;
mod request;
mod results;
mod script;
mod seats;
mod server;
mod state;
#[cfg(feature = "cli")]
pub(crate) mod tap;
mod tapped;

pub use super::wire::record::EventRecord;
pub use super::wire::{Checked, CheckedEvent, EventKind, Mode, Violation, check};
pub use backend::{Backend, CallRecord};
pub use notice::Notice;
pub use record::SessionRecord;
pub use request::RequestRecord;
pub use script::{Reply, ReplyKind};
pub use server::{Collector, CollectorBuilder};
