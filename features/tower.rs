//! tower: HTTP events of client and server services.

use super::http::{Failure, HttpCall, HttpEvents, Observed};
use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

/// A layer for client and server services over `http::Request` and `http::Response`: tells of a `stop` at the end or the
/// drop of the answer's body, of an `exception` when the service or the body fails.
///
/// A [`RetryCount`](crate::http::RetryCount) is an extension of the request.
#[cfg_attr(docsrs, doc(cfg(feature = "tower")))]
impl<S> Layer<S> for HttpEvents {
    type Service = Observed<S>;

    fn layer(&self, service: S) -> Observed<S> {
        self.wrap(service)
    }
}

#[cfg_attr(docsrs, doc(cfg(feature = "tower")))]
impl<S, B, R> Service<Request<B>> for Observed<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body,
{
    type Response = Response<ObservedBody<R>>;
    type Error = S::Error;
    type Future = ObservedFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> ObservedFuture<S::Future> {
        let call = self.events.start_request(&request);
        ObservedFuture {
            call: Some(call),
            future: self.inner.call(request),
        }
    }
}

pin_project! {
    /// The future of an [`Observed`] service.
    #[must_use = "futures do nothing unless they are polled"]
    pub struct ObservedFuture<F> {
        call: Option<HttpCall>,
        #[pin]
        future: F,
    }
}

impl<F, R, E> Future for ObservedFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body,
{
    type Output = Result<Response<ObservedBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = match ready!(this.future.poll(context)) {
            Ok(answer) => {
                let status = answer.status().as_u16();
                let mut end = End(this.call.take().map(|call| (call, status)));
                Ok(answer.map(|body| {
                    end.look(&body);
                    ObservedBody { end, body }
                }))
            }
            Err(error) => {
                if let Some(call) = this.call.take() {
                    call.fail(Failure::error("the service failed"));
                }
                Err(error)
            }
        };
        Poll::Ready(result)
    }
}

/// A request that has the head of its answer, until its end is told.
struct End(Option<(HttpCall, u16)>);

impl End {
    /// Tells of the end where a body has come to it: it need not be polled again.
    fn look(&mut self, body: &impl Body) {
        if body.is_end_stream() {
            self.stop();
        }
    }

    fn stop(&mut self) {
        if let Some((call, status)) = self.0.take() {
            call.stop(status);
        }
    }

    fn fail(&mut self) {
        if let Some((call, _)) = self.0.take() {
            call.fail(Failure::error("the answer broke off"));
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        // While the thread unwinds, the call tells of the panic.
        if !std::thread::panicking() {
            self.stop();
        }
    }
}

pin_project! {
    /// The body of the answer of an [`Observed`] service.
    pub struct ObservedBody<B> {
        end: End,
        #[pin]
        body: B,
    }
}

impl<B: Body> Body for ObservedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.body.as_mut().poll_frame(context));
        match &frame {
            None => this.end.stop(),
            Some(Err(_)) => this.end.fail(),
            Some(Ok(_)) => this.end.look(&*this.body),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: Default> Default for ObservedBody<B> {
    /// A body of which nothing is told.
    fn default() -> Self {
        Self {
            end: End(None),
            body: B::default(),
        }
    }
}

impl<F> fmt::Debug for ObservedFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObservedFuture").finish_non_exhaustive()
    }
}

impl<B> fmt::Debug for ObservedBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObservedBody").finish_non_exhaustive()
    }
}
