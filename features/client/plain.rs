//! Calls that are answered at once, and how often they are tried.

use super::error::{ClientError, Result};
use super::link::{Call, Headers, Link, NoAnswer};
use crate::{Instant, StatusError};
use alloc::boxed::Box;
use alloc::vec::Vec;
use bytes::Bytes;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use http::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How long a call is tried.
const PATIENCE: Duration = Duration::from_secs(5 * 60);
/// How long one attempt may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How long to wait after so many failures in a row.
pub(super) fn backoff(failures: u32) -> Duration {
    Duration::from_secs(1_u64.checked_shl(failures).unwrap_or(30).clamp(1, 30))
}

/// When the next sample may be asked for: the backend has said that there are too many.
#[derive(Default)]
pub(super) struct Backpressure {
    until: AtomicU64,
}

impl Backpressure {
    /// A request with a body of so many bytes was refused.
    fn push_back(&self, now: Instant, len: usize) {
        const SMALL: usize = 128 << 10;
        let wait = Duration::from_secs(if len <= SMALL { 1 } else { 5 });
        let until = now.checked_add(wait).unwrap_or(Instant::END);
        self.until.fetch_max(until.as_micros(), Ordering::Relaxed);
    }

    async fn wait(&self, link: &Link) {
        loop {
            let until = Instant::from_micros(self.until.load(Ordering::Relaxed));
            if link.now() >= until {
                return;
            }
            link.sleep_until(until).await;
        }
    }
}

impl Call {
    /// A `POST` with this body.
    pub(super) fn post(
        link: &Link,
        name: &'static str,
        path: impl Into<Box<str>>,
        body: &impl Serialize,
    ) -> Result<Self> {
        let body =
            serde_json::to_vec(body).map_err(|error| ClientError::unencodable(name, &error))?;
        Ok(Self::with_body(link, name, path, body))
    }

    pub(super) fn with_body(
        link: &Link,
        name: &'static str,
        path: impl Into<Box<str>>,
        body: Vec<u8>,
    ) -> Self {
        Self {
            name,
            method: Method::POST,
            path: path.into(),
            body: body.into(),
            headers: Headers::None,
            timeout: TIMEOUT,
            key: Some(link.key()),
            is_urgent: false,
        }
    }

    /// A `GET`.
    pub(super) fn get(name: &'static str, path: impl Into<Box<str>>) -> Self {
        Self {
            name,
            method: Method::GET,
            path: path.into(),
            body: Bytes::new(),
            headers: Headers::None,
            timeout: TIMEOUT,
            key: None,
            is_urgent: false,
        }
    }
}

impl Link {
    /// Calls, again where that makes sense, and gives the answer's body.
    pub(super) async fn call(&self, call: &Call, busy: Option<&Backpressure>) -> Result<Bytes> {
        let (mut begun, mut failures, mut attempts) = (self.now(), 0, 0);
        loop {
            if let Some(busy) = busy {
                busy.wait(self).await;
            }
            let answer = self.exchange(call, attempts).await;
            attempts += 1;
            let (error, is_final) = match answer {
                Ok(answer) if answer.status().is_success() => return Ok(answer.into_body()),
                Ok(answer) => {
                    let status = answer.status().as_u16();
                    if let (429, Some(busy)) = (status, busy) {
                        busy.push_back(self.now(), call.body.len());
                        (begun, failures) = (self.now(), 0);
                        continue;
                    }
                    let is_final = !matches!(status, 408 | 409 | 429 | 500..);
                    (self.refused(call.name, status, answer.body()), is_final)
                }
                Err(no_answer) => (self.unanswered(call.name, &no_answer), false),
            };
            let wait = backoff(failures);
            failures += 1;
            let passed = self.now().saturating_duration_since(begun);
            if is_final || passed + wait > PATIENCE {
                return Err(error);
            }
            self.sleep(wait).await;
        }
    }

    /// Calls, and reads the answer.
    pub(super) async fn ask<T: DeserializeOwned>(&self, call: &Call) -> Result<T> {
        let body = self.call(call, None).await?;
        read(call.name, &body)
    }

    pub(super) fn refused(&self, call: &'static str, status: u16, body: &[u8]) -> ClientError {
        let error = StatusError::new(status).with_body(self.excerpt(body));
        ClientError::Status { call, error }
    }

    pub(super) fn unanswered(&self, call: &'static str, no_answer: &NoAnswer) -> ClientError {
        let why = self.why(no_answer);
        ClientError::NoAnswer { call, why }
    }
}

/// What serde says of an answer names keys and types, and of values only numbers and words of enums.
pub(super) fn read<T: DeserializeOwned>(call: &'static str, body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|error| {
        let what = match error.classify() {
            serde_json::error::Category::Data => "a key is missing, or has another type",
            _ if body.len() >= super::link::MOST_BYTES => "it is longer than 64 MiB",
            _ => "it is not JSON",
        };
        let (line, column) = (error.line(), error.column());
        ClientError::answer(call, format_args!("{what} (line {line}, column {column})"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backoff_doubles_up_to_half_a_minute() {
        let seconds = [0, 1, 2, 3, 4, 5, 6, 63, 64, u32::MAX].map(|n| backoff(n).as_secs());
        assert_eq!(seconds, [1, 2, 4, 8, 16, 30, 30, 30, 30, 30]);
    }
}
