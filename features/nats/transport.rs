//! The transport: a connection when there is a batch to send, and one message for each event.

use super::ack::StreamInfo;
use super::config::{Config, Servers};
use super::link::{Failure, Link};
use super::message::{Head, event_id};
use super::stored::Stored;
use crate::transport::{Batch, Receipt, SendError, SetupError, Transport};
use ::tokio::runtime::Handle;
use ::tokio::time::{Instant, timeout, timeout_at};
use alloc::format;
use alloc::string::String;
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
    /// Which server is next.
    turn: usize,
    /// Taken during an attempt, so that one that is abandoned ends it.
    link: Option<Link>,
    head: Head,
    stored: Stored,
    /// The stream's, once known.
    window: Option<Duration>,
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
            turn: 0,
            link: None,
            head: Head::default(),
            stored: Stored::default(),
            window: None,
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
        let config = self.config.clone().map_err(SendError::unauthorized)?;
        let opened = timeout(patience, async {
            let mut outcome = Err(SendError::retryable("there is no server"));
            for _ in &config.servers {
                let share = patience / u32::try_from(config.servers.len()).unwrap_or(u32::MAX);
                outcome = self.open(&config, share).await;
                if outcome.is_ok() {
                    break;
                }
            }
            outcome
        });
        let late = |_| SendError::retryable("no server has answered in time");
        self.link = Some(opened.await.map_err(late)??);
        Ok(self)
    }

    /// Connects to the server whose turn it is, and looks at the stream.
    async fn open(&mut self, config: &Config, patience: Duration) -> Result<Link, SendError> {
        let server = &config.servers[self.turn % config.servers.len()];
        self.turn = self.turn.wrapping_add(1);
        let link = Link::open(config, server, patience).await?;
        if self.window.is_none() {
            match link.stream_info(&config.stream, patience / 2).await {
                StreamInfo::Window(window) => {
                    self.window = Some(window);
                    if let Some(warning) = self.too_short() {
                        log::warn!(target: "tinkex_telemetry", "{warning}");
                    }
                }
                StreamInfo::Missing => {
                    let name = &config.stream;
                    return Err(SendError::retryable(format!(
                        "there is no stream {name}: create it, with subjects tinkex.v1.>"
                    )));
                }
                // What matters shows when something is published.
                StreamInfo::Unknown => {}
            }
        }
        // It is this one until it fails.
        self.turn = self.turn.wrapping_sub(1);
        Ok(link)
    }

    fn too_short(&self) -> Option<SetupError> {
        let config = self.config.as_ref().ok()?;
        let window = self.window.filter(|window| *window < config.horizon)?;
        Some(SetupError::new(format_args!(
            "stream {} recognizes duplicates for {} s, and a batch may be retried for {} s: set its duplicate_window",
            config.stream,
            window.as_secs_f64(),
            config.horizon.as_secs_f64(),
        )))
    }

    /// An error that may be the last of its batch also says what of the batch is in the stream: first, because a reason
    /// is cut at its end.
    fn with_stored_part(&self, batch: &Batch<'_>, error: SendError) -> SendError {
        let is_stored = |event: &[u8]| event_id(event).is_some_and(|id| self.stored.has(&id));
        let events = batch.events().zip(batch.indices());
        let mut stored = events.filter(|(event, _)| is_stored(event));
        let first = stored.next().filter(|_| error.is_retryable());
        let Some((_, first)) = first else {
            return error;
        };
        let (more, last) = stored.fold((0, first), |(more, _), (_, index)| (more + 1, index));
        let (stored, all) = (1 + more, batch.event_count());
        SendError::retryable(format!(
            "{stored} of {all} events are stored, of indices {first} to {last}; {error}"
        ))
    }

    async fn attempt(&mut self, batch: &Batch<'_>, config: &Config) -> Result<(), SendError> {
        let left = batch.time_left();
        // A little less than the session waits, to be able to say what was missing.
        let deadline = Instant::now() + left.mul_f64(0.95);
        let mut link = match self.link.take().filter(Link::is_connected) {
            Some(link) => link,
            None => {
                let opened = timeout_at(deadline, self.open(config, left / 2)).await;
                let late = |_| SendError::retryable("the NATS server has not answered in time");
                opened.map_err(late).and_then(|opened| opened)?
            }
        };
        self.head.follow(batch, config);
        let publish = link.publish(batch, config, &self.head, &mut self.stored);
        let Ok(outcome) = timeout_at(deadline, publish).await else {
            let said = link.last_error();
            let said = said.map_or_else(String::new, |said| format!(": {said}"));
            self.turn = self.turn.wrapping_add(1);
            return Err(SendError::retryable(format!(
                "the stream {} has not acknowledged all events in time{said}",
                config.stream
            )));
        };
        match outcome {
            Err(Failure::Broken(reason)) => {
                self.turn = self.turn.wrapping_add(1);
                Err(SendError::retryable(reason))
            }
            Err(Failure::Refused(reason)) => {
                self.link = Some(link);
                Err(SendError::retryable(reason))
            }
            Err(Failure::TooLarge(reason)) => {
                self.link = Some(link);
                Err(SendError::too_large(reason))
            }
            Ok(()) => {
                self.link = Some(link);
                Ok(())
            }
        }
    }

    #[cfg(test)]
    pub(super) const fn is_linked(&self) -> bool {
        self.link.is_some()
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
        let config = self.config.clone().map_err(SendError::retryable)?;
        if Handle::try_current().is_err() {
            return Err(SendError::retryable(
                "JetStream needs a session on the runtime Tokio",
            ));
        }
        let last = batch.indices().last().unwrap_or_default();
        self.stored
            .begin(batch.session_id(), batch.first_index(), last);
        let outcome = self.attempt(&batch, &config).await;
        let outcome = outcome.map_err(|error| self.with_stored_part(&batch, error));
        let is_unstorable = |error: &SendError| !error.is_retryable() && batch.event_count() == 1;
        if outcome.as_ref().err().is_none_or(is_unstorable) {
            let ids = batch.events().filter_map(event_id);
            self.stored.forget(ids);
        }
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
        self.too_short()
    }
}

impl fmt::Debug for JetStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JetStream")
            .field("config", &self.config)
            .field("link", &self.link)
            .finish_non_exhaustive()
    }
}
