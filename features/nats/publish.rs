//! Publishes the events of a batch on one connection, and keeps account of what the stream has.

use super::ack::Ack;
use super::config::Config;
use super::message::{Head, event_id, is_end};
use super::network::{Arrival, Connection};
use super::stored::Stored;
use crate::transport::Batch;
use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use async_nats::Message;
use async_nats::client::PublishErrorKind;
use bytes::Bytes;
use core::fmt;

/// Messages that are published before the first of them is acknowledged, at most. Less than the client's queue holds, so
/// that publishing does not wait for a connection that is broken.
pub(super) const WINDOW: usize = 1024;

/// Publishes on a connection.
pub(super) struct Publisher<C> {
    pub(super) connection: C,
    next_reply: u64,
}

/// Why a batch, or a part of it, is not in the stream.
pub(super) enum Failure {
    /// The connection must not be used again.
    Broken(String),
    /// The stream did not take an event, and may later.
    Refused(String),
    /// An event can never be in the stream. Those before it in the batch may be, and the end of the session is not.
    TooLarge(String),
}

impl<C: Connection> Publisher<C> {
    pub(super) const fn new(connection: C) -> Self {
        Self {
            connection,
            next_reply: 0,
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connection.is_connected()
    }

    /// Why one of these events cannot be published, if that shows before.
    fn unpublishable(&self, batch: &Batch<'_>, head: &Head) -> Option<String> {
        let limit = self.connection.max_payload();
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
                    sending.settle(&message, self.connection.inbox(), &config.stream, stored);
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
        let reply = format!("{}.{}", self.connection.inbox(), self.next_reply);
        let payload = Bytes::copy_from_slice(event);
        // Without a connection a client would keep it, and deliver it when the session counts it as dropped.
        if !self.is_connected() {
            return Err(self.broken());
        }
        let published = self.connection.publish(subject, reply, headers, payload);
        match published.await {
            Ok(()) => {
                self.next_reply += 1;
                sending.ids.push(Some(id));
                sending.waiting += 1;
                Ok(())
            }
            Err(PublishErrorKind::MaxPayloadExceeded) => {
                // The server has just said so.
                sending.too_large = Some(too_large(self.connection.max_payload()));
                Ok(())
            }
            Err(_) => Err(self.broken()),
        }
    }

    async fn next_acknowledgement(&mut self) -> Result<Message, Failure> {
        loop {
            match self.connection.next().await {
                Arrival::Message(message) => return Ok(message),
                Arrival::Nothing if self.is_connected() => {}
                Arrival::Nothing | Arrival::Ended => return Err(self.broken()),
            }
        }
    }

    fn broken(&self) -> Failure {
        let said = self.connection.last_error();
        let said = said.map_or_else(String::new, |said| format!(": {said}"));
        Failure::Broken(format!("the connection to NATS broke{said}"))
    }
}

impl<C: Connection> fmt::Debug for Publisher<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
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
