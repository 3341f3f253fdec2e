//! The stream of all that happens, as server-sent events. A reader that is slow only gets behind.

use core::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, HttpBody},
    response::Response,
};
use bytes::Bytes;
use http::{StatusCode, request::Parts};
use tokio::sync::watch;

use super::super::feed::Feed;
use super::super::hub::Hub;
use super::super::prelude::*;
use super::api::Query;
use super::typed;

/// Items, and bytes, that are written at once.
const MAX_ITEMS: usize = 512;
const MAX_BYTES: usize = 256 << 10;
/// News are collected for this long, so that a thousand events a second are not a thousand writes.
const REST: Duration = Duration::from_millis(30);
/// A comment after this much silence shows that the connection lives.
const PING: Duration = Duration::from_secs(15);

/// Opens a stream after the item that the request names, or from the beginning.
pub(super) fn open(hub: &Hub, head: &Parts, query: &Query) -> Response {
    let last = head.headers.get("last-event-id");
    let last = last
        .and_then(|value| value.to_str().ok())
        .or(query.get("after"));
    let last = last.and_then(|last| last.rsplit_once('-'));
    let (mut at, mut is_other) = (0, false);
    if let Some((epoch, position)) = last {
        match position.parse::<u64>() {
            Ok(position) if epoch == hub.feed.epoch => at = position.saturating_add(1),
            _ => is_other = true,
        }
    }
    let state = State {
        feed: Arc::clone(&hub.feed),
        next: hub.feed.next(),
        at,
        full: query.get("full").is_some(),
        once: query.get("once").is_some(),
        session: query.get("session").map(str::to_owned),
        greeting: Some(if is_other {
            r#"{"type":"restart"}"#
        } else {
            ""
        }),
        has_caught_up: false,
    };
    let frames = Frames {
        step: Some(Box::pin(state.step())),
    };
    typed(StatusCode::OK, "text/event-stream", Body::new(frames))
}

struct State {
    feed: Arc<Feed>,
    next: watch::Receiver<u64>,
    at: u64,
    full: bool,
    once: bool,
    session: Option<String>,
    greeting: Option<&'static str>,
    has_caught_up: bool,
}

type Step = Pin<Box<dyn Future<Output = Option<(Bytes, State)>> + Send>>;

impl State {
    /// The next bytes, when there are some; `None` at the end.
    async fn step(mut self) -> Option<(Bytes, Self)> {
        if let Some(greeting) = self.greeting.take() {
            let mut text = String::new();
            text.push_str("retry: 1000\n\n");
            if !greeting.is_empty() {
                text.push_str(&format!("data: {greeting}\n\n"));
            }
            return Some((text.into(), self));
        }
        loop {
            self.next.mark_unchanged();
            // On another thread: a thousand events a second must not hold up the requests that bring them.
            let (portion, next) = {
                let (feed, session) = (Arc::clone(&self.feed), self.session.clone());
                let (at, full) = (self.at, self.full);
                let work = move || portion(&feed, at, full, session.as_deref());
                tokio::task::spawn_blocking(work).await.ok()?
            };
            let is_news = next > self.at;
            self.at = next;
            if !portion.is_empty() {
                return Some((portion.into(), self));
            }
            if is_news {
                continue;
            }
            if !self.has_caught_up {
                self.has_caught_up = true;
                let now = Bytes::from_static(b"data: {\"type\":\"now\"}\n\n");
                return Some((now, self));
            }
            if self.once {
                return None;
            }
            match tokio::time::timeout(PING, self.next.changed()).await {
                Ok(Ok(())) => tokio::time::sleep(REST).await,
                Ok(Err(_)) => return None,
                Err(_) => return Some((Bytes::from_static(b": \n\n"), self)),
            }
        }
    }
}

/// What follows this position, and the next position.
fn portion(feed: &Feed, at: u64, full: bool, session: Option<&str>) -> (String, u64) {
    let (mut text, portion) = (String::new(), feed.read(at, MAX_ITEMS));
    if portion.missed > 0 {
        let missed = portion.missed;
        text.push_str(&format!("data: {{\"type\":\"gap\",\"rows\":{missed}}}\n\n"));
    }
    let (epoch, mut at) = (&feed.epoch, portion.first);
    for item in &portion.items {
        if session.is_none() || session == item.session() {
            let json = item.json(full);
            text.push_str(&format!("id: {epoch}-{at}\ndata: {json}\n\n"));
        }
        at += 1;
        if text.len() > MAX_BYTES {
            break;
        }
    }
    (text, at)
}

/// The body of the response.
struct Frames {
    step: Option<Step>,
}

impl HttpBody for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        let Some(step) = &mut self.step else {
            return Poll::Ready(None);
        };
        let Poll::Ready(result) = step.as_mut().poll(context) else {
            return Poll::Pending;
        };
        self.step = None;
        Poll::Ready(result.map(|(bytes, state)| {
            self.step = Some(Box::pin(state.step()));
            Ok(http_body::Frame::data(bytes))
        }))
    }
}
