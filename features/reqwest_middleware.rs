//! reqwest-middleware: HTTP events of a reqwest client.

use super::http::HttpEvents;
use super::http::events::Marks;
use super::http::failure::Failure;
use alloc::boxed::Box;
use alloc::string::ToString as _;
use http::Extensions;
use reqwest_middleware::reqwest::{self, Request, Response};
use reqwest_middleware::{Error, Middleware, Next, Result};

/// A middleware for `reqwest_middleware::ClientBuilder::with`: emits `stop` once the head of a response has arrived.
///
/// It observes only what the middleware after it does, as one request: to see each attempt, install it after one that
/// retries. Set a [`RetryCount`](crate::http::RetryCount) as an extension (`RequestBuilder::with_extension`).
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
            Ok(response) => call.stop(response.status().as_u16()),
            Err(Error::Reqwest(error)) => call.fail(failure(error)),
            Err(Error::Middleware(error)) => call.fail(Failure::from_text(&error.to_string())),
        }
        result
    }
}

fn failure(error: &reqwest::Error) -> Failure {
    match Failure::from_error(error) {
        _ if error.is_timeout() => Failure::TIMEOUT,
        Failure::UNKNOWN if error.is_connect() => Failure::error("connection failed"),
        Failure::UNKNOWN if error.is_redirect() => Failure::error("redirect failed"),
        Failure::UNKNOWN if error.is_builder() => Failure::error("the request is not valid HTTP"),
        known => known,
    }
}
