//! What outsiders control, at random: any bytes in response to a request of each HTTP client, and any `Retry-After`.
//!
//! `ci/fuzz` tries for longer.

extern crate alloc;

use alloc::sync::Arc;
use arbtest::arbitrary::{Result, Unstructured};
use arbtest::arbtest;
use bytes::Bytes;
use core::time::Duration;
use http::header::{DATE, RETRY_AFTER};
use http::{HeaderValue, Request, Response, StatusCode};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::thread;
use tinkex_telemetry::http::{HttpClient, Surf};
use tinkex_telemetry::runtime::Clock as _;
use tinkex_telemetry::sim::SimExecutor;
use tinkex_telemetry::{Config, HttpTransport, Reporter, Reqwest, Ureq};

/// Longer than any response takes that ends.
const TIMEOUT: Duration = Duration::from_millis(300);

/// A server that sends these bytes in response to each request, and then closes.
struct Server {
    url: String,
    response: Arc<Mutex<Vec<u8>>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let response = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&response);
        // Ends with the process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let response = shared.lock().expect("nothing panics under it").clone();
                thread::spawn(move || respond(stream, &response));
            }
        });
        Self {
            url: format!("http://{address}/"),
            response,
        }
    }

    fn set(&self, response: Vec<u8>) {
        *self.response.lock().expect("nothing panics under it") = response;
    }
}

/// Reads a request, writes the response and closes. Errors are the client's business.
fn respond(mut stream: TcpStream, response: &[u8]) {
    let _ = stream.set_read_timeout(Some(TIMEOUT));
    let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
    while !request.ends_with(b"{}") {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(len) => request.extend_from_slice(&buffer[..len]),
        }
    }
    let _ = stream.write_all(response);
}

const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";

fn text(u: &mut Unstructured<'_>, choices: &[&str]) -> Result<Vec<u8>> {
    if u.ratio(1, 8)? {
        let len = u.int_in_range(0..=40)?;
        return Ok(u.bytes(len.min(u.len()))?.to_vec());
    }
    Ok(u.choose(choices)?.as_bytes().to_vec())
}

/// Something like a response: each part may be wrong, the whole may break off, and single bytes may be others.
fn response(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    const VERSIONS: [&str; 5] = ["HTTP/1.1", "HTTP/1.0", "HTTP/2", "HTTP/1.1\t", "http/1.1"];
    const STATUSES: [&str; 14] = [
        " 200 OK",
        " 204 ",
        " 100 Continue",
        " 101 Switching",
        " 302 Found",
        " 401 No",
        " 413 ",
        " 429 ",
        " 503 ",
        " 999 ",
        " 0 ",
        " 1000 ",
        " -1 ",
        "",
    ];
    const NAMES: [&str; 9] = [
        "content-length",
        "transfer-encoding",
        "retry-after",
        "location",
        "connection",
        "date",
        "content-encoding",
        "set-cookie",
        "",
    ];
    const VALUES: [&str; 16] = [
        "0",
        "2",
        "-1",
        "99999999999999999999",
        "18446744073709551615",
        "chunked",
        "gzip, chunked",
        "close",
        "keep-alive",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Thu, 01 Jan 1970 00:00:00 GMT",
        "http://127.0.0.1:1/",
        "gzip",
        "\u{fffd}\u{202e}",
        "a\rb",
        "",
    ];
    const BODIES: [&str; 9] = [
        "",
        "{}",
        "2\r\n{}\r\n0\r\n\r\n",
        "ffffffffffffffff\r\n{}",
        "-1\r\n",
        "2;x=\"\r\n{}\r\n0\r\nt: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
        "0\r\n",
        "\0\0\0",
    ];
    let mut bytes = Vec::new();
    for _ in 0..u.int_in_range(1..=3)? {
        bytes.extend(text(u, &VERSIONS)?);
        bytes.extend(text(u, &STATUSES)?);
        bytes.extend_from_slice(b"\r\n");
        for _ in 0..u.int_in_range(0..=4)? {
            bytes.extend(text(u, &NAMES)?);
            bytes.extend_from_slice(b": ");
            bytes.extend(text(u, &VALUES)?);
            bytes.extend_from_slice(b"\r\n");
        }
        if u.ratio(1, 40)? {
            let long = u.choose(&[100, 9_000, 70_000])?;
            bytes.extend_from_slice(b"x: ");
            bytes.resize(bytes.len() + long, b'y');
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend(text(u, &BODIES)?);
    }
    if u.ratio(1, 4)? {
        bytes.truncate(u.int_in_range(0..=bytes.len())?);
    }
    for _ in 0..u.int_in_range(0..=2)? {
        let at = u.choose_index(bytes.len().max(1))?;
        if let Some(byte) = bytes.get_mut(at) {
            *byte = u.arbitrary()?;
        }
    }
    Ok(bytes)
}

fn request(url: &str) -> Request<Bytes> {
    let request = Request::post(url).header("content-type", "application/json");
    request.body(Bytes::from_static(b"{}")).expect("a request")
}

/// Whatever comes back, a client returns or lets itself be dropped, and its next request succeeds.
fn survives_any_response<C: HttpClient>(
    mut client: C,
    block_on: impl Fn(&mut C, &str) -> Option<u16>,
) {
    let server = Server::start();
    arbtest(|u| {
        server.set(response(u)?);
        let _ = block_on(&mut client, &server.url);
        server.set(GOOD.to_vec());
        // A connection that was kept may hold the rest of that response: the request after it is the clean one.
        let tries = (0..3).map(|_| block_on(&mut client, &server.url));
        assert!(
            tries.into_iter().any(|status| status == Some(200)),
            "a client is unusable"
        );
        Ok(())
    });
}

#[test]
fn ureq_survives_any_response() {
    survives_any_response(Ureq::with_timeout(TIMEOUT), |client, url| {
        let sent = smol::block_on(client.send(request(url)));
        sent.ok().map(|response| response.status().as_u16())
    });
}

#[test]
fn reqwest_survives_any_response() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().expect("a runtime");
    let client = {
        let _inside = runtime.enter();
        Reqwest::new().expect("a client")
    };
    survives_any_response(client, |client, url| {
        let sent = async { tokio::time::timeout(TIMEOUT, client.send(request(url))).await };
        let sent = runtime.block_on(sent).ok()?;
        sent.ok().map(|response| response.status().as_u16())
    });
}

