//! reqwest-middleware: HTTP events of a reqwest client.

use super::http::{Failure, HttpEvents, Marks, of_error, of_text};
use alloc::boxed::Box;
use alloc::string::ToString as _;
use http::Extensions;
use reqwest_middleware::reqwest::{self, Request, Response};
use reqwest_middleware::{Error, Middleware, Next, Result};

/// A middleware for `reqwest_middleware::ClientBuilder::with`: tells of a `stop` when the head of an answer is there.
///
/// What middleware comes before it is not told of, and what comes behind it is told of as one request: put it behind one
/// that retries, to see each attempt. A [`RetryCount`](crate::http::RetryCount) is an extension
/// (`RequestBuilder::with_extension`).
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest-middleware")))]
#[async_trait::async_trait]
impl Middleware for HttpEvents {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let path = request.url().path();
        let marks = Marks::of(extensions);
        let call = self.start_marked(request.method().as_str(), path, marks);
        let result = next.run(request, extensions).await;
        match &result {
            Ok(answer) => call.stop(answer.status().as_u16()),
            Err(Error::Reqwest(error)) => call.fail(failure(error)),
            Err(Error::Middleware(error)) => call.fail(of_text(&error.to_string())),
        }
        result
    }
}

fn failure(error: &reqwest::Error) -> Failure {
    let known = of_error(error);
    match known {
        _ if error.is_timeout() => Failure::TIMEOUT,
        Failure::UNKNOWN if error.is_connect() => Failure::error("connection failed"),
        Failure::UNKNOWN if error.is_redirect() => Failure::error("a redirect failed"),
        Failure::UNKNOWN if error.is_builder() => Failure::error("the request is not HTTP"),
        known => known,
    }
}
