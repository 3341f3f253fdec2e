//! Where a connection meets the [tap](super::tap). Without the feature `cli` there is none, and nothing happens here.

#[cfg(feature = "cli")]
pub(super) use with_tap::{Tapped, serve};
#[cfg(not(feature = "cli"))]
pub(super) use without_tap::{Tapped, serve};

#[cfg(feature = "cli")]
mod with_tap {
    use alloc::{string::ToString, sync::Arc};
    use std::time::{Instant, SystemTime};

    use axum::{body::Body, response::Response};
    use bytes::Bytes;
    use http::{Request, request::Parts};

    use super::super::connection::{Server, error_response, read_body};
    use super::super::script::Reply;
    use super::super::seats::Activity;
    use super::super::state::{Recorded, State};
    use super::super::tap::{Exchange, Telemetry};

    /// A request below `/api/v1/` that the tap sees.
    pub(in super::super) struct Tapped(Option<Seen>);

    struct Seen {
        arrived: Instant,
        at: SystemTime,
        request: Request<Bytes>,
    }

    impl Tapped {
        pub(in super::super) fn new(
            state: &State,
            arrived: Instant,
            head: &Parts,
            body: Option<&Bytes>,
        ) -> Self {
            let seen = state.tap().map(|_| {
                let mut request = Request::new(body.cloned().unwrap_or_default());
                *request.method_mut() = head.method.clone();
                *request.uri_mut() = head.uri.clone();
                *request.headers_mut() = head.headers.clone();
                let at = SystemTime::now();
                Seen {
                    arrived,
                    at: at.checked_sub(arrived.elapsed()).unwrap_or(at),
                    request,
                }
            });
            Self(seen)
        }

        /// The tap's reply. Requests without the key are answered by the collector, and go no further.
        pub(in super::super) async fn answer(&self, state: &State) -> Option<Reply> {
            let (seen, tap) = (self.0.as_ref()?, state.tap()?);
            if !state.has_key(seen.request.headers()) {
                return None;
            }
            tap.answer(&seen.request).await
        }

        pub(in super::super) fn exchanged(
            self,
            state: &State,
            reply: &Reply,
            recorded: Option<Recorded>,
        ) {
            let (Some(seen), Some(tap)) = (self.0, state.tap()) else {
                return;
            };
            let (head, body) = seen.request.into_parts();
            let reason = recorded
                .as_ref()
                .and_then(|recorded| recorded.reason.clone());
            let path = head.uri.path_and_query().map(ToString::to_string);
            tap.exchanged(Exchange {
                arrived: seen.at,
                took: seen.arrived.elapsed(),
                method: head.method,
                path: path.unwrap_or_default(),
                headers: head.headers,
                body,
                reply: reply.kind,
                delay: reply.delay,
                reply_headers: reply.headers.clone(),
                reply_body: reply.body.clone(),
                reason: reason.or_else(|| reply.refusal.clone()),
                telemetry: recorded.map(|recorded| Telemetry {
                    session: recorded.session,
                    run: recorded.run,
                    events: recorded.events,
                    new: recorded.new,
                    is_kept: recorded.is_kept,
                }),
            });
        }
    }

    /// The tap's response to a request for a path that is not the collector's; or the request.
    pub(in super::super) async fn serve(
        request: Request<Body>,
        server: &Server,
        activity: &Arc<Activity>,
    ) -> Result<Response, Request<Body>> {
        let path = request.uri().path();
        let Some(tap) = server.state.tap() else {
            return Err(request);
        };
        if path.starts_with("/api/v1/") {
            return Err(request);
        }
        let (head, body) = request.into_parts();
        let body = read_body(body, &server.state).await;
        activity.is_busy();
        let bytes = match body {
            Some(Ok(bytes)) => bytes,
            Some(Err(violation)) => {
                let status = http::StatusCode::from_u16(violation.status()).unwrap_or_default();
                return Ok(error_response(status, &violation.to_string()));
            }
            None => Bytes::new(),
        };
        let mut again = Request::new(Body::empty());
        *again.method_mut() = head.method.clone();
        *again.uri_mut() = head.uri.clone();
        match tap
            .serve(Request::from_parts(head, Body::from(bytes)))
            .await
        {
            Some(response) => Ok(response),
            None => Err(again),
        }
    }
}

#[cfg(not(feature = "cli"))]
mod without_tap {
    use alloc::sync::Arc;
    use std::time::Instant;

    use axum::{body::Body, response::Response};
    use bytes::Bytes;
    use http::{Request, request::Parts};

    use super::super::connection::Server;
    use super::super::script::Reply;
    use super::super::seats::Activity;
    use super::super::state::{Recorded, State};

    pub(in super::super) struct Tapped;

    impl Tapped {
        pub(in super::super) fn new(_: &State, _: Instant, _: &Parts, _: Option<&Bytes>) -> Self {
            Self
        }

        pub(in super::super) async fn answer(&self, _: &State) -> Option<Reply> {
            None
        }

        pub(in super::super) fn exchanged(self, _: &State, _: &Reply, recorded: Option<Recorded>) {
            drop(recorded);
        }
    }

    pub(in super::super) async fn serve(
        request: Request<Body>,
        _: &Server,
        _: &Arc<Activity>,
    ) -> Result<Response, Request<Body>> {
        Err(request)
    }
}
