//! NATS JetStream: stores events in a stream, one message for each.
//!
//! The engine and its promises stay the same; only what is on the wire differs. An event is one message:
//!
//! | part | contents |
//! |---|---|
//! | subject | `tinkex.v1.<session>.<kind>`: the session's id, and the event's `event` (`SESSION_START`, `GENERIC_EVENT`, …). In both, whatever is not an ASCII letter, a digit, `_` or `-` is percent-encoded, so that `a.b` becomes `a%2Eb`. Sessions whose id takes more than about 3 500 bytes that way are rejected |
//! | payload | the event's JSON, as the session has written it |
//! | `Nats-Msg-Id` | the event's id, by which the stream recognizes duplicates |
//! | `Nats-Expected-Stream` | the name of the stream: no other one stores the event |
//! | `Tinkex-Session` | the session's id, percent-encoded as in the subject |
//! | `Tinkex-Platform`, `Tinkex-Sdk-Version`, `Tinkex-Process` | the same fields of the body over HTTP |
//!
//! The stream is the program's, or its operators': nothing here makes or changes one. `nats stream add TINKEX --subjects
//! 'tinkex.v1.>'` makes one that takes every event.
//!
//! # What a consumer can rely on
//!
//! Every event that the session counts as handed over is in the stream. One whose acknowledgement was lost is sent again
//! with the same `Nats-Msg-Id`: the stream stores it once, if it comes within the stream's duplicate window, and twice
//! after that. So a consumer that must not count an event twice deduplicates by `event_id`; gaps show in
//! `event_session_index`. The messages of a batch that was sent again may be out of order.

mod ack;
mod attempts;
mod config;
mod link;
mod message;
mod network;
mod publish;
#[cfg(test)]
mod scripted;
#[cfg(all(test, feature = "sim"))]
mod simulated;
mod stored;
#[cfg(all(test, feature = "sim"))]
mod sweep;
#[cfg(test)]
mod tests;
mod transport;

pub use config::Servers;
pub use transport::JetStream;
