//! The transport against a server that commits faults on request.

use super::JetStream;
use super::scripted::{Published, Reaction, Server};
use crate::transport::{Receipt, SampleBatch, SendError, Transport as _};
use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::future::Future;
use core::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

fn on_tokio<T>(future: impl Future<Output = T>) -> T {
    let runtime = ::tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(future)
}

fn event(index: usize, data: &str) -> String {
    format!(
        r#"{{"event_id":"id-{index}","event_session_index":{index},"event":"GENERIC_EVENT","event_name":"e","event_data":{{"x":"{data}"}}}}"#
    )
}

fn batch(indices: core::ops::Range<usize>) -> SampleBatch {
    let first = indices.start as u64;
    SampleBatch::new("s.1", indices.map(|index| event(index, "")))
        .first_index(first)
        .time_left(PATIENCE)
}

fn transport(server: &Server) -> JetStream {
    JetStream::connect(&server.url).stream("EVENTS")
}

async fn send(transport: &mut JetStream, batch: &mut SampleBatch) -> Result<Receipt, SendError> {
    transport.send(batch.batch()).await
}

fn index(message: &Published) -> usize {
    message
        .id
        .strip_prefix("id-")
        .and_then(|id| id.parse().ok())
        .unwrap_or(usize::MAX)
}

#[test]
fn a_batch_is_one_message_for_each_event_on_one_connection() {
    let server = Server::start(|_| Reaction::Acknowledge);
    let mut transport = transport(&server);
    on_tokio(async {
        for range in [0..3, 3..4] {
            let sent = send(&mut transport, &mut batch(range)).await;
            assert_eq!(sent, Ok(Receipt::handed_over()));
        }
    });
    let received = server.received();
    assert_eq!(server.ids(), ["id-0", "id-1", "id-2", "id-3"]);
    assert_eq!(server.connections(), 1);
    assert!(
        received
            .iter()
            .all(|it| it.subject == "tinkex.v1.s%2E1.GENERIC_EVENT")
    );
    assert_eq!(received[2].payload, event(2, ""));
}

#[test]
fn more_events_than_may_be_unacknowledged_are_all_sent() {
    let server = Server::start(|_| Reaction::Acknowledge);
    let mut transport = transport(&server);
    let sent = on_tokio(send(&mut transport, &mut batch(0..5000)));
    assert_eq!(sent, Ok(Receipt::handed_over()));
    assert_eq!(server.received().len(), 5000);
}

#[test]
fn a_connection_that_breaks_in_mid_batch_costs_an_attempt_and_takes_its_queue_with_it() {
    let server = Server::start(|message| match (message.connection, index(message)) {
        (0, 5) => Reaction::Close,
        _ => Reaction::Acknowledge,
    });
    let mut transport = transport(&server);
    on_tokio(async {
        let mut batch = batch(0..50);
        let error = send(&mut transport, &mut batch)
            .await
            .expect_err("it broke");
        assert!(
            error.is_retryable() && error.to_string().contains("broke"),
            "{error}"
        );
        let before = server.received().len();
        // Time for a client that resumes by itself to do so.
        ::tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(server.received().len(), before);
        assert!(
            server
                .received()
                .iter()
                .all(|message| message.connection == 0)
        );

        let sent = send(&mut transport, &mut batch).await;
        assert_eq!(sent, Ok(Receipt::handed_over()));
    });
    let again = server
        .received()
        .into_iter()
        .filter(|message| message.connection > 0);
    let again: Vec<_> = again.map(|message| index(&message)).collect();
    assert!(again.ends_with(&(6..50).collect::<Vec<_>>()), "{again:?}");
}

#[test]
fn an_abandoned_attempt_ends_its_connection_and_sends_no_more() {
    let server = Server::start(|_| Reaction::Silence);
    let mut transport = transport(&server);
    on_tokio(async {
        let mut large =
            SampleBatch::new("s", (0..2000).map(|index| event(index, "x"))).time_left(PATIENCE);
        let attempt = send(&mut transport, &mut large);
        let abandoned = ::tokio::time::timeout(Duration::from_millis(200), attempt).await;
        assert!(abandoned.is_err());
        ::tokio::time::sleep(Duration::from_millis(200)).await;
        let before = server.received().len();
        ::tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(server.received().len(), before);
        assert!(before < 2000, "{before}");
        assert!(!transport.is_linked());
    });
}

