//! What a spool counts, and what a wait for it leaves.

/// A snapshot of a spool's ledger.
///
/// In every snapshot `stored + recovered = delivered + handed_over + rejected + evicted + discarded + unreadable +
/// pending`, which [`is_balanced`](Self::is_balanced) checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpoolStats {
    /// Events that this process has written to the spool.
    pub stored: u64,
    /// Events that it has found in the folders of processes that had ended.
    pub recovered: u64,
    /// Events that the backend has confirmed.
    pub delivered: u64,
    /// Events that the spool's transport has [handed over](crate::Receipt::handed_over) in turn.
    pub handed_over: u64,
    /// Events that the backend has refused one by one. They are in the folder `rejected`.
    pub rejected: u64,
    /// Events that `max_bytes` or `max_age` has cost.
    pub evicted: u64,
    /// Events that [`discard`](super::Spool::discard) has dropped.
    pub discarded: u64,
    /// Events that cannot be read any more: the disk has failed, or another process has taken or removed them.
    pub unreadable: u64,
    /// Events on disk that are still to be sent.
    pub pending: u64,
    /// Events that were on disk twice, and were sent once. In no other count.
    pub duplicates: u64,
    /// Events that were written although the session had given up waiting for that, and counts them as dropped. They
    /// are in `stored` as well. At the backend there are at most the events that sessions have handed over, and these.
    pub late: u64,
    /// Events in a write for which their session waits no longer, while the disk has not answered: they become `late`, or
    /// are lost. In no other count.
    pub stalled: u64,
    /// Events that were sent without being stored, since the disk failed. In no other count.
    pub straight: u64,
    /// The bytes on disk: of this process, and of those that it has recovered.
    pub bytes: u64,
    /// Segments of recovered processes that go to another destination, and are left alone.
    pub elsewhere: u64,
    /// Folders of other processes, which are alive as far as is known.
    pub others: u64,
    /// Whether the backend does not accept this sender (a wrong key, say): everything is kept, and tried now and then.
    pub is_paused: bool,
}

impl SpoolStats {
    /// Whether every event is accounted for. Always true.
    #[must_use]
    pub const fn is_balanced(&self) -> bool {
        self.stored + self.recovered == self.settled() + self.pending
    }

    /// Events that are no longer to be sent.
    #[must_use]
    pub const fn settled(&self) -> u64 {
        self.delivered
            + self.handed_over
            + self.rejected
            + self.evicted
            + self.discarded
            + self.unreadable
    }
}

/// What remains on disk when a [wait](super::Spool::wait_until_delivered) is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "events may remain on disk"]
#[non_exhaustive]
pub struct Left {
    /// Events that are still to be sent.
    pub pending: u64,
    /// Whether the wait ended early because the backend does not accept this sender.
    pub is_paused: bool,
    /// Segments for another destination, which this spool leaves alone.
    pub elsewhere: u64,
    /// Folders of other processes, which send them themselves.
    pub others: u64,
}

impl Left {
    /// Whether this spool has nothing more to send.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.pending == 0
    }
}
