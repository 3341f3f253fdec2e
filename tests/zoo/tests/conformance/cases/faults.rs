//! Servers and networks that fail.

use crate::session::{BOUND, ID, Session, builder, open, options};
use crate::table::Verdict::{self, Passed};
use core::time::Duration;
use std::collections::HashSet;
use tinkex_telemetry::HttpTransport;
use tinkex_telemetry::collector::{Reply, ReplyKind};
use tinkex_telemetry::http::HttpClient;
use zoo::runtimes::RuntimeUnderTest;

fn keys<W: RuntimeUnderTest>(session: &Session<W>) -> Vec<String> {
    let requests = session.collector.requests();
    let keys = requests.iter().map(|request| request.idempotency_key());
    keys.map(|key| key.expect("every request has a key").to_owned())
        .collect()
}

pub(crate) fn a_retry_keeps_the_idempotency_key<W: RuntimeUnderTest, H: HttpClient>(
    client: fn() -> H,
) -> Verdict {
    let session = open::<W, H>(client, options());
    session.collector.script([500, 429, 408].map(Reply::status));
    session.log(1);
    session.deliver();
    session.log(1);
    session.deliver();
    let keys = keys(&session);
    assert_eq!(keys.len(), 5);
    assert!(keys[..4].iter().all(|key| *key == keys[0]));
    assert_ne!(keys[4], keys[0]);
    assert_eq!(session.kept().len(), 3);
    Passed
}

/// In real time, limited by the cap.
pub(crate) fn a_retry_after_is_honoured<W: RuntimeUnderTest, H: HttpClient>(
    client: fn() -> H,
) -> Verdict {
    let cap = Duration::from_millis(50);
    let mut options = options();
    options.retry_max_delay = cap;
    let session = open::<W, H>(client, options);
    session.collector.script([
        Reply::status(503).retry_after("3600"),
        Reply::status(429).retry_after("Thu, 31 Dec 2099 23:59:59 GMT"),
        Reply::status(503).retry_after("soon"),
    ]);
    session.deliver();
    let requests = session.collector.requests();
    assert_eq!(requests.len(), 4);
    for n in 0..2 {
        let gap = requests[n + 1].arrived() - requests[n].arrived();
        assert!(gap >= cap, "{gap:?}");
    }
    Passed
}

pub(crate) fn a_batch_that_is_too_large_is_split<W: RuntimeUnderTest, H: HttpClient>(
    client: fn() -> H,
) -> Verdict {
    let session = open::<W, H>(client, options());
    session.deliver();
    session.collector.script([413, 413].map(Reply::status));
    session.log(4);
    session.deliver();
    assert_eq!(session.kept().len(), 5);
    let keys = keys(&session);
    assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len());
    session.collector.script([Reply::status(413)]);
    session.log(1);
    assert_eq!(session.drain().dropped, 1);
    assert_eq!(session.handle.stats().dropped.too_large, 1);
    Passed
}

pub(crate) fn a_permanent_refusal_drops_the_batch_and_nothing_behind_it<
    W: RuntimeUnderTest,
    H: HttpClient,
>(
    client: fn() -> H,
) -> Verdict {
    let session = open::<W, H>(client, options());
    session.deliver();
    for status in [401, 403, 404, 307] {
        let before = session.collector.requests().len();
        let reply = Reply::status(status).header("location", &session.collector.url());
        session.collector.script([reply]);
        session.log(2);
        assert_eq!(session.drain().dropped, 2, "{status}");
        session.log(1);
        session.deliver();
        assert_eq!(session.collector.requests().len(), before + 2);
    }
    let stats = session.handle.stats();
    assert_eq!(stats.dropped.rejected, 8);
    assert!(stats.is_balanced());
    assert_eq!(session.kept().len(), 5);
    Passed
}

pub(crate) fn an_invalid_event_is_dropped_alone<W: RuntimeUnderTest, H: HttpClient>(
    client: fn() -> H,
) -> Verdict {
    let session = open::<W, H>(client, options());
    session.deliver();
    for status in [400, 422] {
        // The batch, and the half that has the event.
        session
            .collector
            .script([status, status].map(Reply::status));
        session.log(2);
        let drain = session.drain();
        assert_eq!((drain.delivered, drain.dropped), (1, 1), "{status}");
    }
    assert_eq!(session.handle.stats().dropped.rejected, 2);
    assert_eq!(session.kept().len(), 3);
    Passed
}

/// No client here has a timeout shorter than the bound of the wait.
pub(crate) fn a_stalled_server_costs_one_attempt_after_the_timeout<
    W: RuntimeUnderTest,
    H: HttpClient,
>(
    client: fn() -> H,
) -> Verdict {
    let mut options = options();
    options.http_timeout = Duration::from_millis(100);
    // On a slow machine, the attempt that should succeed may time out, too.
    options.max_retries = 20;
    let session = open::<W, H>(client, options);
    session.collector.script([Reply::stall(), Reply::stall()]);
    session.log(1);
    session.deliver();
    let requests = session.collector.requests();
    let replies: Vec<_> = requests.iter().map(|request| request.reply()).collect();
    assert_eq!(replies[..2], [ReplyKind::Stall, ReplyKind::Stall]);
    assert_eq!(session.kept().len(), 2);
    assert!(keys(&session).windows(2).all(|two| two[0] == two[1]));
    Passed
}