#[test]
fn a_full_stream_is_retried_and_what_it_has_is_not_published_again() {
    let mut refusals = 1;
    let server = Server::start(move |message| {
        if index(message) == 2 && refusals > 0 {
            refusals -= 1;
            let full = r#"{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"},"stream":"EVENTS","seq":0}"#;
            return Reaction::Answer(full);
        }
        Reaction::Acknowledge
    });
    let mut transport = transport(&server);
    on_tokio(async {
        let mut batch = batch(0..4);
        let error = send(&mut transport, &mut batch)
            .await
            .expect_err("it is full");
        assert!(error.is_retryable());
        assert_eq!(
            error.to_string(),
            "3 of 4 events are stored, of indices 0 to 3; stream EVENTS: maximum messages exceeded (10077)"
        );
        let mut again = batch.attempt(1);
        assert_eq!(
            send(&mut transport, &mut again).await,
            Ok(Receipt::handed_over())
        );
    });
    assert_eq!(server.ids(), ["id-0", "id-1", "id-2", "id-3", "id-2"]);
    assert_eq!(server.connections(), 1);
}

#[test]
fn an_event_that_is_too_large_keeps_no_other_out_of_the_stream() {
    let server = Server::with("{}", 2000, |_| Reaction::Acknowledge);
    let mut transport = transport(&server);
    let large = "x".repeat(3000);
    let sample = |indices: core::ops::Range<usize>| {
        let first = indices.start as u64;
        let events = indices.map(|index| event(index, if index == 2 { &large } else { "" }));
        SampleBatch::new("s.1", events)
            .first_index(first)
            .time_left(PATIENCE)
    };
    on_tokio(async {
        let too_large = SendError::too_large("larger than the server's max_payload of 2000 bytes");
        assert_eq!(
            send(&mut transport, &mut sample(0..4)).await,
            Err(too_large.clone())
        );
        // As the session halves it.
        let sent = Ok(Receipt::handed_over());
        assert_eq!(send(&mut transport, &mut sample(0..2)).await, sent);
        assert_eq!(
            send(&mut transport, &mut sample(2..4)).await,
            Err(too_large.clone())
        );
        assert_eq!(
            send(&mut transport, &mut sample(2..3)).await,
            Err(too_large)
        );
        assert_eq!(send(&mut transport, &mut sample(3..4)).await, sent);
    });
    assert_eq!(server.ids(), ["id-0", "id-1", "id-3"]);
    assert_eq!(server.connections(), 1);
}

/// An event, and the end of its session: the last batch.
fn last_batch(data: &str) -> SampleBatch {
    let end = r#"{"event_id":"id-9","event_session_index":9,"event":"SESSION_END"}"#;
    SampleBatch::new("s.1", [event(7, ""), event(8, data), end.to_owned()])
        .first_index(7)
        .time_left(PATIENCE)
}

#[test]
fn nothing_of_a_batch_is_published_if_an_event_is_too_large_for_the_server() {
    let server = Server::with("{}", 2000, |_| Reaction::Acknowledge);
    let sent = on_tokio(send(
        &mut transport(&server),
        &mut last_batch(&"x".repeat(3000)),
    ));
    assert!(sent.is_err_and(|error| !error.is_retryable()));
    assert!(server.ids().is_empty());
}

#[test]
fn the_size_of_a_message_is_that_of_its_headers_and_its_payload() {
    // Found by trying: as the server counts it, whatever this client believes.
    let fits = |limit: usize| {
        let server = Server::with("{}", limit, |_| Reaction::Acknowledge);
        let sent = on_tokio(send(&mut transport(&server), &mut batch(0..1)));
        (sent.is_ok(), server.largest())
    };
    let (_, size) = fits(1 << 20);
    assert!(size > event(0, "").len());
    assert_eq!(fits(size), (true, size));
    assert_eq!(fits(size - 1), (false, 0));
}

#[test]
fn the_end_of_a_session_waits_until_the_stream_has_everything_before_it() {
    let mut refused = false;
    let server = Server::start(move |message| match (index(message), refused) {
        (8, false) => {
            refused = true;
            Reaction::Answer(
                r#"{"error":{"code":400,"err_code":10054,"description":"message size exceeds maximum allowed"}}"#,
            )
        }
        _ => Reaction::Acknowledge,
    });
    let mut transport = transport(&server);
    on_tokio(async {
        let error = send(&mut transport, &mut last_batch("")).await;
        assert!(error.is_err_and(|error| !error.is_retryable()));
        assert_eq!(server.ids(), ["id-7", "id-8"]);
        let sent = send(&mut transport, &mut last_batch("")).await;
        assert_eq!(sent, Ok(Receipt::handed_over()));
    });
    assert_eq!(server.ids(), ["id-7", "id-8", "id-8", "id-9"]);
}

