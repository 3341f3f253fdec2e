//! This crate's sessions, on the `Thread` runtime.

use bytes::Bytes;
use core::future::Future;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use http::{Request, Response};
use std::sync::Arc;
use tinkex_telemetry::http::{HttpClient, HttpError};
use tinkex_telemetry::session::Builder;
use tinkex_telemetry::{
    Batch, Config, HttpTransport, Receipt, Reporter, SendError, Thread, Transport, Ureq,
};

/// Longer than any wait in the benchmark.
pub const BOUND: Duration = Duration::from_secs(60);

/// A session with its driver on a thread.
pub type Session<T> = Reporter<T, Thread, Thread>;
/// The transport of [`over_ureq`].
pub type OverUreq = HttpTransport<Counted>;

/// A session over HTTP, and the number of bytes in its requests' bodies.
pub fn over_ureq(url: &str) -> (Builder<OverUreq, Thread, Thread>, Arc<AtomicU64>) {
    let config = Config::new(url, "sk-0123456789").expect("the config is valid");
    let bytes = Arc::default();
    let client = Counted {
        ureq: Ureq::new(),
        bytes: Arc::clone(&bytes),
    };
    let builder = over(HttpTransport::new(config, client));
    (builder, bytes)
}

/// A session that discards its batches.
pub fn to_nowhere() -> Builder<Swallow, Thread, Thread> {
    over(Swallow)
}

fn over<T: Transport>(transport: T) -> Builder<T, Thread, Thread> {
    Reporter::builder("send-path")
        .transport(transport)
        .runtime(Thread)
        .enabled(true)
}

/// Ureq, counting the bytes of request bodies.
pub struct Counted {
    ureq: Ureq,
    bytes: Arc<AtomicU64>,
}

impl HttpClient for Counted {
    fn send(
        &mut self,
        request: Request<Bytes>,
    ) -> impl Future<Output = Result<Response<Bytes>, HttpError>> + Send {
        let len = request.body().len() as u64;
        self.bytes.fetch_add(len, Ordering::Relaxed);
        self.ureq.send(request)
    }
}

/// Accepts everything at once.
pub struct Swallow;

impl Transport for Swallow {
    async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
        core::hint::black_box(batch.body());
        Ok(Receipt::delivered())
    }
}
