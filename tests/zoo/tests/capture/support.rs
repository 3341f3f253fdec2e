//! Sessions that keep their events in memory.

use alloc::sync::Arc;
use core::fmt;
use core::time::Duration;
use serde_json::Value;
use std::sync::Mutex;
use tinkex_telemetry::runtime::{Runtime, Smol};
use tinkex_telemetry::session::Builder;
use tinkex_telemetry::{Batch, Receipt, Reporter, SendError, Thread, Tokio, Transport};

/// Longer than any wait here takes.
pub(crate) const BOUND: Duration = Duration::from_secs(20);

/// The events that have arrived.
#[derive(Clone, Default)]
pub(crate) struct Kept(Arc<Mutex<Vec<Value>>>);

impl Transport for Kept {
    async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
        let events = batch.events().map(serde_json::from_slice);
        let events: Result<Vec<Value>, _> = events.collect();
        let mut kept = self.0.lock().expect("no panic");
        kept.extend(events.expect("JSON"));
        Ok(Receipt::delivered())
    }
}

impl Kept {
    pub(crate) fn events(&self) -> Vec<Value> {
        self.0.lock().expect("no panic").clone()
    }

    /// All events except the session's start and end.
    pub(crate) fn logged(&self) -> Vec<Value> {
        let mut events = self.events();
        events.retain(|event| event["event"] != "SESSION_START" && event["event"] != "SESSION_END");
        events
    }

    /// The type, without the path of one that is known, and message of each exception.
    pub(crate) fn exceptions(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let name = |value: &Value| match value.as_str().expect("a text").rsplit_once("::") {
            Some((_, name)) => name.to_owned(),
            None => text(value),
        };
        self.logged()
            .iter()
            .filter(|event| event["event"] == "UNHANDLED_EXCEPTION")
            .map(|event| (name(&event["error_type"]), text(&event["error_message"])))
            .collect()
    }
}

pub(crate) type Session<R> = Reporter<Kept, R, R>;

pub(crate) fn builder<R: Runtime>(runtime: R) -> (Builder<Kept, R, R>, Kept) {
    let kept = Kept::default();
    let builder = Reporter::builder("s")
        .transport(kept.clone())
        .runtime(runtime)
        .enabled(true);
    (builder, kept)
}

pub(crate) fn thread() -> (Session<Thread>, Kept) {
    let (builder, kept) = builder(Thread);
    (builder.start().expect("the session starts"), kept)
}

pub(crate) fn tokio() -> (Session<Tokio>, Kept) {
    let (builder, kept) = builder(Tokio);
    (builder.start().expect("the session starts"), kept)
}

pub(crate) fn smol() -> (Session<Smol>, Kept) {
    let (builder, kept) = builder(Smol);
    (builder.start().expect("the session starts"), kept)
}

/// Stops the session. Returns its exceptions.
pub(crate) fn finish(session: Session<Thread>, kept: &Kept) -> Vec<(String, String)> {
    let drain = session.stop_blocking(BOUND).expect("no deadlock");
    assert!(drain.all_delivered(), "{drain:?}");
    kept.exceptions()
}

pub(crate) fn pair(error_type: &str, message: &str) -> (String, String) {
    (error_type.into(), message.into())
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failed(pub(crate) &'static str);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl core::error::Error for Failed {}

/// Runs `work`, which must panic. Returns the payload.
pub(crate) fn payload<R>(work: impl FnOnce() -> R) -> Box<dyn core::any::Any + Send> {
    match std::panic::catch_unwind(core::panic::AssertUnwindSafe(work)) {
        Ok(_) => panic!("`work` did not panic"),
        Err(payload) => payload,
    }
}
