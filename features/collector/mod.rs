//! An embedded telemetry backend on loopback, for examples, tests and development.
//!
//! A [`Collector`] listens on 127.0.0.1 in a thread of its own, checks each request against the
//! wire and keeps what it gets: events per [session](SessionRecord), with duplicates and gaps, and
//! every [request](RequestRecord). Its [answers](Reply) can be scripted, from `503` with
//! `retry-after` to connections that break off in the middle of an answer.
//!
//! ```
//! use std::io::{Read, Write};
//! use std::net::TcpStream;
//! use std::time::Duration;
//! use tinkex_telemetry::collector::{Answer, AnswerKind, Collector};
//!
//! let collector = Collector::builder().lenient().start()?;
//! collector.script([Answer::status(503).retry_after("1")]);
//!
//! let body = r#"{"session_id":"s","platform":"unix/linux","sdk_version":"1.0.0","events":[
//!     {"event":"SESSION_START","event_id":"a","event_session_index":0,"severity":"INFO",
//!      "timestamp":"2025-11-26T10:30:45.000000Z"}]}"#;
//! for _attempt in 0..2 {
//!     let mut stream = TcpStream::connect(collector.addr())?;
//!     write!(
//!         stream,
//!         "POST /api/v1/telemetry HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
//!          content-length: {}\r\n\r\n{body}",
//!         body.len(),
//!     )?;
//!     stream.read_to_end(&mut Vec::new())?;
//! }
//!
//! assert!(collector.wait_for("s", 1, Duration::from_secs(5)));
//! let session = collector.session("s").expect("it was kept");
//! assert_eq!(session.events()[0].kind().as_str(), "SESSION_START");
//! assert_eq!(collector.requests()[0].answer(), AnswerKind::Status(503));
//! assert_eq!(collector.requests()[1].answer(), AnswerKind::Status(200));
//! # std::io::Result::Ok(())
//! ```
//!
//! # What is checked
//!
//! [`check`] is the check of one body by itself. A strict collector, the default, also asks for the
//! wire's headers, and of the requests of a session together:
//!
//! - its first event is its `SESSION_START`. This is not asked once a request of that session was not
//!   kept, or one was not kept whose session could not be read: it may have been in there;
//! - new events come in the order of their indices, in which there may be gaps;
//! - an event that comes again is the same as before: the same id never has two contents, nor the
//!   same index two ids;
//! - nothing new follows `SESSION_END`.
//!
//! A request that breaks a rule is answered with the [`Violation`]'s status and
//! `{"error": "…", "field": "events[3].timestamp"}`, and none of its events are kept.
//!
//! # The rest of the backend
//!
//! A collector also takes the calls that clients make: sessions, sampling, training. [`Backend`] is
//! who answers them, with results of the right form or as it is told.
//!
//! # Limits
//!
//! HTTP/1 without TLS, on loopback; bodies up to 64 MiB; everything is kept in memory until the
//! collector is dropped.

mod backend;
mod connection;
mod record;
mod results;
mod script;
mod server;
mod state;

pub use super::wire::{Checked, CheckedEvent, EventKind, Mode, Violation, check};
pub use backend::{Backend, CallRecord};
pub use record::{EventRecord, RequestRecord, SessionRecord};
pub use script::{Reply, ResponseKind};
pub use server::{Collector, CollectorBuilder};
