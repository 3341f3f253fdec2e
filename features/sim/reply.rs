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
        Fault::RetryAfterDate => {
            let at = Duration::from_micros(utc.as_unix_micros()) + Duration::from_secs(seconds);
            httpdate::fmt_http_date(std::time::UNIX_EPOCH + at.min(MAX_DATE))
        }
        Fault::RetryAfterZero => "0".into(),
        Fault::RetryAfterNegative => "-5".into(),
        Fault::RetryAfterEnormous => "99999999999999999999".into(),
        _ => "soon".into(),
    }
}

/// The last second of the year 9999: an HTTP date cannot express more.
const MAX_DATE: Duration = Duration::from_secs(253_402_300_799);
