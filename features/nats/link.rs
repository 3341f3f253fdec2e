//! One connection to a server, which ends when it breaks: nothing that it has not sent goes out on another.
//!
//! A client that reconnects by itself keeps what it could not send, and delivers it then, perhaps long after the session
//! has counted it as dropped and told the program so. So a client here may connect once: its second attempt to
//! authenticate fails, which ends it, and its queue with it. And an attempt that the session abandons ends its
//! connection.

use super::ack::StreamInfo;
use super::config::{Config, shown};
use super::network::{Arrival, Connection, Network};
use super::publish::WINDOW;
use crate::transport::SendError;
use ::tokio::time::{Instant, timeout, timeout_at};
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::sync::Arc;
use async_nats::client::PublishErrorKind;
use async_nats::connection::State;
use async_nats::{
    AuthError, Client, ConnectErrorKind, ConnectOptions, Event, HeaderMap, ServerAddr, Subject,
    Subscriber,
};
use bytes::Bytes;
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use futures_core::Stream as _;
use std::sync::{Mutex, PoisonError};

/// Connections of the NATS client, and tokio's time.
pub(super) struct Sockets;

impl Network for Sockets {
    type Connection = Link;
    type Deadline = Instant;

    async fn open(
        &self,
        config: &Config,
        server: &ServerAddr,
        patience: Duration,
    ) -> Result<Link, SendError> {
        Link::open(config, server, patience).await
    }

    fn deadline(&self, patience: Duration) -> Instant {
        Instant::now() + patience
    }

    async fn until<T>(&self, deadline: Instant, work: impl Future<Output = T>) -> Option<T> {
        timeout_at(deadline, work).await.ok()
    }
}

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
    last_error: LastError,
}

/// What a server says without having been asked: that publishing is not permitted, say.
type LastError = Arc<Mutex<Option<String>>>;

impl Link {
    async fn open(
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
            last_error,
        })
    }
}

impl Connection for Link {
    fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    fn max_payload(&self) -> usize {
        self.client.max_payload()
    }

    fn last_error(&self) -> Option<String> {
        let error = self.last_error.lock();
        error.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn inbox(&self) -> &str {
        &self.reply
    }

    async fn stream_info(&self, stream: &str, patience: Duration) -> StreamInfo {
        let subject = format!("$JS.API.STREAM.INFO.{stream}");
        match timeout(patience, self.client.request(subject, Bytes::new())).await {
            Ok(Ok(message)) => StreamInfo::of(&message),
            Ok(Err(_)) | Err(_) => StreamInfo::Unknown,
        }
    }

    async fn publish(
        &mut self,
        subject: Subject,
        reply: String,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<(), PublishErrorKind> {
        let client = &self.client;
        let published = client.publish_with_reply_and_headers(subject, reply, headers, payload);
        published.await.map_err(|error| error.kind())
    }

    async fn next(&mut self) -> Arrival {
        let inbox = &mut self.inbox;
        let next = poll_fn(|context| Pin::new(&mut *inbox).poll_next(context));
        match timeout(LOOK, next).await {
            Ok(Some(message)) => Arrival::Message(message),
            Ok(None) => Arrival::Ended,
            Err(_) => Arrival::Nothing,
        }
    }
}

/// What others say, in one short line.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}