/// In real time: the response must arrive after its attempt has timed out.
pub(crate) fn a_late_response_is_not_attributed_to_the_next_attempt<
    W: RuntimeUnderTest,
    H: HttpClient,
>(
    client: fn() -> H,
) -> Verdict {
    let mut options = options();
    options.http_timeout = Duration::from_millis(100);
    options.max_retries = 20;
    let session = open::<W, H>(client, options.clone());
    session.deliver();
    let late = Reply::status(400).delay(2 * options.http_timeout);
    session
        .collector
        .script([late, Reply::accept().delay(options.http_timeout / 2)]);
    session.log(1);
    session.deliver();
    assert_eq!(session.kept().len(), 2);
    Passed
}

pub(crate) fn a_connection_that_breaks_anywhere_costs_one_attempt<
    W: RuntimeUnderTest,
    H: HttpClient,
>(
    client: fn() -> H,
) -> Verdict {
    let session = open::<W, H>(client, options());
    let broken = [
        Reply::close_before_body(),
        Reply::close_after_body(),
        Reply::garbage(),
        Reply::truncated(),
    ];
    for broken in broken {
        session.collector.script([broken]);
        session.log(2);
        session.deliver();
    }
    let kept = session.kept();
    assert_eq!((kept.len(), kept.duplicates()), (9, 0));
    let requests = session.collector.requests();
    let broken = requests.iter().filter(|request| !request.is_kept());
    // A truncated 200 is a 200.
    assert_eq!(broken.count(), 3);
    Passed
}

pub(crate) fn a_lost_response_leaves_recognizable_duplicates<W: RuntimeUnderTest, H: HttpClient>(
    client: fn() -> H,
) -> Verdict {
    let session = open::<W, H>(client, options());
    session.collector.script([Reply::lost()]);
    session.log(3);
    session.deliver();
    let kept = session.kept();
    assert_eq!((kept.len(), kept.duplicates()), (4, 4));
    let keys = keys(&session);
    assert_eq!(keys[0], keys[1]);
    let stats = session.handle.stats();
    assert_eq!((stats.accepted, stats.delivered), (4, 4));
    let drain = session.run(session.handle.wait_until_drained(BOUND));
    assert!(drain.is_drained());
    Passed
}

/// A server that sends `first` in response to the first request, and a 400 to every later one.
fn serve_first(first: Vec<u8>) -> (core::net::SocketAddr, std::thread::JoinHandle<()>) {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let is_first = alloc::sync::Arc::new(core::sync::atomic::AtomicBool::new(true));
    let thread = std::thread::spawn(move || {
        // More connections than any client needs here; the test uses up the rest.
        for stream in listener.incoming().take(MAX_CONNECTIONS) {
            let mut stream = stream.expect("a connection");
            let (first, is_first) = (first.clone(), alloc::sync::Arc::clone(&is_first));
            std::thread::spawn(move || {
                let mut request = Vec::new();
                let mut piece = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut piece) {
                    request.extend_from_slice(&piece[..count]);
                    if !request.ends_with(b"]}") {
                        continue;
                    }
                    request.clear();
                    let response = if is_first.swap(false, core::sync::atomic::Ordering::Relaxed) {
                        &first[..]
                    } else {
                        b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"
                    };
                    if stream.write_all(response).is_err() {
                        break;
                    }
                }
            });
        }
    });
    (address, thread)
}

const MAX_CONNECTIONS: usize = 64;

/// The server accepts the first batch only: whatever the first response leaves on its connection, no later batch may
/// count as delivered.
fn only_the_first_is_delivered<W: RuntimeUnderTest, H: HttpClient>(
    client: fn() -> H,
    first: Vec<u8>,
) {
    let (address, server) = serve_first(first);
    let config = tinkex_telemetry::Config::new(&format!("http://{address}"), "sk-0123456789");
    let transport = HttpTransport::new(config.expect("a config"), client());
    let runtime = W::new();
    let mut options = options();
    options.max_retries = 0;
    let opened = runtime.open(builder(ID, options), transport);
    let drain = || {
        let drain = opened.handle.wait_until_drained_blocking(BOUND);
        drain.expect("no executor on this thread")
    };
    let first = drain();
    assert_eq!(first.delivered + first.dropped, 1);
    for _ in 0..3 {
        assert!(opened.handle.log("x", ()));
        assert_eq!(drain().delivered, 0, "the server refused it");
    }
    drop(opened);
    drop(runtime);
    for _ in 0..MAX_CONNECTIONS {
        let _ = std::net::TcpStream::connect(address);
    }
    server.join().expect("no panic");
}

pub(crate) fn an_interim_response_is_not_taken_for_the_final_one<
    W: RuntimeUnderTest,
    H: HttpClient,
>(
    client: fn() -> H,
) -> Verdict {
    let interim = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n".as_slice();
    let response = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".as_slice();
    only_the_first_is_delivered::<W, H>(client, [interim, response].concat());
    Passed
}

pub(crate) fn the_rest_of_a_long_response_is_not_taken_for_the_next_one<
    W: RuntimeUnderTest,
    H: HttpClient,
>(
    client: fn() -> H,
) -> Verdict {
    let mut response = b"HTTP/1.1 200 OK\r\ncontent-length: 80000\r\n\r\n".to_vec();
    let hidden = b"\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    response.extend(hidden.iter().cycle().take(80_000));
    only_the_first_is_delivered::<W, H>(client, response);
    Passed
}
