//! What a collector stores, records and waits for.

use core::time::Duration;
use std::{io::Write, net::TcpStream, sync::mpsc, time::Instant};

use serde_json::json;
use tinkex_telemetry::collector::{Collector, EventKind, Reply};

use crate::client::*;

#[test]
fn a_session_is_stored_as_sent() {
    let collector = Collector::start().expect("starts");
    let events = [start(), generic(1), exception(2), end(3)];
    let response = read(post(&collector, &batch("s", &events)));
    assert_eq!(status(&response), 200);
    assert_eq!(body(&response), json!({"status": "accepted"}));

    let session = collector.session("s").expect("stored");
    assert_eq!(session.id(), "s");
    assert_eq!(session.platform(), "unix/linux");
    assert_eq!(session.sdk_version(), "1.0.0");
    assert_eq!(
        session.process_uuid(),
        Some("5f1c2d3e-4b5a-4c7d-8e9f-0a1b2c3d4e5f")
    );
    assert_eq!(session.len(), 4);
    assert!(session.has_ended());
    assert!(session.gaps().is_empty());
    assert_eq!(session.duplicates(), 0);
    let stored: Vec<_> = session.events().iter().map(|event| event.value()).collect();
    assert_eq!(stored, events);
    let second = &session.events()[1];
    assert_eq!(
        (second.index(), second.kind()),
        (1, EventKind::GenericEvent)
    );
    assert_eq!((second.id(), second.severity()), (&*id(1), "INFO"));
    assert!(collector.violations().is_empty());
}

#[test]
fn sessions_are_stored_separately() {
    let collector = Collector::start().expect("starts");
    for name in ["b", "a"] {
        assert_eq!(send(&collector, &batch(name, &[start()])), 200);
    }
    let names: Vec<_> = collector
        .sessions()
        .iter()
        .map(|s| s.id().to_owned())
        .collect();
    assert_eq!(names, ["a", "b"]);
    assert!(collector.session("c").is_none());
}

#[test]
fn a_repeated_event_is_a_duplicate_and_is_stored_once() {
    let collector = Collector::start().expect("starts");
    assert_eq!(send(&collector, &batch("s", &[start(), generic(1)])), 200);
    assert_eq!(
        send(&collector, &batch("s", &[generic(1), generic(2)])),
        200
    );
    let session = collector.session("s").expect("stored");
    assert_eq!((session.len(), session.duplicates()), (3, 1));
}

#[test]
fn a_duplicate_may_have_its_keys_in_a_different_order() {
    let collector = Collector::start().expect("starts");
    let text = batch("s", &[start()]).to_string();
    let moved = text.replace(r#""severity":"INFO","#, "").replace(
        r#"{"event":"SESSION_START""#,
        r#"{"severity":"INFO","event":"SESSION_START""#,
    );
    assert_ne!(text, moved);
    for body in [text, moved] {
        assert_eq!(
            status(&exchange(&collector, LINE, &HEADERS, body.as_bytes())),
            200
        );
    }
    assert_eq!(collector.session("s").expect("stored").duplicates(), 1);
}

#[test]
fn missing_indices_are_gaps() {
    let collector = Collector::start().expect("starts");
    assert_eq!(send(&collector, &batch("s", &[start(), generic(2)])), 200);
    assert_eq!(send(&collector, &batch("s", &[generic(6)])), 200);
    assert_eq!(
        collector.session("s").expect("stored").gaps(),
        [1..=1, 3..=5]
    );
}

#[test]
fn a_snapshot_does_not_change() {
    let collector = Collector::start().expect("starts");
    assert_eq!(send(&collector, &batch("s", &[start()])), 200);
    let before = collector.session("s").expect("stored");
    assert_eq!(send(&collector, &batch("s", &[generic(1)])), 200);
    assert_eq!(before.len(), 1);
    assert_eq!(collector.session("s").expect("stored").len(), 2);
}

#[test]
fn the_observer_sees_each_new_event_once() {
    let (sender, seen) = mpsc::channel();
    let collector = Collector::builder()
        .on_event(move |session, event| {
            sender
                .send((session.to_owned(), event.index()))
                .expect("the test listens");
        })
        .start()
        .expect("starts");
    assert_eq!(send(&collector, &batch("s", &[start(), generic(1)])), 200);
    assert_eq!(
        send(&collector, &batch("s", &[generic(1), generic(2)])),
        200
    );
    let seen: Vec<_> = seen.try_iter().collect();
    assert_eq!(seen, [0, 1, 2].map(|index| ("s".to_owned(), index)));
}

