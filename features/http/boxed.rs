//! An HTTP client of any type, chosen when the program runs.

use super::client::{HttpClient, HttpError};
use crate::event::Classify;
use alloc::boxed::Box;
use bytes::Bytes;
use core::fmt;
use core::future::Future;
use core::pin::Pin;
use http::{Request, Response, Uri};

/// An HTTP client of any type, chosen when the program runs, for [`HttpTransport`](crate::HttpTransport).
///
/// Each request allocates its future. Everything else is that of the client inside, cancel safety included.
///
/// ```
/// use tinkex_telemetry::http::{BoxHttpClient, HttpError, bytes::Bytes, http::{Request, Response}};
/// use tinkex_telemetry::{Config, HttpTransport};
///
/// fn client(is_offline: bool) -> BoxHttpClient {
///     if is_offline {
///         BoxHttpClient::new(async |_: Request<Bytes>| Err(HttpError::new("offline")))
///     } else {
///         BoxHttpClient::new(async |_: Request<Bytes>| Ok(Response::new(Bytes::new())))
///     }
/// }
///
/// # fn example() -> Result<(), tinkex_telemetry::http::ConfigError> {
/// let transport = HttpTransport::new(Config::from_env()?, client(true));
/// # drop(transport);
/// # Ok(())
/// # }
/// ```
pub struct BoxHttpClient(Box<dyn AnyClient>);

impl BoxHttpClient {
    /// Boxes a client.
    pub fn new(client: impl HttpClient) -> Self {
        Self(Box::new(client))
    }
}

type Sending<'a> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'a>>;

/// An [`HttpClient`] without its type.
trait AnyClient: Send {
    fn send(&mut self, request: Request<Bytes>) -> Sending<'_>;
    fn check(&self, url: &Uri) -> Result<(), HttpError>;
    fn classifier(&self) -> Classify;
}

impl<H: HttpClient> AnyClient for H {
    fn send(&mut self, request: Request<Bytes>) -> Sending<'_> {
        Box::pin(HttpClient::send(self, request))
    }

    fn check(&self, url: &Uri) -> Result<(), HttpError> {
        HttpClient::check(self, url)
    }

    fn classifier(&self) -> Classify {
        HttpClient::classifier(self)
    }
}

impl HttpClient for BoxHttpClient {
    async fn send(&mut self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        self.0.send(request).await
    }

    fn check(&self, url: &Uri) -> Result<(), HttpError> {
        self.0.check(url)
    }

    fn classifier(&self) -> Classify {
        self.0.classifier()
    }
}

impl fmt::Debug for BoxHttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxHttpClient").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Blame;
    use crate::transport::Either;
    use core::error::Error;
    use core::pin::pin;
    use core::task::{Context, Poll, Waker};

    struct Picky;

    impl HttpClient for Picky {
        async fn send(&mut self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
            Ok(Response::new(request.into_body()))
        }

        fn check(&self, url: &Uri) -> Result<(), HttpError> {
            Err(HttpError::new(url))
        }

        fn blame<'a>(error: &'a (dyn Error + 'static)) -> Option<Blame<'a>> {
            error.is::<fmt::Error>().then(|| Blame::status(404))
        }
    }

    fn behaves_as_picky(mut client: impl HttpClient) {
        let checked = HttpClient::check(&client, &Uri::from_static("http://host/"));
        assert_eq!(checked, Err(HttpError::new("http://host/")));
        assert!(
            HttpClient::classifier(&client)(&fmt::Error).is_some_and(|blame| blame.is_callers())
        );
        let request = Request::new(Bytes::from_static(b"body"));
        let sent = pin!(HttpClient::send(&mut client, request))
            .poll(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(Ok(response)) = sent else {
            panic!("{sent:?}");
        };
        assert_eq!(response.body(), "body");
    }

    #[test]
    fn a_box_and_either_behave_as_the_client_in_them() {
        let closure = async |_: Request<Bytes>| Err(HttpError::new("unused"));
        behaves_as_picky(Picky);
        behaves_as_picky(BoxHttpClient::new(Picky));
        let mut one = Either::Left(Picky);
        behaves_as_picky(one);
        one = Either::Right(closure);
        let checked = HttpClient::check(&one, &Uri::from_static("http://host/"));
        assert_eq!(checked, Ok(()));
        assert!(HttpClient::classifier(&one)(&fmt::Error).is_none());
    }
}
