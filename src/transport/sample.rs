//! Batches without a session, for unit tests of transports.

use super::{Batch, BatchMeta, Body};
use alloc::string::String;
use core::time::Duration;
use uuid::Uuid;

/// A batch without a session, for unit tests of a [`Transport`](super::Transport).
///
/// ```
/// use core::pin::pin;
/// use core::task::{Context, Poll, Waker};
/// use tinkex_telemetry::transport::SampleBatch;
/// use tinkex_telemetry::{Batch, Receipt, SendError, Transport};
///
/// /// Writes each event on a line of its own.
/// struct Lines(Vec<u8>);
///
/// impl Transport for Lines {
///     async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
///         for event in batch.events() {
///             self.0.extend(event);
///             self.0.push(b'\n');
///         }
///         Ok(Receipt::delivered())
///     }
/// }
///
/// let mut sample = SampleBatch::new("session-123", [r#"{"event":"a"}"#, r#"{"event":"b"}"#]);
/// let mut lines = Lines(Vec::new());
/// let sent = pin!(lines.send(sample.batch())).poll(&mut Context::from_waker(Waker::noop()));
/// assert_eq!(sent, Poll::Ready(Ok(Receipt::delivered())));
/// assert_eq!(lines.0, b"{\"event\":\"a\"}\n{\"event\":\"b\"}\n");
/// ```
pub struct SampleBatch {
    body: Body,
    /// The body, for the next attempt: a transport may take the other.
    text: String,
    head: BatchMeta<'static>,
}

impl SampleBatch {
    /// Creates a batch of these events, each a JSON object, which are not checked. It is the first attempt, with a
    /// minute left, its first event has index 0, and its idempotency key is the same for every batch.
    #[must_use]
    pub fn new(
        session_id: &'static str,
        events: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Self {
        let mut text = String::from(r#"{"session_id":""#);
        for character in session_id.chars() {
            if matches!(character, '"' | '\\') {
                text.push('\\');
            }
            text.push(character);
        }
        text.push_str(r#"","platform":"test/test","sdk_version":"0.0.0","events":["#);
        let start = text.len();
        let mut count = 0;
        for event in events {
            if count > 0 {
                text.push(',');
            }
            text.push_str(event.as_ref());
            count += 1;
        }
        let list = (start, text.len());
        text.push_str("]}");
        let head = BatchMeta {
            session: session_id,
            first_index: 0,
            events: count,
            attempt: 0,
            broke_while_sending: false,
            is_last: false,
            time_left: Duration::from_secs(60),
            key: Uuid::from_u128(0x0197_0000_0000_7000_8000_0000_0000_0001),
            list,
        };
        Self {
            body: Body::owned(),
            text,
            head,
        }
    }

    /// Sets the index of the first event.
    #[must_use]
    pub const fn first_index(mut self, index: u64) -> Self {
        self.head.first_index = index;
        self
    }

    /// Sets the number of the attempt, starting at 0.
    #[must_use]
    pub const fn attempt(mut self, attempt: u32) -> Self {
        self.head.attempt = attempt;
        self
    }

    /// Sets how long the session would wait for this attempt.
    #[must_use]
    pub const fn time_left(mut self, time_left: Duration) -> Self {
        self.head.time_left = time_left;
        self
    }

    /// Sets whether an earlier attempt [broke while it was sent](Batch::broke_while_sending).
    #[must_use]
    pub const fn broke_while_sending(mut self, has_broken: bool) -> Self {
        self.head.broke_while_sending = has_broken;
        self
    }

    /// Sets whether it is a stopped session's [last batch](Batch::is_last).
    #[must_use]
    pub const fn last(mut self, is_last: bool) -> Self {
        self.head.is_last = is_last;
        self
    }

    /// Sets the idempotency key.
    #[must_use]
    pub const fn idempotency_key(mut self, key: Uuid) -> Self {
        self.head.key = key;
        self
    }

    /// The batch, to pass to a transport. Each call begins with the whole body, whatever an earlier send did with it.
    pub fn batch(&mut self) -> Batch<'_> {
        if let Some(space) = self.body.prepare(self.text.len()) {
            space.copy_from_slice(self.text.as_bytes());
        }
        Batch {
            body: &mut self.body,
            head: &self.head,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_batch_has_its_events_and_its_body_again_for_each_attempt() {
        let mut sample = SampleBatch::new("a\"b", [r#"{"n":1}"#, r#"{"n":2}"#]).first_index(7);
        let mut batch = sample.batch();
        assert_eq!((batch.event_count(), batch.first_index()), (2, 7));
        let events: [&[u8]; 2] = [br#"{"n":1}"#, br#"{"n":2}"#];
        assert!(batch.events().eq(events));
        let body = batch.take_body();
        assert!(batch.body().is_empty());
        assert_eq!(sample.batch().body(), body);
        assert!(body.starts_with(br#"{"session_id":"a\"b","#) && body.ends_with(b"]}"));
    }

    #[test]
    fn a_reborrowed_batch_leaves_the_batch_to_the_caller() {
        let mut sample = SampleBatch::new("s", ["{}"]).attempt(3);
        let mut batch = sample.batch();
        {
            let again: Batch<'_> = batch.reborrow();
            assert_eq!((again.attempt(), again.session_id()), (3, "s"));
            assert_eq!(again.body(), sample_body());
        }
        assert_eq!(batch.body(), sample_body());
    }

    fn sample_body() -> &'static [u8] {
        br#"{"session_id":"s","platform":"test/test","sdk_version":"0.0.0","events":[{}]}"#
    }
}
