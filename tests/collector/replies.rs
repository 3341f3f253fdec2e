//! The replies that a collector can be scripted to send.

use core::time::Duration;
use std::{io::Write, time::Instant};

use serde_json::json;
use tinkex_telemetry::collector::{Collector, Reply, ReplyKind};

use crate::client::*;

#[test]
fn replies_follow_the_script_and_then_the_default() {
    let collector = Collector::start().expect("starts");
    collector.script([Reply::status(503), Reply::status(429)]);
    collector.always(Reply::status(500));
    let request = batch("s", &[start()]);
    let statuses = [(); 4].map(|()| send(&collector, &request));
    assert_eq!(statuses, [503, 429, 500, 500]);
    assert!(collector.session("s").is_none());
    collector.always(Reply::accept());
    assert_eq!(send(&collector, &request), 200);
    let replies: Vec<_> = collector.requests().iter().map(|r| r.reply()).collect();
    assert_eq!(replies, [503, 429, 500, 500, 200].map(ReplyKind::Status));
}

#[test]
fn a_reply_has_the_scripted_headers_and_body() {
    let collector = Collector::start().expect("starts");
    let reply = Reply::status(429)
        .retry_after("120")
        .header("x-more", "1")
        .body("slowly");
    collector.script([reply]);
    let response = read(post(&collector, &batch("s", &[start()])));
    assert!(response.contains("\r\nretry-after: 120\r\n"), "{response}");
    assert!(response.contains("\r\nx-more: 1\r\n"), "{response}");
    assert!(response.ends_with("\r\n\r\nslowly"), "{response}");
}

#[test]
fn a_connection_can_close_without_a_response() {
    let collector = Collector::start().expect("starts");
    let request = batch("s", &[start()]);
    let cases = [
        (
            Reply::close_before_body(),
            ReplyKind::CloseBeforeBody,
            false,
        ),
        (Reply::close_after_body(), ReplyKind::CloseAfterBody, false),
        (Reply::lost(), ReplyKind::CloseAfterBody, true),
    ];
    for (reply, kind, is_kept) in cases {
        collector.script([reply]);
        assert_eq!(read(post(&collector, &request)), "");
        let last = collector.requests().pop().expect("recorded");
        assert_eq!((last.reply(), last.is_kept()), (kind, is_kept));
    }
    assert_eq!(send(&collector, &request), 200);
    assert_eq!(collector.session("s").expect("stored").duplicates(), 1);
}

#[test]
fn a_connection_can_close_before_the_body_is_sent() {
    let collector = Collector::start().expect("starts");
    collector.script([Reply::close_before_body()]);
    let mut stream = connect(collector.addr());
    let head = format!("{LINE} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("written");
    assert_eq!(read(stream), "");
    assert_eq!(collector.requests()[0].session(), None);
}

#[test]
fn garbage_is_not_http_and_its_events_are_stored_only_on_request() {
    let collector = Collector::start().expect("starts");
    collector.script([Reply::garbage(), Reply::garbage().body("\0\0").keep()]);
    let first = read(post(&collector, &batch("s", &[start()])));
    assert!(!first.is_empty() && !first.starts_with("HTTP/"), "{first}");
    assert!(collector.session("s").is_none());
    assert_eq!(read(post(&collector, &batch("s", &[start()]))), "\0\0");
    assert_eq!(collector.session("s").expect("stored").len(), 1);
}

#[test]
fn a_truncated_response_announces_more_than_it_sends() {
    let collector = Collector::start().expect("starts");
    collector.script([Reply::truncated().body("0123456789")]);
    let response = read(post(&collector, &batch("s", &[start()])));
    assert_eq!(status(&response), 200);
    assert!(
        response.contains("\r\ncontent-length: 10\r\n"),
        "{response}"
    );
    assert!(response.ends_with("\r\n\r\n01234"), "{response}");
    assert_eq!(collector.session("s").expect("stored").len(), 1);
}

#[test]
fn a_delayed_reply_stores_its_events_before_it_responds() {
    let collector = Collector::start().expect("starts");
    collector.script([Reply::accept().delay(Duration::from_secs(3600))]);
    let stream = post(&collector, &batch("s", &[start()]));
    assert!(collector.wait_for("s", 1, BOUND));
    collector.stop();
    assert_eq!(read(stream), "");
}

#[test]
fn a_delay_lasts_at_least_as_long_as_asked() {
    let collector = Collector::start().expect("starts");
    // Real time, because the collector's own clock is under test.
    let delay = Duration::from_millis(30);
    collector.script([Reply::accept().delay(delay)]);
    let before = Instant::now();
    assert_eq!(send(&collector, &batch("s", &[start()])), 200);
    assert!(before.elapsed() >= delay);
}

#[test]
fn a_violation_replaces_success_and_nothing_else() {
    let collector = Collector::start().expect("starts");
    collector.script([Reply::status(202), Reply::status(503).keep()]);
    let mut request = batch("s", &[start()]);
    crate::violations::corrupt(&mut request, "/extra", Some(json!(1)));
    assert_eq!(send(&collector, &request), 422);
    assert_eq!(send(&collector, &request), 503);
    let violation = collector.requests()[1]
        .violation()
        .expect("recorded")
        .clone();
    assert_eq!((violation.field(), violation.status()), ("extra", 422));
    assert!(collector.session("s").is_none());
}
