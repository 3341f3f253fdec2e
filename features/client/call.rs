//! Calls whose response is the result, and their retries.

use super::api::{Api, Call, Exchanged, Headers, MAX_BYTES, MAX_SMALL_BYTES, NoResponse};
use super::error::{ClientError, Result};
use super::memory;
use super::progress::Progress;
use crate::event::StatusError;
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::vec::Vec;
use bytes::Bytes;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use http::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How long a call is retried.
const MAX_RETRY_TIME: Duration = Duration::from_secs(5 * 60);
/// The deadline of one attempt.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The longest wait between two attempts.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// The wait before the next attempt, after `failures` earlier ones in a row: 1 s, doubled each time, at most 30 s.
pub(super) fn backoff(failures: u32) -> Duration {
    let wait = Duration::from_secs(1_u64.checked_shl(failures).unwrap_or(u64::MAX).max(1));
    wait.min(MAX_WAIT)
}

/// Holds back all samples of a client after the backend has refused one with a 429.
#[derive(Default)]
pub(super) struct Backpressure {
    until: AtomicU64,
}

impl Backpressure {
    /// Holds back after the refusal of a request with a body of `len` bytes.
    fn hold_back(&self, now: Instant, len: usize) {
        const MAX_SMALL_LEN: usize = 128 << 10;
        let wait = Duration::from_secs(if len <= MAX_SMALL_LEN { 1 } else { 5 });
        let until = now.checked_add(wait).unwrap_or(Instant::END);
        self.until.fetch_max(until.as_micros(), Ordering::Relaxed);
    }

    async fn wait(&self, api: &Api) {
        loop {
            let until = Instant::from_micros(self.until.load(Ordering::Relaxed));
            if api.now() >= until {
                return;
            }
            api.sleep_until(until).await;
        }
    }
}

/// What follows an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Done,
    /// Wait for the backpressure to end, then start over.
    HoldBack,
    Retry,
    Fail,
}

impl Next {
    /// Decides by the response, if there was one.
    fn of(outcome: &Exchanged, has_backpressure: bool) -> Self {
        match outcome {
            Ok(response) => Self::after(Some(response.status().as_u16()), has_backpressure),
            Err(no_response) if no_response.is_retryable() => Self::after(None, has_backpressure),
            Err(_) => Self::Fail,
        }
    }

    /// Decides by the status of the response, if there was one.
    const fn after(status: Option<u16>, has_backpressure: bool) -> Self {
        match status {
            Some(200..300) => Self::Done,
            Some(429) if has_backpressure => Self::HoldBack,
            None | Some(408 | 409 | 429 | 500..) => Self::Retry,
            Some(_) => Self::Fail,
        }
    }
}

/// Limits the retries of one call.
struct Retries {
    started: Instant,
    patience: Duration,
    max_wait: Duration,
    failures: u32,
}

impl Retries {
    const fn starting(now: Instant, call: &Call) -> Self {
        Self {
            started: now,
            patience: call.patience,
            max_wait: call.max_wait,
            failures: 0,
        }
    }

    /// The wait before the next attempt; `None` if it would exceed the call's patience.
    fn next_wait(&mut self, now: Instant) -> Option<Duration> {
        let wait = backoff(self.failures).min(self.max_wait);
        self.failures += 1;
        let elapsed = now.saturating_duration_since(self.started);
        (elapsed + wait <= self.patience).then_some(wait)
    }
}

impl Call {
    /// A `POST` of `body` as JSON.
    pub(super) fn post(
        api: &Api,
        name: &'static str,
        path: impl Into<Box<str>>,
        body: &impl Serialize,
    ) -> Result<Self> {
        let body =
            serde_json::to_vec(body).map_err(|error| ClientError::unencodable(name, &error))?;
        Ok(Self::with_body(api, name, path, body))
    }

    /// A `POST` of a body that is JSON already.
    pub(super) fn with_body(
        api: &Api,
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
            patience: MAX_RETRY_TIME,
            max_wait: MAX_WAIT,
            max_bytes: MAX_SMALL_BYTES,
            key: Some(api.new_key()),
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
            patience: MAX_RETRY_TIME,
            max_wait: MAX_WAIT,
            max_bytes: MAX_SMALL_BYTES,
            key: None,
            is_urgent: false,
        }
    }
}

