//! What a collector can be told to answer.

use core::time::Duration;
use std::{io::Write, time::Instant};

use serde_json::json;
use tinkex_telemetry::collector::{Collector, Reply, ResponseKind};

use crate::client::*;

#[test]
fn answers_are_given_in_the_order_of_the_script_and_then_the_default() {
    let collector = Collector::start().expect("starts");
    collector.script([Reply::status(503), Reply::status(429)]);
    collector.always(Reply::status(500));
    let request = batch("s", &[start()]);
    let answers = [(); 4].map(|()| send(&collector, &request));
    assert_eq!(answers, [503, 429, 500, 500]);
    assert!(collector.session("s").is_none());
    collector.always(Reply::accept());
    assert_eq!(send(&collector, &request), 200);
    let answered: Vec<_> = collector.requests().iter().map(|r| r.answer()).collect();
    assert_eq!(
        answered,
        [503, 429, 500, 500, 200].map(ResponseKind::Status)
    );
}

#[test]
fn an_answer_has_the_headers_and_the_body_it_was_given() {
    let collector = Collector::start().expect("starts");
    let answer = Reply::status(429)
        .retry_after("120")
        .header("x-more", "1")
        .body("slowly");
    collector.script([answer]);
    let answer = read(post(&collector, &batch("s", &[start()])));
    assert!(answer.contains("\r\nretry-after: 120\r\n"), "{answer}");
    assert!(answer.contains("\r\nx-more: 1\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nslowly"), "{answer}");
}

#[test]
fn connections_can_end_without_an_answer() {
    let collector = Collector::start().expect("starts");
    let request = batch("s", &[start()]);
    let cases = [
        (
            Reply::close_before_body(),
            ResponseKind::CloseBeforeBody,
            false,
        ),
        (
            Reply::close_after_body(),
            ResponseKind::CloseAfterBody,
            false,
        ),
        (Reply::lost(), ResponseKind::CloseAfterBody, true),
    ];
    for (answer, kind, kept) in cases {
        collector.script([answer]);
        assert_eq!(read(post(&collector, &request)), "");
        let last = collector.requests().pop().expect("recorded");
        assert_eq!((last.answer(), last.is_kept()), (kind, kept));
    }
    assert_eq!(send(&collector, &request), 200);
    assert_eq!(collector.session("s").expect("kept").duplicates(), 1);
}

#[test]
fn a_connection_can_be_closed_before_its_body_is_sent() {
    let collector = Collector::start().expect("starts");
    collector.script([Reply::close_before_body()]);
    let mut stream = connect(collector.addr());
    let head = format!("{LINE} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("written");
    assert_eq!(read(stream), "");
    assert_eq!(collector.requests()[0].session(), None);
}

#[test]
fn garbage_is_not_http_and_its_events_are_kept_only_on_request() {
    let collector = Collector::start().expect("starts");
    collector.script([Reply::garbage(), Reply::garbage().body("\0\0").keep()]);
    let first = read(post(&collector, &batch("s", &[start()])));
    assert!(!first.is_empty() && !first.starts_with("HTTP/"), "{first}");
    assert!(collector.session("s").is_none());
    assert_eq!(read(post(&collector, &batch("s", &[start()]))), "\0\0");
    assert_eq!(collector.session("s").expect("kept").len(), 1);
}

#[test]
fn a_truncated_answer_promises_more_than_it_sends() {
    let collector = Collector::start().expect("starts");
    collector.script([Reply::truncated().body("0123456789")]);
    let answer = read(post(&collector, &batch("s", &[start()])));
    assert_eq!(status(&answer), 200);
    assert!(answer.contains("\r\ncontent-length: 10\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n01234"), "{answer}");
    assert!(collector.session("s").is_none());
}

#[test]
fn a_delayed_answer_has_kept_its_events_before_it_comes() {
    let collector = Collector::start().expect("starts");
    collector.script([Reply::accept().delay(Duration::from_secs(3600))]);
    let stream = post(&collector, &batch("s", &[start()]));
    assert!(collector.wait_for("s", 1, BOUND));
    collector.stop();
    assert_eq!(read(stream), "");
}

#[test]
fn a_delay_is_at_least_as_long_as_it_says() {
    let collector = Collector::start().expect("starts");
    // For real, since it is the collector's own clock that is tested.
    let delay = Duration::from_millis(30);
    collector.script([Reply::accept().delay(delay)]);
    let before = Instant::now();
    assert_eq!(send(&collector, &batch("s", &[start()])), 200);
    assert!(before.elapsed() >= delay);
}

#[test]
fn a_violation_takes_the_place_of_success_and_of_nothing_else() {
    let collector = Collector::start().expect("starts");
    collector.script([Reply::status(202), Reply::status(503).keep()]);
    let mut request = batch("s", &[start()]);
    crate::violations::spoil(&mut request, "/extra", Some(json!(1)));
    assert_eq!(send(&collector, &request), 422);
    assert_eq!(send(&collector, &request), 503);
    let violation = collector.requests()[1]
        .violation()
        .expect("recorded")
        .clone();
    assert_eq!((violation.field(), violation.status()), ("extra", 422));
    assert!(collector.session("s").is_none());
}
