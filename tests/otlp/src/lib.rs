//! What the tests share: a collector that keeps what it is sent, and a transport that keeps what it is given.

extern crate alloc;

use alloc::sync::Arc;
use std::sync::{Mutex, PoisonError};
use tinkex_telemetry::http::bytes::Bytes;
use tinkex_telemetry::http::http::{Request, Response};
use tinkex_telemetry::http::{HttpClient, HttpError};
use tinkex_telemetry::transport::SendError;
use tinkex_telemetry::{Batch, Receipt, Transport};

/// The status and the body of an answer.
type Answer = (u16, &'static [u8]);

/// Answers of a collector, in turn; the last one for ever.
#[derive(Clone, Default)]
pub struct Collector {
    requests: Arc<Mutex<Vec<Request<Bytes>>>>,
    answers: Arc<Mutex<Vec<Answer>>>,
    /// Requests with this in them are answered with 400.
    refused: Option<&'static str>,
}

impl Collector {
    /// A collector that answers in this way, in turn; the last answer is given for ever.
    #[must_use]
    pub fn answering(answers: &[Answer]) -> Self {
        let answers = Arc::new(Mutex::new(answers.iter().rev().copied().collect()));
        let requests = Arc::default();
        Self {
            requests,
            answers,
            refused: None,
        }
    }

    /// A collector that finds requests with this text in them invalid.
    #[must_use]
    pub fn refusing(text: &'static str) -> Self {
        Self {
            refused: Some(text),
            ..Self::default()
        }
    }

    /// The requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Request<Bytes>> {
        lock(&self.requests).clone()
    }
}

impl HttpClient for Collector {
    async fn send(&mut self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let is_refused = self.refused.is_some_and(|text| {
            let mut windows = request.body().windows(text.len());
            windows.any(|window| window == text.as_bytes())
        });
        lock(&self.requests).push(request);
        if is_refused {
            let response = Response::builder().status(400);
            return response.body(Bytes::new()).map_err(HttpError::new);
        }
        let mut answers = lock(&self.answers);
        let last = answers.last().copied();
        if answers.len() > 1 {
            answers.pop();
        }
        let (status, body) = last.unwrap_or((200, b""));
        let response = Response::builder().status(status);
        response
            .body(Bytes::from_static(body))
            .map_err(HttpError::new)
    }
}

/// A transport that keeps the bodies of the batches that it passes on.
pub struct Tee<T> {
    /// The transport behind it.
    pub inner: T,
    /// The bodies.
    pub bodies: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl<T: Transport> Transport for Tee<T> {
    async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
        lock(&self.bodies).push(batch.body().to_vec());
        self.inner.send(batch).await
    }
}

/// Locks, whatever a test that has failed left behind.
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