impl Api {
    /// Makes a call, with retries, and returns the body of the response.
    pub(super) async fn call(
        &self,
        call: &Call,
        backpressure: Option<&Backpressure>,
        progress: &Progress,
    ) -> Result<Bytes> {
        let (mut retries, mut attempts) = (Retries::starting(self.now(), call), 0);
        loop {
            if let Some(backpressure) = backpressure {
                backpressure.wait(self).await;
            }
            let outcome = self.exchange(call, attempts).await;
            progress.responded(self, &outcome);
            attempts += 1;
            let next = Next::of(&outcome, backpressure.is_some());
            let error = match outcome {
                Ok(response) if next == Next::Done => return Ok(response.into_body()),
                Ok(response) => {
                    self.status_error(call.name, response.status().as_u16(), response.body())
                }
                Err(no_response) => self.no_response(call.name, &no_response),
            };
            let now = self.now();
            match (next, backpressure) {
                (Next::HoldBack, Some(backpressure)) => {
                    backpressure.hold_back(now, call.body.len());
                    retries = Retries::starting(now, call);
                }
                (Next::Retry, _) => match retries.next_wait(now) {
                    Some(wait) => self.sleep(wait).await,
                    None => return Err(error),
                },
                _ => return Err(error),
            }
        }
    }

    /// Makes a call and parses the response.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        call: &Call,
        progress: &Progress,
    ) -> Result<T> {
        let body = self.call(call, None, progress).await?;
        parse(call.name, &body)
    }

    pub(super) fn status_error(&self, call: &'static str, status: u16, body: &[u8]) -> ClientError {
        let error = StatusError::new(status).with_body(self.excerpt(body));
        ClientError::Status { call, error }
    }

    pub(super) fn no_response(&self, call: &'static str, no_response: &NoResponse) -> ClientError {
        ClientError::NoResponse {
            call,
            reason: self.reason(no_response),
            is_retryable: no_response.is_retryable(),
        }
    }
}

/// Parses the result of a call. The error contains no text of serde's, which may quote values of the response.
pub(super) fn parse<T: DeserializeOwned>(call: &'static str, body: &[u8]) -> Result<T> {
    let (parsed, is_exceeded) = memory::bounded(body.len(), || serde_json::from_slice(body));
    parsed.map_err(|error: serde_json::Error| {
        let what = match error.classify() {
            _ if is_exceeded => "its values take more memory than itself",
            serde_json::error::Category::Data => "a key is missing, or has another type",
            _ if body.len() >= MAX_BYTES => "it is longer than 64 MiB",
            _ if body.len() >= MAX_SMALL_BYTES => "it is longer than 1 MiB",
            _ => "it is not JSON",
        };
        let (line, column) = (error.line(), error.column());
        let reason = format_args!("{what} (line {line}, column {column})");
        ClientError::invalid_response(call, reason)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::http::HttpError;

    #[test]
    fn a_backoff_doubles_up_to_half_a_minute() {
        let seconds = [0, 1, 2, 3, 4, 5, 6, 63, 64, u32::MAX].map(|n| backoff(n).as_secs());
        assert_eq!(seconds, [1, 2, 4, 8, 16, 30, 30, 30, 30, 30]);
    }

    #[test]
    fn every_status_is_followed_by_its_row_of_the_table() {
        for status in 0..=u16::MAX {
            let expected = match status {
                200..300 => Next::Done,
                408 | 409 | 429 | 500.. => Next::Retry,
                _ => Next::Fail,
            };
            assert_eq!(Next::after(Some(status), false), expected, "{status}");
            let expected = if status == 429 {
                Next::HoldBack
            } else {
                expected
            };
            assert_eq!(Next::after(Some(status), true), expected, "{status}");
        }
        let error = || HttpError::new("no response");
        for (no_response, expected) in [
            (NoResponse::TimedOut, Next::Retry),
            (NoResponse::Http(error()), Next::Retry),
            (NoResponse::Http(error().broke_while_sending()), Next::Retry),
            (NoResponse::Http(error().not_retryable()), Next::Fail),
        ] {
            let outcome = Err(no_response);
            assert_eq!(Next::of(&outcome, false), expected);
            assert_eq!(Next::of(&outcome, true), expected);
        }
    }

    #[test]
    fn retries_end_before_the_wait_that_would_exceed_five_minutes() {
        let start = Instant::from_micros(7);
        let at = |seconds| start.checked_add(Duration::from_secs(seconds)).unwrap();
        let mut retries = Retries::starting(start, &Call::get("", ""));
        assert_eq!(retries.next_wait(at(0)), Some(Duration::from_secs(1)));
        assert_eq!(retries.next_wait(at(298)), Some(Duration::from_secs(2)));
        assert_eq!(retries.next_wait(at(297)), None);
    }

    #[test]
    fn backpressure_holds_large_bodies_back_for_longer_and_never_ends_early() {
        let now = Instant::from_micros(1_000_000);
        let until = |backpressure: &Backpressure| backpressure.until.load(Ordering::Relaxed);
        let backpressure = Backpressure::default();
        backpressure.hold_back(now, 128 << 10);
        assert_eq!(until(&backpressure), 2_000_000);
        backpressure.hold_back(now, (128 << 10) + 1);
        assert_eq!(until(&backpressure), 6_000_000);
        backpressure.hold_back(now, 0);
        assert_eq!(until(&backpressure), 6_000_000);
    }
}
