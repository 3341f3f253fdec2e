//! What a program holds may cross `catch_unwind`, as anything whose state a panic leaves consistent.

use crate::support::{BOUND, events, start};
use core::panic::{RefUnwindSafe, UnwindSafe};
use std::panic::catch_unwind;
use tinkex_telemetry::bus::Bus;
use tinkex_telemetry::capture::Capture;
use tinkex_telemetry::client::{Pending, SamplingClient, ServiceClient, TrainingClient};
use tinkex_telemetry::collector::Collector;
use tinkex_telemetry::{Handle, Reporter, Telemetry, fields};

/// A type that is not unwind safe itself.
struct Unsafe(#[expect(dead_code, reason = "makes the type unsafe")] &'static mut u8);

#[test]
fn handles_reporters_buses_and_clients_cross_catch_unwind() {
    const fn crosses<T: UnwindSafe + RefUnwindSafe>() {}
    crosses::<Handle>();
    crosses::<Capture<'_>>();
    crosses::<Reporter<Unsafe, Unsafe, Unsafe>>();
    crosses::<Telemetry>();
    crosses::<Bus>();
    crosses::<ServiceClient>();
    crosses::<SamplingClient>();
    crosses::<TrainingClient>();
    crosses::<Pending<*mut Unsafe>>();
}

#[test]
fn a_session_goes_on_after_a_panic_between_its_calls() {
    let collector = Collector::start().expect("a collector");
    let session = start(&collector);
    let handle = session.handle();
    let caught = catch_unwind(|| {
        handle.log("before", fields! {});
        if handle.is_enabled() {
            panic!("between two calls");
        }
        handle.log("never", fields! {})
    });
    assert!(caught.is_err());
    assert!(handle.log("after", fields! {}));
    let drain = session.stop_blocking(BOUND).expect("it can wait");
    assert!(drain.all_delivered());
    let names: Vec<_> = events(&collector)
        .iter()
        .map(|event| event.name().into_owned())
        .collect();
    assert_eq!(names, ["SESSION_START", "before", "after", "SESSION_END"]);
}

#[test]
fn a_default_handle_is_off() {
    let handle = Handle::default();
    assert!(!handle.is_enabled());
    assert!(!handle.log("x", fields! {}));
}
