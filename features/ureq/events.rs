//! HTTP events for the application's own ureq agents.

use crate::features::http::HttpEvents;
use crate::features::http::failure::Failure;
use http::{Request, Response};
use ureq::middleware::{Middleware, MiddlewareNext};
use ureq::{Body, Error, SendBody};

/// ureq middleware: emits `stop` once the head of the final response, after any redirects, has arrived.
///
/// Set a [`RetryCount`](crate::http::RetryCount) as a request extension.
#[cfg_attr(docsrs, doc(cfg(feature = "ureq")))]
impl Middleware for HttpEvents {
    fn handle(
        &self,
        request: Request<SendBody<'_>>,
        next: MiddlewareNext<'_>,
    ) -> Result<Response<Body>, Error> {
        let call = self.start_request(&request);
        let result = next.handle(request);
        match &result {
            Ok(response) => call.stop(response.status().as_u16()),
            Err(Error::StatusCode(status)) => call.stop(*status),
            Err(error) => call.fail(failure(error)),
        }
        result
    }
}

fn failure(error: &Error) -> Failure {
    match error {
        Error::Io(error) => Failure::from_io(error),
        Error::Timeout(_) => Failure::TIMEOUT,
        Error::HostNotFound => Failure::LOOKUP,
        Error::ConnectionFailed | Error::ConnectProxyFailed(_) => {
            Failure::error("connection failed")
        }
        Error::TooManyRedirects | Error::RedirectFailed => Failure::error("redirect failed"),
        Error::Tls(_) | Error::Rustls(_) | Error::Pem(_) | Error::TlsRequired => Failure::TLS,
        Error::Protocol(_) => Failure::error("the response is not valid HTTP"),
        Error::Http(_) | Error::BadUri(_) => Failure::error("the request is not valid HTTP"),
        other => Failure::from_error(other),
    }
}