#[test]
fn a_request_is_recorded_with_everything_a_test_needs() {
    let before = Instant::now();
    let collector = Collector::start().expect("starts");
    collector.script([Reply::status(503)]);
    assert_eq!(send(&collector, &batch("s", &[start(), generic(4)])), 503);
    let request = collector.requests().pop().expect("recorded");
    assert!(request.arrived() >= before);
    assert_eq!(request.session(), Some("s"));
    assert_eq!(request.idempotency_key(), Some(KEY));
    assert_eq!(request.headers()["user-agent"], "test/1");
    assert_eq!(request.event_ids().collect::<Vec<_>>(), [id(0), id(4)]);
    assert_eq!(request.event_count(), 2);
    assert_eq!(
        (request.first_index(), request.last_index()),
        (Some(0), Some(4))
    );
    assert!(!request.is_kept());
}

#[test]
fn several_requests_can_share_a_connection() {
    let collector = Collector::start().expect("starts");
    let mut stream = connect(collector.addr());
    for request in [batch("s", &[start()]), batch("s", &[generic(1)])] {
        let body = request.to_string();
        let mut head = format!("{LINE} HTTP/1.1\r\nhost: localhost\r\n");
        for (name, value) in HEADERS {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len()).expect("written");
    }
    assert!(collector.wait_for("s", 2, BOUND));
}

#[test]
fn a_wait_ends_with_the_event_or_at_its_timeout() {
    let collector = Collector::start().expect("starts");
    assert!(!collector.wait_for("s", 1, Duration::ZERO));
    assert!(collector.wait_for("s", 0, Duration::ZERO));
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| collector.wait_for("s", 2, Duration::MAX));
        assert_eq!(send(&collector, &batch("s", &[start(), generic(1)])), 200);
        assert!(waiter.join().expect("no panic"));
    });
    assert!(!collector.wait_for("s", 3, Duration::from_millis(1)));
    assert!(!collector.wait_for_requests(2, Duration::from_millis(1)));
}

#[test]
fn dropping_a_collector_ends_stalled_requests_and_frees_its_port() {
    let collector = Collector::start().expect("starts");
    collector.always(Reply::stall());
    let streams = [(); 3].map(|()| post(&collector, &batch("s", &[start()])));
    let mut half_sent = connect(collector.addr());
    half_sent.write_all(b"POST /api/v1/tel").expect("written");
    assert!(collector.wait_for_requests(3, BOUND));
    let addr = collector.addr();
    drop(collector);
    for stream in streams {
        assert_eq!(read(stream), "");
    }
    assert_eq!(read(half_sent), "");
    let again = Collector::builder()
        .port(addr.port())
        .start()
        .expect("the port is free");
    assert_eq!(again.addr(), addr);
}

#[test]
fn a_stopped_collector_can_still_be_queried() {
    let collector = Collector::start().expect("starts");
    assert_eq!(send(&collector, &batch("s", &[start()])), 200);
    collector.stop();
    collector.stop();
    assert_eq!(collector.session("s").expect("stored").len(), 1);
    assert!(TcpStream::connect(collector.addr()).is_err());
    assert_eq!(collector.url(), format!("http://{}", collector.addr()));
}

#[test]
fn a_panicking_observer_costs_one_connection() {
    let collector = Collector::builder()
        .on_event(|_, event| assert!(event.index() != 0, "the observer panics on purpose"))
        .start()
        .expect("starts");
    assert_eq!(read(post(&collector, &batch("s", &[start()]))), "");
    assert_eq!(send(&collector, &batch("s", &[generic(1)])), 200);
}

#[test]
fn a_condition_on_a_session_can_be_waited_for_and_may_use_the_collector() {
    let collector = Collector::start().expect("starts");
    assert!(!collector.wait_until("s", Duration::ZERO, |_| true));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            collector.wait_until("s", BOUND, |session| {
                // It does not run under a lock.
                collector.requests().len() >= 2 && session.len() == 2
            })
        });
        for n in 0..2 {
            let event = if n == 0 { start() } else { generic(n) };
            assert_eq!(send(&collector, &batch("s", &[event])), 200);
        }
        assert!(waiting.join().expect("no panic"));
    });
    let event = collector
        .wait_for_event("s", "x", BOUND)
        .expect("it is there");
    assert_eq!(event.index(), 1);
    let none = collector.wait_for_event("s", "y", Duration::from_millis(1));
    assert!(none.is_none());
}

#[test]
fn requests_are_grouped_by_their_key_and_a_clear_forgets_them_but_not_the_script() {
    let collector = Collector::start().expect("starts");
    collector.script([Reply::status(503)]);
    for expected in [503, 200] {
        assert_eq!(send(&collector, &batch("s", &[start()])), expected);
    }
    let attempts = collector.attempts();
    assert_eq!(attempts.len(), 1);
    assert_eq!((&*attempts[0].0, attempts[0].1.len()), (KEY, 2));

    collector.script([Reply::status(500)]);
    collector.clear();
    assert!(collector.requests().is_empty() && collector.session("s").is_none());
    assert_eq!(send(&collector, &batch("s", &[generic(1)])), 500);
    // The session goes on, from its middle.
    assert_eq!(send(&collector, &batch("s", &[generic(1)])), 200);
    assert_eq!(collector.session("s").map(|session| session.len()), Some(1));
}
