//! Scripted responses, and `Retry-After` headers.

use super::Fault;
use super::rng::Rng;
use crate::time::Timestamp;
use alloc::string::{String, ToString};
use core::time::Duration;

/// A scripted response of the simulated server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Reply {
    pub(super) status: Option<u16>,
    pub(super) retry_after: Option<String>,
    pub(super) delay: Duration,
    pub(super) keeps: bool,
    pub(super) is_early: bool,
}

impl Reply {
    /// Status 200; the server keeps the events.
    pub fn accept() -> Self {
        Self::status(200)
    }

    /// This status; the server keeps the events if it is a 2xx.
    pub fn status(status: u16) -> Self {
        Self {
            status: Some(status),
            retry_after: None,
            delay: Duration::ZERO,
            keeps: (200..300).contains(&status),
            is_early: false,
        }
    }

    /// No response, ever; the server does not keep the events.
    pub fn stall() -> Self {
        Self {
            status: None,
            keeps: false,
            ..Self::accept()
        }
    }

    /// No response, ever, though the server keeps the events.
    pub fn lost() -> Self {
        Self {
            keeps: true,
            ..Self::stall()
        }
    }

    /// Adds this `Retry-After`: seconds, a date, or anything else.
    pub fn retry_after(mut self, value: impl Into<String>) -> Self {
        self.retry_after = Some(value.into());
        self
    }

    /// Sends the response before the body of the request was read, and closes: a client that does not ask first, with
    /// `expect: 100-continue`, finds its connection broken instead. The server keeps nothing.
    pub const fn early(mut self) -> Self {
        self.is_early = true;
        self.keeps = false;
        self
    }

    /// Delays the response by this much simulated time.
    pub const fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
}

/// The value of the `Retry-After` that `fault` stands for.
pub(super) fn retry_after(fault: Fault, rng: &mut Rng, utc: Timestamp) -> String {
    let seconds = rng.below(120);
    match fault {
        Fault::RetryAfterSeconds => seconds.to_string(),
        Fault::RetryAfterDate => http_date(later(utc, Duration::from_secs(seconds))),
        Fault::RetryAfterZero => "0".into(),
        Fault::RetryAfterNegative => "-5".into(),
        Fault::RetryAfterEnormous => "99999999999999999999".into(),
        _ => "soon".into(),
    }
}

/// The last second of the year 9999: an HTTP date cannot express more.
const MAX_DATE: Duration = Duration::from_secs(253_402_300_799);

pub(super) fn later(utc: Timestamp, by: Duration) -> Timestamp {
    let by = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
    Timestamp::from_unix_micros(utc.as_unix_micros().saturating_add(by))
}

pub(super) fn http_date(utc: Timestamp) -> String {
    let at = Duration::from_micros(utc.as_unix_micros());
    httpdate::fmt_http_date(std::time::UNIX_EPOCH + at.min(MAX_DATE))
}

/// The pause that a `Retry-After` asks for, sent when the server's clock shows `utc`; `None` for garbage.
pub(super) fn asked(value: &str, utc: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = value.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    let at = at.duration_since(std::time::UNIX_EPOCH).ok()?;
    // Dates count whole seconds.
    let now = utc.as_unix_micros() / 1_000_000;
    Some(at.saturating_sub(Duration::from_secs(now)))
}
