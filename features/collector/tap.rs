//! What the program `tinkex-telemetry` adds to a collector: it sees every exchange, may answer in the collector's place,
//! and serves paths of its own.

use alloc::{boxed::Box, string::String, sync::Arc, vec::Vec};
use core::{future::Future, pin::Pin, time::Duration};
use std::time::SystemTime;

use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, Method, Request};

use super::super::wire::record::EventRecord;
pub(crate) use super::record::Sender;
use super::script::{Reply, ReplyKind};

/// A boxed future, since a `dyn` trait has no async functions.
pub(crate) type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Sees what a collector does.
pub(crate) trait Tap: Send + Sync {
    /// A reply in place of the collector's own, such as the real backend's. Events are checked and kept all the same.
    fn answer<'a>(&'a self, request: &'a Request<Bytes>) -> Later<'a, Option<Reply>>;

    /// Events were kept, and their request was not answered yet.
    fn kept(&self, kept: &KeptEvents);

    /// The reply to a request is decided; not to one for the page, or from a web page elsewhere.
    fn exchanged(&self, exchange: Exchange);

    /// Responds to a request for `/ui` or a path below it, which no web page elsewhere sent. It may be without the
    /// collector's key.
    fn serve(&self, request: Request<Bytes>) -> Later<'static, Option<Response>>;
}

/// The new events of one request.
pub(crate) struct KeptEvents {
    pub(crate) session: String,
    pub(crate) run: u32,
    pub(crate) sender: Sender,
    pub(crate) events: Vec<EventRecord>,
}

/// A request, and the reply to it.
pub(crate) struct Exchange {
    pub(crate) arrived: SystemTime,
    /// From the request's head to the decision.
    pub(crate) took: Duration,
    pub(crate) method: Method,
    /// With the query.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) reply: ReplyKind,
    pub(crate) delay: Duration,
    pub(crate) reply_headers: HeaderMap,
    pub(crate) reply_body: Bytes,
    /// What is known of a request to the telemetry endpoint.
    pub(crate) telemetry: Option<Telemetry>,
    /// Why the collector refused it, or would have if another had not answered.
    pub(crate) reason: Option<String>,
}

/// A request to the telemetry endpoint.
pub(crate) struct Telemetry {
    pub(crate) session: Option<String>,
    pub(crate) run: u32,
    /// The id and index of each event, if the request passed the check.
    pub(crate) events: Vec<(Arc<str>, u64)>,
    /// How many of them were kept now.
    pub(crate) new: usize,
    pub(crate) is_kept: bool,
}
