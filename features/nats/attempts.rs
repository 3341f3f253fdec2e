//! The attempts of a session at its batches: which server, which connection, and what a failure comes to.

use super::ack::StreamInfo;
use super::config::Config;
use super::message::{Head, event_id};
use super::network::{Connection as _, Network};
use super::publish::{Failure, Publisher};
use super::stored::Stored;
use crate::transport::{Batch, SendError, SetupError};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::time::Duration;

/// What is kept from attempt to attempt.
pub(super) struct Attempts<N: Network> {
    network: Arc<N>,
    /// Which server is next.
    turn: usize,
    /// Taken during an attempt, so that one that is abandoned ends it.
    link: Option<Publisher<N::Connection>>,
    head: Head,
    stored: Stored,
    /// The stream's, once known.
    window: Option<Duration>,
}

impl<N: Network> Attempts<N> {
    pub(super) fn new(network: N) -> Self {
        Self {
            network: Arc::new(network),
            turn: 0,
            link: None,
            head: Head::default(),
            stored: Stored::default(),
            window: None,
        }
    }

    /// Connects now, to the first server that can be reached within `patience`.
    pub(super) async fn connect(
        &mut self,
        config: &Config,
        patience: Duration,
    ) -> Result<(), SendError> {
        let network = Arc::clone(&self.network);
        let share = patience / u32::try_from(config.servers.len()).unwrap_or(u32::MAX);
        let opened = network.until(network.deadline(patience), async {
            let mut outcome = Err(SendError::retryable("there is no server"));
            for _ in &config.servers {
                outcome = self.open(config, share).await;
                if outcome.is_ok() {
                    break;
                }
            }
            outcome
        });
        let late = || SendError::retryable("no server has answered in time");
        let link = opened.await.ok_or_else(late)??;
        self.link = Some(link);
        Ok(())
    }

    /// Sends a batch, in one attempt.
    pub(super) async fn send(
        &mut self,
        batch: &Batch<'_>,
        config: &Config,
    ) -> Result<(), SendError> {
        let last = batch.indices().last().unwrap_or_default();
        self.stored
            .begin(batch.session_id(), batch.first_index(), last);
        let outcome = self.attempt(batch, config).await;
        let outcome = outcome.map_err(|error| self.with_stored_part(batch, error));
        let is_unstorable = |error: &SendError| !error.is_retryable() && batch.event_count() == 1;
        if outcome.as_ref().err().is_none_or(is_unstorable) {
            let ids = batch.events().filter_map(event_id);
            self.stored.forget(ids);
        }
        outcome
    }

    pub(super) const fn link(&self) -> Option<&Publisher<N::Connection>> {
        self.link.as_ref()
    }

    /// Connects to the server whose turn it is, and looks at the stream.
    async fn open(
        &mut self,
        config: &Config,
        patience: Duration,
    ) -> Result<Publisher<N::Connection>, SendError> {
        let server = &config.servers[self.turn % config.servers.len()];
        self.turn = self.turn.wrapping_add(1);
        let connection = self.network.open(config, server, patience).await?;
        if self.window.is_none() {
            match connection.stream_info(&config.stream, patience / 2).await {
                StreamInfo::Window(window) => {
                    self.window = Some(window);
                    if let Some(warning) = self.too_short(config) {
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
        Ok(Publisher::new(connection))
    }

    /// What there is to say of the stream's duplicate window, once that is known.
    pub(super) fn too_short(&self, config: &Config) -> Option<SetupError> {
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
        let deadline = self.network.deadline(left.mul_f64(0.95));
        let network = Arc::clone(&self.network);
        let mut link = match self.link.take().filter(Publisher::is_connected) {
            Some(link) => link,
            None => {
                let opened = network.until(deadline, self.open(config, left / 2)).await;
                let late = || SendError::retryable("the NATS server has not answered in time");
                opened.ok_or_else(late)??
            }
        };
        self.head.follow(batch, config);
        if let Some(excess) = self.head.excess() {
            self.link = Some(link);
            return Err(SendError::rejected(format!(
                "the session id is {excess} bytes too long for a NATS subject, where most characters but letters and digits \
                take three"
            )));
        }
        let publish = link.publish(batch, config, &self.head, &mut self.stored);
        let Some(outcome) = network.until(deadline, publish).await else {
            let said = link.connection.last_error();
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
}
