#![doc = include_str!("../../../docs/bare-metal.md")]

mod flash;

pub use flash::{Flash, Misuse, stores_and_sends};

use core::convert::Infallible;
use core::future::{Future, pending};
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use embedded_io_async::{ErrorType, Read, Write};
use tinkex_telemetry::local::LocalTransport;
use tinkex_telemetry::runtime::Clock;
use tinkex_telemetry::time::{Instant, Timestamp};
use tinkex_telemetry::{Batch, Receipt, Reporter, SendError, Stats, wire};

/// A connection to a backend that sends one response, whatever it receives.
pub struct Connection {
    response: &'static [u8],
    sent: Vec<u8>,
}

impl ErrorType for Connection {
    type Error = Infallible;
}

impl Read for Connection {
    async fn read(&mut self, out: &mut [u8]) -> Result<usize, Infallible> {
        // In pieces, as from a network.
        let len = out.len().min(self.response.len()).min(7);
        let (piece, rest) = self.response.split_at(len);
        out[..len].copy_from_slice(piece);
        self.response = rest;
        Ok(len)
    }
}

impl Write for Connection {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        self.sent.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    async fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// A session's ledger after its first attempt.
pub struct Exchange(Stats);

impl Exchange {
    /// The response was a success.
    pub fn expect_delivered(&self) {
        assert_eq!(self.0.delivered, 1, "{:?}", self.0);
    }

    /// The batch waits for another attempt.
    pub fn expect_retry(&self) {
        assert_eq!(self.0.queued, 1, "{:?}", self.0);
    }

    /// The batch was dropped.
    pub fn expect_dropped(&self) {
        assert_eq!(self.0.dropped.rejected, 1, "{:?}", self.0);
    }
}

/// A clock that stands still.
struct Still;

impl Clock for Still {
    fn now(&self) -> Instant {
        Instant::ORIGIN
    }

    fn utc(&self) -> Timestamp {
        Timestamp::from_unix_micros(0)
    }

    async fn sleep_until(&self, _: Instant) {
        pending().await
    }
}

struct Page<F> {
    response: &'static [u8],
    post: F,
}

impl<F> LocalTransport for Page<F>
where
    F: AsyncFnMut(&mut Connection, Batch<'_>) -> Result<Receipt, SendError>,
{
    async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
        let body = batch.body().to_vec();
        let mut connection = Connection {
            response: self.response,
            sent: Vec::new(),
        };
        let result = (self.post)(&mut connection, batch).await;
        let head = connection
            .sent
            .strip_suffix(&body[..])
            .expect("the body is last");
        let head = std::str::from_utf8(head).expect("it is text");
        assert!(
            head.starts_with("POST /api/v1/telemetry HTTP/1.1\r\n"),
            "{head}"
        );
        assert!(
            head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())),
            "{head}"
        );
        assert!(head.ends_with("\r\n\r\n"), "{head}");
        wire::check(&body, wire::Mode::Strict).expect("a valid request");
        result
    }
}

/// Opens a session and lets `post` send its first batch to a backend that sends this response.
pub fn exchange<F>(response: &'static [u8], post: F) -> Exchange
where
    F: AsyncFnMut(&mut Connection, Batch<'_>) -> Result<Receipt, SendError>,
{
    let builder = Reporter::builder("page").transport(Page { response, post });
    let builder = builder
        .clock(Still)
        .retry_base_delay(Duration::from_secs(1));
    let (reporter, driver) = builder.enabled(true).build().expect("it builds");
    reporter.flush();
    let mut driver = pin!(driver.run_local());
    let polled = driver
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled == Poll::Pending);
    Exchange(reporter.stats())
}