#[test]
fn surf_survives_any_response() {
    let client = Surf::new(|| {
        let config = ::surf::Config::new().set_timeout(Some(TIMEOUT));
        config.try_into().expect("a client")
    });
    survives_any_response(client, |client, url| {
        let sent = async_std::future::timeout(2 * TIMEOUT, client.send(request(url)));
        let sent = async_std::task::block_on(sent).ok()?;
        sent.ok().map(|response| response.status().as_u16())
    });
}

/// A header's value that may be anything a client can receive.
fn header(u: &mut Unstructured<'_>) -> Result<Option<HeaderValue>> {
    const VALUES: [&str; 18] = [
        "0",
        "1",
        "-1",
        "+1",
        "1.5",
        "1e9",
        "120",
        "59",
        "61",
        "99999999999999999999",
        "18446744073709551615",
        "0x10",
        " 7 ",
        "soon",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Thu, 01 Jan 1970 00:00:00 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Wed, 01 Jan 2025 00:00:30 GMT",
    ];
    Ok(HeaderValue::from_bytes(&text(u, &VALUES)?).ok())
}

/// The wait for the second attempt is at least nothing and at most the cap, whatever `Retry-After` and `Date` say.
#[test]
fn any_retry_after_delays_an_attempt_up_to_the_cap() {
    const CAP: Duration = Duration::from_secs(60);
    arbtest(|u| {
        let (retry_after, date) = (header(u)?, header(u)?);
        let status = *u.choose(&[408, 425, 429, 500, 502, 503, 504])?;
        let attempts = Arc::new(Mutex::new(Vec::new()));
        let mut executor = SimExecutor::new(u.arbitrary()?);
        let (clock, seen) = (executor.clock(), Arc::clone(&attempts));
        let client = move |_: Request<Bytes>| {
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = StatusCode::from_u16(status).expect("a status");
            let headers = response.headers_mut();
            for (name, value) in [(RETRY_AFTER, &retry_after), (DATE, &date)] {
                if let Some(value) = value {
                    headers.insert(name, value.clone());
                }
            }
            let mut seen = seen.lock().expect("nothing panics under it");
            seen.push(clock.now());
            core::future::ready(Ok(response))
        };
        let config = Config::new("http://simulated.invalid", "key").expect("a configuration");
        let reporter = Reporter::builder("s")
            .transport(HttpTransport::new(config, client))
            .runtime(executor.spawner())
            .enabled(true)
            .max_retries(1)
            .retry_max_delay(CAP)
            .start()
            .expect("it starts");
        reporter.flush();
        executor.advance(2 * CAP);
        let attempts = attempts.lock().expect("nothing panics under it");
        assert_eq!(attempts.len(), 2, "attempts");
        let waited = attempts[1].saturating_duration_since(attempts[0]);
        assert!(waited <= CAP, "{waited:?}");
        assert_eq!(reporter.stats().dropped.retries_exhausted, 1);
        Ok(())
    });
}
