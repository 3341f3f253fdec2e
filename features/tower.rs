//! tower: HTTP events of client and server services.

use super::http::failure::Failure;
use super::http::{HttpCall, HttpEvents, Observed};
use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

/// A layer for client and server services over `http::Request` and `http::Response`: emits `stop` when the response's
/// body ends or is dropped, and `exception` when the service or the body fails.
///
/// Set a [`RetryCount`](crate::http::RetryCount) as a request extension.
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
            Ok(response) => {
                let status = response.status().as_u16();
                let mut end = PendingEnd(this.call.take().map(|call| (call, status)));
                Ok(response.map(|body| {
                    end.stop_at_end(&body);
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

/// A request that has its response's head and status, until its end is emitted.
struct PendingEnd(Option<(HttpCall, u16)>);

impl PendingEnd {
    /// Emits `stop` if the body has ended: the caller need not poll it again.
    fn stop_at_end(&mut self, body: &impl Body) {
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
            call.fail(Failure::TRUNCATED);
        }
    }
}

impl Drop for PendingEnd {
    fn drop(&mut self) {
        // While the thread unwinds, dropping the call reports the panic.
        if !std::thread::panicking() {
            self.stop();
        }
    }
}

pin_project! {
    /// The response body of an [`Observed`] service.
    pub struct ObservedBody<B> {
        end: PendingEnd,
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
            Some(Ok(_)) => this.end.stop_at_end(&*this.body),
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
    /// A body that emits no events.
    fn default() -> Self {
        Self {
            end: PendingEnd(None),
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
