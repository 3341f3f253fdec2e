//! Batches: what a transport sends, with its metadata, and the buffer that it is in.

use core::fmt;
use core::time::Duration;
use uuid::Uuid;

#[cfg(feature = "alloc")]
use alloc::vec::Vec;

/// One attempt to send one batch, as passed to a [`Transport`](super::Transport).
pub struct Batch<'a> {
    pub(crate) body: &'a mut Body,
    /// Behind a reference: a transport's future often holds its argument twice.
    pub(crate) head: &'a BatchMeta<'a>,
}

/// A batch's metadata.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchMeta<'a> {
    pub(crate) session: &'a str,
    pub(crate) first_index: u64,
    pub(crate) events: usize,
    pub(crate) attempt: u32,
    pub(crate) broke_while_sending: bool,
    pub(crate) is_last: bool,
    /// Until the attempt's deadline.
    pub(crate) time_left: Duration,
    pub(crate) key: Uuid,
    /// The range of the event list in the body, without its brackets.
    pub(crate) list: (usize, usize),
}

impl Batch<'_> {
    /// Lends the batch, for a transport that passes it to more than one other: a tee, or a fallback after an error. A
    /// transport that [takes the body](Self::take_body) leaves the next an empty one; send it from a copy there.
    pub fn reborrow(&mut self) -> Batch<'_> {
        Batch {
            body: self.body,
            head: self.head,
        }
    }

    /// The request body: compact JSON in UTF-8.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.body.bytes()
    }

    /// Iterates over the events in order; each is its JSON, a slice of the body.
    pub fn events(&self) -> impl Iterator<Item = &[u8]> {
        let (start, end) = self.head.list;
        Objects(self.body().get(start..end).unwrap_or_default())
    }

    /// The session's id.
    #[must_use]
    pub fn session_id(&self) -> &str {
        self.head.session
    }

    /// `event_session_index` of the first event; [`indices`](Self::indices) has those of all.
    #[must_use]
    pub fn first_index(&self) -> u64 {
        self.head.first_index
    }

    /// The number of events, at least 1.
    #[must_use]
    pub fn event_count(&self) -> usize {
        self.head.events
    }

    /// The number of this attempt, starting at 0.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.head.attempt
    }

    /// Whether an earlier attempt at this batch broke while it was being sent (see
    /// [`SendError::broke_while_sending`](super::SendError::broke_while_sending)). A transport that can should then ask
    /// before it sends the body; over HTTP, with `Expect: 100-continue`.
    #[must_use]
    pub fn broke_while_sending(&self) -> bool {
        self.head.broke_while_sending
    }

    /// Whether a stop has begun and nothing is queued behind this batch. A transport that buffers should make sure of
    /// what it holds.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.head.is_last
    }

    /// How long the session waits for this attempt before it drops the future: `http_timeout`, or less while it is
    /// being stopped. A stop that begins during the attempt may shorten this further.
    #[must_use]
    pub fn time_left(&self) -> Duration {
        self.head.time_left
    }

    /// The batch's idempotency key: the same for every attempt, and a new one for each half of a split batch.
    #[must_use]
    pub fn idempotency_key(&self) -> Uuid {
        self.head.key
    }

    /// Takes the body, for clients that need to own it. [`body`](Self::body) is empty afterwards.
    #[cfg(feature = "alloc")]
    #[must_use]
    pub fn take_body(&mut self) -> Vec<u8> {
        self.body.take()
    }

    /// Returns a buffer for the next batch to use.
    ///
    /// Its contents do not matter. Not returning one (the future was dropped, the client keeps it) only costs an
    /// allocation.
    #[cfg(feature = "alloc")]
    pub fn return_body(&mut self, buffer: Vec<u8>) {
        self.body.return_body(buffer);
    }
}

impl fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("session_id", &self.head.session)
            .field("first_index", &self.head.first_index)
            .field("event_count", &self.head.events)
            .field("attempt", &self.head.attempt)
            .field("idempotency_key", &self.head.key)
            .finish_non_exhaustive()
    }
}

/// The driver's buffer for request bodies, reused from batch to batch.
pub(crate) struct Body {
    buffer: Buffer,
    len: usize,
}

enum Buffer {
    #[cfg(has_arc)]
    Owned(Vec<u8>),
    Fixed(&'static mut [u8]),
}

impl Body {
    #[cfg(has_arc)]
    pub(crate) const fn owned() -> Self {
        Self {
            buffer: Buffer::Owned(Vec::new()),
            len: 0,
        }
    }

    pub(crate) fn fixed(bytes: &'static mut [u8]) -> Self {
        Self {
            buffer: Buffer::Fixed(bytes),
            len: 0,
        }
    }

