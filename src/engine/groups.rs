//! Groups: the records of the queue by the batches that they will be sent in, counted as they come in.
//!
//! To count them when a batch is formed, the driver would have to fetch the header of each record from the cache of the
//! processor that has written it, one after the other, while it holds the session's lock.

use super::ring::HEADER;
use alloc::collections::VecDeque;

/// The most groups that are counted. The records behind them are counted when they are sent.
const MOST: usize = 4_096;

/// Records that follow one another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) records: usize,
    /// With headers.
    pub(crate) ring_bytes: usize,
}

impl Group {
    /// The bytes of their JSON, with commas.
    pub(crate) const fn json_bytes(self) -> usize {
        (self.ring_bytes + self.records).saturating_sub(HEADER * self.records + 1)
    }

    const fn with(self, size: usize) -> Self {
        Self {
            records: self.records + 1,
            ring_bytes: self.ring_bytes + size,
        }
    }
}

/// The groups at the head of the ring.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    list: VecDeque<Group>,
    /// The most records in a group, and bytes of JSON, if it has more than one.
    most_records: usize,
    most_bytes: usize,
    /// Whether the last group may grow.
    is_open: bool,
    /// Whether there are records behind the last group.
    is_behind: bool,
}

impl Groups {
    /// Counts groups of at most so many records, and bytes of JSON, in a queue of this many records.
    pub(crate) fn new(most_records: usize, most_bytes: usize, queue: usize) -> Self {
        let most = queue / most_records.max(1) + 2;
        Self {
            list: VecDeque::with_capacity(most.min(MOST)),
            most_records,
            most_bytes,
            is_open: false,
            is_behind: false,
        }
    }

    /// A record of this size, with its header, is appended.
    #[inline]
    pub(crate) fn add(&mut self, size: usize) {
        if self.is_behind {
            return;
        }
        if let Some(last) = self.list.back_mut().filter(|_| self.is_open) {
            let grown = last.with(size);
            if grown.records <= self.most_records && grown.json_bytes() <= self.most_bytes {
                *last = grown;
                return;
            }
        }
        self.begin(size);
    }

    #[cold]
    fn begin(&mut self, size: usize) {
        self.is_behind = self.list.len() == self.list.capacity();
        self.is_open = !self.is_behind;
        if self.is_open {
            self.list.push_back(Group::default().with(size));
        }
    }

    /// A record is appended whose size is not certain yet.
    pub(crate) fn add_unfinished(&mut self) {
        self.is_behind = true;
    }

    /// The first group.
    pub(crate) fn front(&self) -> Option<Group> {
        self.list.front().copied()
    }

    /// The first group is sent: no other record joins it.
    pub(crate) fn close_front(&mut self) {
        if self.list.len() <= 1 {
            self.is_open = false;
        }
    }

    /// The oldest records are removed.
    pub(crate) fn release(&mut self, mut records: usize, mut bytes: usize) {
        while let Some(first) = self.list.front_mut().filter(|_| records > 0) {
            if first.records > records {
                first.records -= records;
                first.ring_bytes -= bytes.min(first.ring_bytes);
                return;
            }
            records -= first.records;
            bytes -= bytes.min(first.ring_bytes);
            self.list.pop_front();
        }
    }

    /// No records are left.
    pub(crate) fn clear(&mut self) {
        self.list.clear();
        self.is_open = false;
        self.is_behind = false;
    }

    /// Panics if this is not what the ring has at its head.
    pub(crate) fn check(&self, records: usize, bytes: usize) {
        let counted = self.list.iter().fold((0, 0), |(records, bytes), group| {
            (records + group.records, bytes + group.ring_bytes)
        });
        debug_assert!(counted <= (records, bytes));
        debug_assert!(self.most_records == 0 || self.is_behind || counted == (records, bytes));
        debug_assert!(self.list.iter().all(|group| group.records > 0));
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::super::testing::Harness;
    use super::super::{SendOutcome, Step};
    use alloc::vec::Vec;

    #[test]
    fn a_batch_that_was_counted_is_formed_at_once() {
        let mut harness = Harness::new(|_| {});
        // The last one is not full when it is sent, and those behind it begin another.
        harness.log_many(250);
        harness.flush();
        let mut sizes = Vec::new();
        for more in [0, 0, 0, 120, 0, 0] {
            let Step::Send(attempt) = harness.engine.poll(harness.now) else {
                panic!("it takes steps");
            };
            let sent = harness.read(attempt, 256);
            sizes.push(sent.events.len());
            harness.log_many(more);
            harness.settle(&sent, SendOutcome::Delivered);
            harness.flush();
            if harness.engine.stats().queued == 0 {
                harness.log_many(30);
                harness.flush();
            }
        }
        assert_eq!(sizes, [100, 100, 50, 30, 100, 20]);
    }
}