#[test]
fn a_stream_that_finds_an_event_too_large_says_so() {
    let server = Server::start(|message| match index(message) {
        1 => Reaction::Answer(
            r#"{"error":{"code":400,"err_code":10054,"description":"message size exceeds maximum allowed"}}"#,
        ),
        _ => Reaction::Acknowledge,
    });
    let sent = on_tokio(send(&mut transport(&server), &mut batch(0..3)));
    let reason = "stream EVENTS: message size exceeds maximum allowed (10054)";
    assert_eq!(sent, Err(SendError::too_large(reason)));
}

#[test]
fn a_subject_that_no_stream_takes_is_retried() {
    let server = Server::start(|_| Reaction::NoResponders);
    let error = on_tokio(send(&mut transport(&server), &mut batch(0..3)));
    let error = error.expect_err("there is no stream");
    assert!(
        error.is_retryable() && error.to_string().contains("no stream takes"),
        "{error}"
    );
}

#[test]
fn a_missing_stream_is_told_before_anything_is_published() {
    let missing = r#"{"error":{"code":404,"err_code":10059,"description":"stream not found"}}"#;
    let server = Server::with(missing, 1 << 20, |_| Reaction::Acknowledge);
    let error = on_tokio(send(&mut transport(&server), &mut batch(0..3)));
    let error = error.expect_err("there is no stream");
    assert!(
        error.is_retryable() && error.to_string().contains("no stream EVENTS"),
        "{error}"
    );
    assert!(server.ids().is_empty());
}

#[test]
fn an_answer_of_another_stream_is_no_acknowledgement() {
    let server = Server::start(|_| Reaction::Answer(r#"{"stream":"OTHER","seq":1}"#));
    let error = on_tokio(send(&mut transport(&server), &mut batch(0..2)));
    assert!(error.is_err_and(|error| error.is_retryable()));
}

#[test]
fn silence_is_a_failed_attempt_that_repeats_what_the_server_complained_of() {
    let server = Server::start(|_| Reaction::Complain("Permissions Violation for Publish"));
    let mut transport = transport(&server);
    let mut batch = batch(0..2).time_left(Duration::from_millis(600));
    let error = on_tokio(send(&mut transport, &mut batch)).expect_err("there was no answer");
    let text = error.to_string();
    assert!(
        error.is_retryable() && text.to_lowercase().contains("permissions violation"),
        "{text}"
    );
    assert!(!transport.is_linked());
}

#[test]
fn the_next_attempt_asks_the_next_server() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = gone.local_addr().expect("an address").port();
    drop(gone);
    let server = Server::start(|_| Reaction::Acknowledge);
    let urls = format!("nats://127.0.0.1:{port},{}", server.url);
    let mut transport = JetStream::connect(&urls).stream("EVENTS");
    on_tokio(async {
        let error = send(&mut transport, &mut batch(0..1))
            .await
            .expect_err("refused");
        assert!(
            error.is_retryable() && error.to_string().contains(&format!("{port}")),
            "{error}"
        );
        for range in [0..1, 1..2] {
            assert!(send(&mut transport, &mut batch(range)).await.is_ok());
        }
        let again = JetStream::connect(&urls)
            .stream("EVENTS")
            .connected(PATIENCE)
            .await;
        assert!(again.is_ok_and(|transport| transport.is_linked()));
    });
}

#[test]
fn a_duplicate_window_that_is_too_short_is_told() {
    let info = r#"{"config":{"duplicate_window":10000000000}}"#;
    let server = Server::with(info, 1 << 20, |_| Reaction::Acknowledge);
    on_tokio(async {
        let connected = transport(&server)
            .connected(PATIENCE)
            .await
            .expect("connected");
        let warning = connected.warning().expect("10 s are too short");
        assert_eq!(
            warning.to_string(),
            "stream EVENTS recognizes duplicates for 10 s, and a batch may be retried for 60 s: set its duplicate_window"
        );
        let connected = connected.retry_horizon(Duration::from_secs(10));
        assert!(connected.warning().is_none());
        // Not known before it is connected.
        assert!(transport(&server).warning().is_none());
    });
}

#[test]
fn a_session_off_tokio_is_told_what_it_needs() {
    let mut transport = JetStream::connect("localhost").stream("EVENTS");
    let mut batch = batch(0..1);
    let attempt = core::pin::pin!(send(&mut transport, &mut batch));
    let polled = attempt.poll(&mut core::task::Context::from_waker(
        core::task::Waker::noop(),
    ));
    let core::task::Poll::Ready(Err(error)) = polled else {
        panic!("{polled:?}");
    };
    assert!(error.to_string().contains("Tokio"), "{error}");
}
