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

    use super::super::connection::{Server, error_response, hang_up, read_body, send_reply};
    use super::super::script::Reply;
    use super::super::seats::Activity;
    use super::super::state::{Recorded, State, refusal};
    use super::super::tap::{Exchange, Telemetry};

    /// A request that the tap sees.
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
            if state.check_key(seen.request.headers()).is_err() {
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
        let (arrived, state) = (Instant::now(), &server.state);
        let path = request.uri().path();
        let Some(tap) = state.tap() else {
            return Err(request);
        };
        let call = path.strip_prefix("/api/v1/");
        if call.is_some_and(|call| !call.is_empty()) {
            return Err(request);
        }
        let is_page = path == "/ui" || path.starts_with("/ui/");
        let (head, body) = request.into_parts();
        let body = read_body(body, state).await;
        activity.is_busy();
        let received = match body {
            Some(Ok(received)) => Ok(received),
            Some(Err(violation)) => Err(violation),
            // What comes of half a request is not for others to find out.
            None => return Ok(hang_up()),
        };
        if is_page {
            let received = match received {
                Ok(received) => received,
                Err(violation) => {
                    let status = http::StatusCode::from_u16(violation.status()).unwrap_or_default();
                    return Ok(error_response(status, &violation.to_string()));
                }
            };
            // Its share of the room is held until the response is there.
            let request = Request::from_parts(head, received.bytes.clone());
            return Ok(tap.serve(request).await.unwrap_or_else(hang_up));
        }
        let bytes = received.as_ref().ok().map(|received| &received.bytes);
        let tapped = Tapped::new(state, arrived, &head, bytes);
        let refused = state.check_key(&head.headers).err();
        let reply = match refused.as_ref().or(received.as_ref().err()) {
            Some(violation) => refusal(violation, None),
            None => tapped.answer(state).await.unwrap_or_else(|| {
                let body = serde_json::json!({ "error": NO_PATH }).to_string();
                Reply::refuse(404, NO_PATH.to_string()).body(body)
            }),
        };
        tapped.exchanged(state, &reply, None);
        Ok(send_reply(reply).await)
    }

    const NO_PATH: &str = "no such path";
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
