//! The HTTP events of exchanges: one pair of start and end for each, or for a series of polls that say nothing new.

use crate::features::http::{Failure, HttpCall, HttpEvents};
use http::Request;

/// The events of one exchange, or of several that are reported as one request. Dropping it reports the end.
#[derive(Default)]
pub(super) struct ExchangeReport {
    reported: Option<HttpCall>,
    /// The status of the last response, unless an exchange is under way.
    status: Option<u16>,
}

impl ExchangeReport {
    /// Reports the start of an exchange, unless it continues a series.
    pub(super) fn begin<B>(&mut self, events: Option<&HttpEvents>, request: &Request<B>) {
        self.status = None;
        match &mut self.reported {
            Some(reported) => reported.add_poll(),
            None => self.reported = events.map(|events| events.start_request(request)),
        }
    }

    /// Notes a response. The end is reported by [`end`](Self::end).
    pub(super) const fn responded(&mut self, status: u16) {
        self.status = Some(status);
    }

    /// Reports an end without a response.
    pub(super) fn fail(&mut self, failure: Failure) {
        if let Some(reported) = self.reported.take() {
            reported.fail(failure);
        }
    }

    /// Reports the end, so that the next exchange is a request of its own.
    pub(super) fn end(&mut self) {
        if let (Some(status), Some(reported)) = (self.status.take(), self.reported.take()) {
            reported.stop(status);
        }
    }
}

/// Within an exchange, the request's own drop reports that it was cancelled.
impl Drop for ExchangeReport {
    fn drop(&mut self) {
        self.end();
    }
}