    /// Makes room for a body of `len` bytes, with unspecified contents. Returns `None` if there is not enough memory.
    pub(crate) fn prepare(&mut self, len: usize) -> Option<&mut [u8]> {
        self.len = 0;
        let space = match &mut self.buffer {
            #[cfg(has_arc)]
            Buffer::Owned(bytes) => {
                bytes.try_reserve(len.saturating_sub(bytes.len())).ok()?;
                if bytes.len() < len {
                    bytes.resize(len, 0);
                }
                bytes.get_mut(..len)?
            }
            Buffer::Fixed(bytes) => bytes.get_mut(..len)?,
        };
        self.len = len;
        Some(space)
    }

    fn bytes(&self) -> &[u8] {
        let bytes = match &self.buffer {
            #[cfg(has_arc)]
            Buffer::Owned(bytes) => bytes,
            Buffer::Fixed(bytes) => &**bytes,
        };
        bytes.get(..self.len).unwrap_or_default()
    }

    /// Frees a buffer larger than `keep` bytes.
    pub(crate) fn trim(&mut self, keep: usize) {
        let _ = keep;
        #[cfg(has_arc)]
        if let Buffer::Owned(bytes) = &mut self.buffer
            && bytes.capacity() > keep
        {
            *bytes = Vec::new();
            self.len = 0;
        }
    }

    #[cfg(feature = "alloc")]
    fn take(&mut self) -> Vec<u8> {
        let len = core::mem::take(&mut self.len);
        match &mut self.buffer {
            #[cfg(has_arc)]
            Buffer::Owned(bytes) => {
                bytes.truncate(len);
                core::mem::take(bytes)
            }
            Buffer::Fixed(bytes) => bytes[..len].to_vec(),
        }
    }

    #[cfg(feature = "alloc")]
    fn return_body(&mut self, buffer: Vec<u8>) {
        match &mut self.buffer {
            #[cfg(has_arc)]
            Buffer::Owned(bytes) if buffer.capacity() > bytes.capacity() => *bytes = buffer,
            _ => drop(buffer),
        }
    }
}

/// Iterates over the objects of a JSON array, given without its brackets. The array is our own, so tracking nesting and
/// strings is enough.
pub(crate) struct Objects<'a>(pub(crate) &'a [u8]);

impl Objects<'_> {
    /// Where a JSON text goes on behind the string whose opening quote stands before `at`. Looks at eight bytes at a time:
    /// most of an event is in strings.
    pub(crate) fn end_of_string(json: &[u8], mut at: usize) -> Option<usize> {
        const ONES: u64 = u64::from_ne_bytes([1; 8]);
        /// Sets the highest bit of the first byte that is zero, and perhaps of some behind it.
        const fn zeros(word: u64) -> u64 {
            word.wrapping_sub(ONES) & !word & (ONES << 7)
        }
        loop {
            if let Some(word) = json.get(at..)?.first_chunk() {
                let word = u64::from_le_bytes(*word);
                let found = zeros(word ^ (ONES * u64::from(b'"')))
                    | zeros(word ^ (ONES * u64::from(b'\\')));
                if found == 0 {
                    at += 8;
                    continue;
                }
                at += found.trailing_zeros() as usize / 8;
            }
            match json.get(at)? {
                b'"' => return Some(at + 1),
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
    }
}

impl<'a> Iterator for Objects<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let start = self.0.iter().position(|&byte| byte == b'{')?;
        let rest = &self.0[start..];
        let (mut depth, mut at) = (0_usize, 0);
        while let Some(&byte) = rest.get(at) {
            at += 1;
            match byte {
                b'"' => at = Self::end_of_string(rest, at)?,
                b'{' => depth += 1,
                b'}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                let (object, rest) = rest.split_at(at);
                self.0 = rest;
                return Some(object);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_events_of_a_batch_are_found_whatever_they_contain() {
        let events: [&[u8]; 3] = [
            br#"{"a":{}}"#,
            br#"{"b":"},{\"\\"}"#,
            br#"{"c":[{"d":"]"}]}"#,
        ];
        let list = [events[0], b",", events[1], b",", events[2]].concat();
        assert!(Objects(&list).eq(events));
    }

    #[test]
    fn the_events_of_a_batch_are_found_wherever_their_strings_end() {
        let texts = ["", "\\\"", "\\\\", "{", "}", "\u{e9}\u{a2}", "0123456789"];
        arbtest::arbtest(|u| {
            let mut events = alloc::vec::Vec::new();
            for _ in 0..u.int_in_range(1..=5)? {
                let mut event = alloc::string::String::from("{\"");
                for _ in 0..u.int_in_range(0..=9)? {
                    event += u.choose(&texts)?;
                }
                event += if u.arbitrary()? { "\":{}}" } else { "\":[]}" };
                events.push(event.into_bytes());
            }
            let list = events.join(&b","[..]);
            assert!(Objects(&list).eq(events.iter().map(|event| &event[..])));
            // A list that is cut off ends with its last whole event.
            let cut = u.int_in_range(0..=list.len() - 1)?;
            let whole = Objects(&list[..cut]).count();
            assert!(whole < events.len());
            Ok(())
        })
        .budget_ms(500);
    }
}
