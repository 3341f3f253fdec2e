//! The seam between what is decided about messages and what carries them: connections, and the time that passes.

use super::ack::StreamInfo;
use super::config::Config;
use crate::transport::SendError;
use alloc::string::String;
use async_nats::client::PublishErrorKind;
use async_nats::{HeaderMap, Message, ServerAddr, Subject};
use bytes::Bytes;
use core::future::Future;
use core::time::Duration;

/// Makes connections, and limits how long something may take.
pub(super) trait Network {
    type Connection: Connection;
    /// A point in time.
    type Deadline: Copy;

    /// Connects to a server.
    async fn open(
        &self,
        config: &Config,
        server: &ServerAddr,
        patience: Duration,
    ) -> Result<Self::Connection, SendError>;

    /// The time so long from now.
    fn deadline(&self, patience: Duration) -> Self::Deadline;

    /// What `work` comes to; `None` if that takes longer than until then.
    async fn until<T>(&self, deadline: Self::Deadline, work: impl Future<Output = T>) -> Option<T>;
}

/// A connection to a server. Dropping it ends it.
pub(super) trait Connection {
    /// Whether there still is one. A client may take what is published without one, and deliver it much later.
    fn is_connected(&self) -> bool;

    /// The most bytes of a message, headers included.
    fn max_payload(&self) -> usize;

    /// What the server has complained of without having been asked.
    fn last_error(&self) -> Option<String>;

    /// The beginning of the subjects to acknowledge to.
    fn inbox(&self) -> &str;

    /// Asks for a stream's configuration.
    async fn stream_info(&self, stream: &str, patience: Duration) -> StreamInfo;

    /// Sends a message, to be acknowledged to `reply`.
    async fn publish(
        &mut self,
        subject: Subject,
        reply: String,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<(), PublishErrorKind>;

    /// Waits a little for the next acknowledgement.
    async fn next(&mut self) -> Arrival;
}

/// What a wait for an acknowledgement comes to.
pub(super) enum Arrival {
    Message(Message),
    /// None has arrived yet.
    Nothing,
    /// None will.
    Ended,
}
