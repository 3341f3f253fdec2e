//! One connection to a server, which ends when it breaks: nothing that it has not sent goes out on another.
//!
//! A client that reconnects by itself keeps what it could not send, and delivers it then, perhaps long after the session
//! has counted it as dropped and told the program so. So a client here may connect once: its second attempt to
//! authenticate fails, which ends it, and its queue with it. And an attempt that the session abandons ends its
//! connection.

use super::ack::{Ack, StreamInfo};
use super::config::{Config, shown};
use super::message::{Head, event_id, is_end};
use super::stored::Stored;
use crate::transport::{Batch, SendError};
use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::sync::Arc;
use alloc::vec::Vec;
use async_nats::client::PublishErrorKind;
use async_nats::connection::State;
use async_nats::{
    AuthError, Client, ConnectErrorKind, ConnectOptions, Event, Message, ServerAddr, Subscriber,
};
use bytes::Bytes;
use core::fmt;
use core::future::poll_fn;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use futures_core::Stream as _;
use std::sync::{Mutex, PoisonError};
use tokio::time::timeout;

/// Messages that are published before the first of them is acknowledged, at most. Less than the client's queue holds, so
/// that publishing does not wait for a connection that is broken.
const WINDOW: usize = 1024;

/// How often a wait for acknowledgements looks whether there still is a connection.
const LOOK: Duration = Duration::from_millis(50);

/// A connection on which nothing arrives is asked for a sign of life this often, and ends after the third in vain: so
/// long may what is in the buffers of a network without a route still arrive.
const PING: Duration = Duration::from_secs(5);

pub(super) struct Link {
    client: Client,
    /// The acknowledgements.
    inbox: Subscriber,
    /// The beginning of the subjects to acknowledge to.
    reply: String,
    next_reply: u64,
    last_error: LastError,
}

/// What a server says without having been asked: that publishing is not permitted, say.
type LastError = Arc<Mutex<Option<String>>>;

/// Why a batch, or a part of it, is not in the stream.
pub(super) enum Failure {
    /// The connection must not be used again.
    Broken(String),
    /// The stream did not take an event, and may later.
    Refused(String),
    /// An event can never be in the stream. Those before it in the batch may be, and the end of the session is not.
    TooLarge(String),
}

