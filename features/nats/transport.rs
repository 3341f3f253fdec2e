//! The transport: a connection when there is a batch to send, and one message for each event.

use super::attempts::Attempts;
use super::config::{Config, Servers};
use super::link::Sockets;
use crate::transport::{Batch, Receipt, SendError, SetupError, Transport};
use ::tokio::runtime::Handle;
use core::fmt;
use core::time::Duration;

/// Stores events in a stream of NATS JetStream, one message for each. It needs a session on [`Tokio`](struct@crate::Tokio).
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tinkex_telemetry::nats::JetStream;
/// use tinkex_telemetry::{Reporter, Tokio};
///
/// let transport = JetStream::connect("nats://127.0.0.1:4222").stream("TINKEX");
/// let telemetry = Reporter::builder("session-123")
///     .transport(transport)
///     .runtime(Tokio)
///     .start()?;
/// # drop(telemetry);
/// # Ok(())
/// # }
/// ```
///
/// Nothing is connected before the first batch, so that a session starts whether or not a server is there. A server that
/// cannot be reached is a failed attempt like any other, and the next one asks the next server.
/// [`connected`](Self::connected) connects at once, for programs that want to know.
///
/// | answer | outcome |
/// |---|---|
/// | every message acknowledged by the stream | handed over |
/// | no connection; no answer; no stream takes the subject, or another one; the stream is full; any other error | retried: an operator may still make the stream, or room in it |
/// | larger than the server's `max_payload`, or than the stream's `max_msg_size` | too large: the session drops that event alone. The sizes of a batch are checked before any of its events is published; what the stream itself finds too large shows when it answers |
/// | wrong credentials | rejected; a spool keeps the events |
///
/// What is acknowledged is not published again when the rest of its batch is. `SESSION_END` is published when the stream
/// has all events before it, so that it is stored once even if a report of a loss takes its place. A batch that is given
/// up (after `max_retries`) may have been stored in part: the session counts all of it as dropped, and the reason in the
/// diagnostic says how many of its events the stream has, with the lowest and the highest of their indices.
///
/// # What arrives late
///
/// An event that the session has dropped does not turn up in the stream later, for its part: nothing is published without
/// a connection, a connection that breaks takes its queue with it, and an attempt that the session abandons (a timeout, a
/// stop) ends its connection. What a network without a route holds back in its buffers can still arrive, for 15 seconds
/// at most, until the connection counts as dead; no transport can call that back.
pub struct JetStream {
    config: Result<Config, SetupError>,
    attempts: Attempts<Sockets>,
}

impl JetStream {
    /// The servers of a cluster: their URLs, separated by commas, such as `nats://host:4222` or
    /// `tls://user:password@host:4222`. [`Servers::stream`] makes a transport of them.
    ///
    /// A URL that is wrong is an error when the session is built.
    #[must_use]
    pub fn connect(servers: &str) -> Servers {
        Servers::new(servers)
    }

    pub(super) fn new(config: Result<Config, SetupError>) -> Self {
        Self {
            config,
            attempts: Attempts::new(Sockets),
        }
    }

    /// For how long the session may retry a batch. Default: a minute, more than the default options make it. If the
    /// stream recognizes duplicates for less, a batch may be stored twice, and a warning says so: when the session
    /// starts, if it is [connected](Self::connected) by then, else to the `log` crate.
    ///
    /// Set it where `http_timeout`, `max_retries` or the delays are longer; with [`GiveUp::WhenFull`](crate::GiveUp) and
    /// behind a spool, to the longest outage that you expect.
    #[must_use]
    pub fn retry_horizon(mut self, horizon: Duration) -> Self {
        if let Ok(config) = &mut self.config {
            config.horizon = horizon;
        }
        self
    }

    /// Connects now, within `patience`, and makes sure of the stream. A session that starts with this transport reports
    /// what is questionable about the stream.
    ///
    /// # Errors
    /// When no server can be reached, or has no such stream: a [`SendError`] like that of an attempt.
    pub async fn connected(mut self, patience: Duration) -> Result<Self, SendError> {
        let config = self.config.as_ref().map_err(SendError::unauthorized)?;
        self.attempts.connect(config, patience).await?;
        Ok(self)
    }

    #[cfg(test)]
    pub(super) const fn is_linked(&self) -> bool {
        self.attempts.link().is_some()
    }

    #[cfg(test)]
    pub(super) const fn config(&self) -> Option<&Config> {
        match &self.config {
            Ok(config) => Some(config),
            Err(_) => None,
        }
    }
}

impl Transport for JetStream {
    async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
        let config = self.config.as_ref().map_err(SendError::retryable)?;
        if Handle::try_current().is_err() {
            return Err(SendError::retryable(
                "JetStream needs a session on the runtime Tokio",
            ));
        }
        let outcome = self.attempts.send(&batch, config).await;
        outcome.map(|()| Receipt::handed_over())
    }

    fn check(&self) -> Result<(), SetupError> {
        self.config.as_ref().map(drop).map_err(Clone::clone)
    }

    fn destination(&self) -> Option<&str> {
        let config = self.config.as_ref().ok()?;
        Some(&config.destination)
    }

    fn warning(&self) -> Option<SetupError> {
        self.attempts.too_short(self.config.as_ref().ok()?)
    }
}

impl fmt::Debug for JetStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JetStream")
            .field("config", &self.config)
            .field("link", &self.attempts.link())
            .finish_non_exhaustive()
    }
}
