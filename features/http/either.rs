//! One of two HTTP clients, chosen when the program runs.

use super::client::{HttpClient, HttpError};
use crate::event::{Blame, Classify};
use crate::transport::Either;
use bytes::Bytes;
use core::error::Error;
use http::{Request, Response, Uri};

impl<A: HttpClient, B: HttpClient> HttpClient for Either<A, B> {
    async fn send(&mut self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        match self {
            Self::Left(client) => client.send(request).await,
            Self::Right(client) => client.send(request).await,
        }
    }

    fn check(&self, url: &Uri) -> Result<(), HttpError> {
        match self {
            Self::Left(client) => client.check(url),
            Self::Right(client) => client.check(url),
        }
    }

    fn blame<'a>(error: &'a (dyn Error + 'static)) -> Option<Blame<'a>> {
        A::blame(error).or_else(|| B::blame(error))
    }

    fn classifier(&self) -> Classify {
        match self {
            Self::Left(client) => client.classifier(),
            Self::Right(client) => client.classifier(),
        }
    }
}