impl Link {
    pub(super) async fn open(
        config: &Config,
        server: &ServerAddr,
        patience: Duration,
    ) -> Result<Self, SendError> {
        let last_error = LastError::default();
        let (auth, errors) = (config.auth.clone(), Arc::clone(&last_error));
        let is_first = AtomicBool::new(true);
        let options = ConnectOptions::with_auth_callback(move |_| {
            let auth = auth.clone();
            let is_first = is_first.swap(false, Ordering::Relaxed);
            async move {
                let refused = || AuthError::new("a connection of this transport is not resumed");
                if is_first { Ok(auth) } else { Err(refused()) }
            }
        });
        let options = options
            .name("tinkex-telemetry")
            .max_reconnects(1)
            .ignore_discovered_servers()
            .connection_timeout(patience)
            .ping_interval(PING)
            .client_capacity(2 * WINDOW)
            .subscription_capacity(2 * WINDOW)
            .event_callback(move |event| {
                if let Event::ServerError(error) = event {
                    let text = Some(printable(&error.to_string()));
                    *errors.lock().unwrap_or_else(PoisonError::into_inner) = text;
                }
                async {}
            });
        let client = options.connect(server.clone()).await;
        let client = client.map_err(|error| {
            let cause = core::error::Error::source(&error).map_or_else(String::new, |cause| {
                format!(": {}", printable(&cause.to_string()))
            });
            let reason = format!(
                "cannot connect to {}: {}{cause}",
                shown(server),
                error.kind()
            );
            match error.kind() {
                ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                    SendError::unauthorized(reason)
                }
                _ => SendError::retryable(reason),
            }
        })?;
        let reply = client.new_inbox();
        let inbox = client.subscribe(format!("{reply}.*")).await;
        let inbox = inbox.map_err(|_| SendError::retryable("the connection to NATS has ended"))?;
        Ok(Self {
            client,
            inbox,
            reply,
            next_reply: 0,
            last_error,
        })
    }

    pub(super) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    pub(super) fn last_error(&self) -> Option<String> {
        let error = self.last_error.lock();
        error.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks for the stream's configuration.
    pub(super) async fn stream_info(&self, stream: &str, patience: Duration) -> StreamInfo {
        let subject = format!("$JS.API.STREAM.INFO.{stream}");
        match timeout(patience, self.client.request(subject, Bytes::new())).await {
            Ok(Ok(message)) => StreamInfo::of(&message),
            Ok(Err(_)) | Err(_) => StreamInfo::Unknown,
        }
    }

    /// Why one of these events cannot be published, if that shows before.
    fn unpublishable(&self, batch: &Batch<'_>, head: &Head) -> Option<String> {
        let limit = self.client.max_payload();
        batch.events().find_map(|event| match event_id(event) {
            None => Some("an event has no event_id".into()),
            Some(id) => (head.message_len(event, &id) > limit).then(|| too_large(limit)),
        })
    }

    /// Publishes what of a batch is not stored yet, and awaits the acknowledgements.
    ///
    /// Nothing is published if an event is too large for the server. And `SESSION_END` waits until the stream has
    /// everything before it: a session whose last batch is refused puts a report of the loss before its end, which then
    /// has another id.
    pub(super) async fn publish(
        &mut self,
        batch: &Batch<'_>,
        config: &Config,
        head: &Head,
        stored: &mut Stored,
    ) -> Result<(), Failure> {
        if let Some(reason) = self.unpublishable(batch, head) {
            return Err(Failure::TooLarge(reason));
        }
        let mut sending = Sending {
            first_reply: self.next_reply,
            ids: Vec::with_capacity(batch.event_count().min(WINDOW)),
            waiting: 0,
            refused: None,
            too_large: None,
        };
        let mut events = batch.events().peekable();
        loop {
            let may_publish = sending.waiting < WINDOW && sending.refused.is_none();
            let has_failed = || sending.refused.is_some() || sending.too_large.is_some();
            let next = events.next_if(|event| {
                may_publish && (!is_end(event) || (sending.waiting == 0 && !has_failed()))
            });
            match next {
                Some(event) => {
                    let Some(id) = event_id(event) else {
                        sending.too_large = Some("an event has no event_id".into());
                        continue;
                    };
                    if !stored.has(&id) {
                        self.publish_one(event, id, head, &mut sending).await?;
                    }
                }
                None if sending.waiting > 0 => {
                    let message = self.next_acknowledgement().await?;
                    sending.settle(&message, &self.reply, &config.stream, stored);
                }
                None => break,
            }
        }
        match (sending.refused, sending.too_large) {
            (Some(reason), _) => Err(Failure::Refused(reason)),
            (None, Some(reason)) => Err(Failure::TooLarge(reason)),
            (None, None) => Ok(()),
        }
    }

    async fn publish_one<'a>(
        &mut self,
        event: &[u8],
        id: Cow<'a, str>,
        head: &Head,
        sending: &mut Sending<'a>,
    ) -> Result<(), Failure> {
        let (subject, headers) = (head.subject(event), head.headers(&id));
        let reply = format!("{}.{}", self.reply, self.next_reply);
        let payload = Bytes::copy_from_slice(event);
        if !self.is_connected() {
            return Err(self.broken());
        }
        let published = self
            .client
            .publish_with_reply_and_headers(subject, reply, headers, payload);
        match published.await {
            Ok(()) => {
                self.next_reply += 1;
                sending.ids.push(Some(id));
                sending.waiting += 1;
                Ok(())
            }
            Err(error) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                // The server has just said so.
                sending.too_large = Some(too_large(self.client.max_payload()));
                Ok(())
            }
            Err(_) => Err(self.broken()),
        }
    }

    async fn next_acknowledgement(&mut self) -> Result<Message, Failure> {
        loop {
            let inbox = &mut self.inbox;
            let next = poll_fn(|context| Pin::new(&mut *inbox).poll_next(context));
            match timeout(LOOK, next).await {
                Ok(Some(message)) => return Ok(message),
                Ok(None) => return Err(self.broken()),
                Err(_) if !self.is_connected() => return Err(self.broken()),
                Err(_) => {}
            }
        }
    }

    fn broken(&self) -> Failure {
        let said = self
            .last_error()
            .map_or_else(String::new, |said| format!(": {said}"));
        Failure::Broken(format!("the connection to NATS broke{said}"))
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("is_connected", &self.is_connected())
            .finish_non_exhaustive()
    }
}

/// An attempt at a batch.
struct Sending<'a> {
    /// The number of the first message; the others follow.
    first_reply: u64,
    /// The events' ids, until each is acknowledged.
    ids: Vec<Option<Cow<'a, str>>>,
    waiting: usize,
    refused: Option<String>,
    too_large: Option<String>,
}

impl Sending<'_> {
    fn settle(&mut self, message: &Message, reply: &str, stream: &str, stored: &mut Stored) {
        let token = message.subject.strip_prefix(reply);
        let number = token.and_then(|token| token.strip_prefix('.')?.parse::<u64>().ok());
        let at = number.and_then(|number| number.checked_sub(self.first_reply));
        let at = at.and_then(|at| usize::try_from(at).ok());
        // One of an earlier batch, or the second for one message.
        let Some(id) = at.and_then(|at| self.ids.get_mut(at)?.take()) else {
            return;
        };
        self.waiting -= 1;
        match Ack::of(message, stream) {
            Ack::Stored => stored.add(&id),
            Ack::TooLarge(reason) => self.too_large = Some(reason),
            Ack::Refused(reason) => self.refused = Some(reason),
        }
    }
}

fn too_large(limit: usize) -> String {
    format!("larger than the server's max_payload of {limit} bytes")
}

/// What others say, in one short line.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}
