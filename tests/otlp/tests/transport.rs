//! What a collector's answers do to the ledger, and what is on the wire around the records.

use core::time::Duration;
use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use otlp::Collector;
use prost::Message as _;
use std::io::Read as _;
use tinkex_telemetry::otlp::{OtlpConfig, OtlpTransport, Protocol};
use tinkex_telemetry::session::SessionId;
use tinkex_telemetry::{Reporter, Stats, Thread};

fn config() -> OtlpConfig {
    OtlpConfig::new("http://127.0.0.1:4318").expect("a valid URL")
}

/// Logs eight events to a collector that answers in this way, and returns the ledger at the end.
fn send_eight(config: OtlpConfig, collector: &Collector) -> Stats {
    let transport = OtlpTransport::new(config, collector.clone());
    let reporter = Reporter::builder(SessionId::random())
        .transport(transport)
        .enabled(true)
        .retry_base_delay(Duration::from_millis(1))
        .runtime(Thread)
        .start()
        .expect("the session starts");
    for step in 0..8 {
        assert!(reporter.log(
            "step",
            tinkex_telemetry::fields! { word: format!("word {step}") }
        ));
    }
    let handle = reporter.handle();
    let stopped = reporter.stop_blocking(Duration::from_secs(60));
    let _ = stopped.expect("no executor waits here");
    let stats = handle.stats();
    assert!(stats.is_balanced(), "{stats:?}");
    stats
}

const START_TO_END: u64 = 10;

#[test]
fn what_a_collector_acknowledges_is_handed_over_and_not_delivered() {
    let stats = send_eight(config(), &Collector::default());
    assert_eq!((stats.delivered, stats.handed_over), (0, START_TO_END));
}

#[test]
fn records_that_a_partial_success_rejects_are_dropped_and_counted() {
    let partial = |rejected| {
        let response = ExportLogsServiceResponse {
            partial_success: Some(ExportLogsPartialSuccess {
                rejected_log_records: rejected,
                error_message: "too old".to_owned(),
            }),
        };
        &*Vec::leak(response.encode_to_vec())
    };
    for (rejected, dropped) in [(0, 0), (3, 3), (1_000, START_TO_END), (-1, 0)] {
        let collector = Collector::answering(&[(200, partial(rejected))]);
        let stats = send_eight(config(), &collector);
        assert_eq!(stats.dropped.rejected, dropped, "{rejected}");
        assert_eq!(stats.handed_over, START_TO_END - dropped, "{rejected}");
    }
    for (body, dropped) in [
        (&br#"{"partialSuccess":{"rejectedLogRecords":"3"}}"#[..], 3),
        (
            br#"{"partialSuccess":{"rejectedLogRecords":3,"errorMessage":""}}"#,
            3,
        ),
        (br#"{"partialSuccess":{}}"#, 0),
        (b"{}", 0),
        (b"not JSON", 0),
    ] {
        let collector = Collector::answering(&[(200, body)]);
        let stats = send_eight(config().protocol(Protocol::HttpJson), &collector);
        assert_eq!(stats.dropped.rejected, dropped);
    }
}

#[test]
fn an_answer_of_any_bytes_is_taken_for_what_its_status_says() {
    for body in [
        &b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"[..],
        b"\x0a\x05\x08",
        b"\xff",
        b"<html>",
    ] {
        let stats = send_eight(config(), &Collector::answering(&[(200, body)]));
        assert_eq!(stats.handed_over, START_TO_END);
    }
}

#[test]
fn only_what_the_protocol_lists_is_sent_again() {
    for status in [429, 502, 503, 504] {
        let collector = Collector::answering(&[(status, b""), (200, b"")]);
        assert_eq!(
            send_eight(config(), &collector).handed_over,
            START_TO_END,
            "{status}"
        );
        assert_eq!(collector.requests().len(), 2, "{status}");
    }
    for status in [401, 403, 404, 408, 500, 501, 301] {
        let collector = Collector::answering(&[(status, b""), (200, b"")]);
        assert_eq!(
            send_eight(config(), &collector).dropped.rejected,
            START_TO_END,
            "{status}"
        );
        assert_eq!(collector.requests().len(), 1, "{status}");
    }
}

#[test]
fn a_request_that_is_too_large_is_halved_however_the_collector_says_so() {
    let message = b"\x12\x11message too large";
    for answer in [
        (413, &b""[..]),
        (400, b"request body too large"),
        (400, message),
    ] {
        let collector = Collector::answering(&[answer, (200, b"")]);
        assert_eq!(send_eight(config(), &collector).handed_over, START_TO_END);
        assert!(collector.requests().len() > 2);
    }
}

#[test]
fn a_record_that_the_collector_finds_invalid_costs_no_other() {
    let stats = send_eight(config(), &Collector::refusing("word 3"));
    assert_eq!(stats.dropped.rejected, 1);
    // With a report of that one.
    assert_eq!((stats.handed_over, stats.reports), (START_TO_END, 1));
}

#[test]
fn requests_are_compressed_when_that_is_asked_for() {
    let (plain, compressed) = (Collector::default(), Collector::default());
    send_eight(config(), &plain);
    send_eight(config().gzip(), &compressed);
    let plain = plain.requests().remove(0);
    let compressed = compressed.requests().remove(0);
    assert!(!plain.headers().contains_key("content-encoding"));
    assert_eq!(compressed.headers()["content-encoding"], "gzip");
    assert!(compressed.body().len() < plain.body().len() / 2);
    let mut body = Vec::new();
    let read = GzDecoder::new(&**compressed.body()).read_to_end(&mut body);
    read.expect("gzip");
    let request = ExportLogsServiceRequest::decode(&*body).expect("a request");
    assert_eq!(request.resource_logs.len(), 1);
}

#[test]
fn a_request_goes_to_the_path_of_logs_with_its_media_type_and_headers() {
    for (protocol, media_type) in [
        (Protocol::HttpProtobuf, "application/x-protobuf"),
        (Protocol::HttpJson, "application/json"),
    ] {
        let collector = Collector::default();
        let config = config().header("authorization", "Bearer sk-secret");
        send_eight(
            config.expect("a valid header").protocol(protocol),
            &collector,
        );
        let request = collector.requests().remove(0);
        assert_eq!(request.method(), "POST");
        assert_eq!(request.uri(), "http://127.0.0.1:4318/v1/logs");
        assert_eq!(request.headers()["content-type"], media_type);
        assert_eq!(request.headers()["authorization"], "Bearer sk-secret");
        assert!(!request.headers().contains_key("x-api-key"));
    }
}
