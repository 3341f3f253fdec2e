//! What is true of a whole session, and of a part of a program: contexts, from the builder and the handles to the wire.
#![cfg(feature = "std")]
#![allow(clippy::std_instead_of_alloc, reason = "a program, not a library")]

mod handles;
mod sessions;

use core::error::Error;
use core::fmt;
use core::future::{Future, pending};
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};
use tinkex_telemetry::bus::{Bus, Value as BusValue};
use tinkex_telemetry::diagnostic::DiagnosticKind;
use tinkex_telemetry::event::{StatusError, Verdict};
use tinkex_telemetry::runtime::Clock;
use tinkex_telemetry::session::{Builder, ContextBuffer, Memory};
use tinkex_telemetry::time::{Instant, Timestamp};
use tinkex_telemetry::{
    Batch, Handle, Receipt, Reporter, SendError, Severity, Transport, capture, fields,
};

/// Keeps the bodies of the requests it is given.
#[derive(Clone, Default)]
struct Keep(Arc<Mutex<Vec<String>>>);

impl Transport for Keep {
    async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
        let body = String::from_utf8(batch.body().to_vec()).expect("UTF-8");
        self.bodies().push(body);
        Ok(Receipt::delivered())
    }
}

impl Keep {
    fn bodies(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn events(&self) -> Vec<Value> {
        let bodies = self.bodies();
        let events = bodies.iter().flat_map(|body| {
            let body: Value = serde_json::from_str(body).expect("the body is JSON");
            body["events"].as_array().expect("events").clone()
        });
        events.collect()
    }
}

/// A clock that stands still.
#[derive(Clone)]
struct Still;

impl Clock for Still {
    fn now(&self) -> Instant {
        Instant::ORIGIN
    }

    fn utc(&self) -> Timestamp {
        Timestamp::from_unix_micros(0)
    }

    fn sleep_until(&self, _: Instant) -> impl Future<Output = ()> + Send {
        pending()
    }
}

type Build = Builder<Keep, Still, ()>;
type Diagnostics = Arc<Mutex<Vec<(DiagnosticKind, u64, String)>>>;

fn builder(keep: &Keep) -> Build {
    Reporter::builder("s")
        .transport(keep.clone())
        .clock(Still)
        .enabled(true)
        .bus(Bus::new())
}

fn poll(driver: core::pin::Pin<&mut impl Future<Output = ()>>) -> Poll<()> {
    driver.poll(&mut Context::from_waker(Waker::noop()))
}

/// What a session sends, its start and end included, and what it reports.
fn sent_with_diagnostics(
    change: impl FnOnce(Build) -> Build,
    work: impl FnOnce(&Handle),
) -> (Vec<Value>, Vec<(DiagnosticKind, u64, String)>) {
    let (keep, told) = (Keep::default(), Diagnostics::default());
    let builder = builder(&keep).on_diagnostic({
        let told = Arc::clone(&told);
        move |diagnostic| {
            let reason = diagnostic.reason.to_owned();
            let mut told = told.lock().expect("no panic");
            told.push((diagnostic.kind, diagnostic.count, reason));
        }
    });
    let (reporter, driver) = change(builder).build().expect("valid options");
    work(&reporter);
    let mut driver = pin!(driver.run());
    let mut stop = pin!(reporter.stop(Duration::MAX));
    assert!(poll(driver.as_mut()).is_ready());
    let Poll::Ready(drain) = stop.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("the driver has ended");
    };
    assert!(drain.all_delivered());
    let told = told.lock().expect("no panic").clone();
    (keep.events(), told)
}

/// The events between a session's start and its end, with nothing reported.
fn sent(change: impl FnOnce(Build) -> Build, work: impl FnOnce(&Handle)) -> Vec<Value> {
    let (mut events, told) = sent_with_diagnostics(change, work);
    let losses = told
        .iter()
        .filter(|(kind, ..)| *kind != DiagnosticKind::ExceptionLogged);
    assert_eq!(losses.count(), 0, "{told:?}");
    assert_eq!(events.remove(0)["event"], "SESSION_START");
    assert_eq!(events.pop().expect("an end")["event"], "SESSION_END");
    events
}

fn data(events: &[Value]) -> Vec<&Value> {
    events.iter().map(|event| &event["event_data"]).collect()
}

/// An error with a cause.
#[derive(Debug)]
struct Failure(&'static str, Option<Box<Failure>>);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.1.as_ref().map(|source| &**source as _)
    }
}

struct Fails;

impl Serialize for Fails {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("out of paper"))
    }
}

struct Panics;

impl Serialize for Panics {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        std::panic::resume_unwind(Box::new("no message"))
    }
}
