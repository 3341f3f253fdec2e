//! Which events of a batch that is not settled are in the stream already.

use alloc::borrow::ToOwned as _;
use alloc::string::String;
use std::collections::HashSet;

/// The ids of events that the stream has, from attempts that failed on others. Another attempt leaves them out: with a
/// stream that is full for longer than its duplicate window, each would be stored once more.
#[derive(Debug, Default)]
pub(super) struct Stored {
    ids: HashSet<String>,
    /// The session of the last batch. A spool sends those of several.
    session: String,
    /// The highest index among its batches.
    last: u64,
}

/// The most ids that are kept. What a session gives up is not told, so that theirs stay.
const MAX: usize = 16_384;

impl Stored {
    /// Prepares for a batch with these indices. A session sends its events in order, so that events before a batch that
    /// begins behind all others are settled.
    pub(super) fn begin(&mut self, session: &str, first: u64, last: u64) {
        if self.session != session {
            session.clone_into(&mut self.session);
            self.last = last;
        } else if first > self.last {
            self.ids.clear();
        }
        self.last = self.last.max(last);
        if self.ids.len() > MAX {
            self.ids.clear();
        }
    }

    pub(super) fn has(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    pub(super) fn add(&mut self, id: &str) {
        self.ids.insert(id.to_owned());
    }

    /// A batch was settled: these events do not come again.
    pub(super) fn forget(&mut self, ids: impl Iterator<Item = impl AsRef<str>>) {
        for id in ids {
            self.ids.remove(id.as_ref());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_up_does_not_fill_the_memory() {
        let mut stored = Stored::default();
        for index in 0..100_000 {
            stored.begin(["a", "b"][index % 2], 0, 0);
            stored.add(&alloc::format!("{index}"));
            assert!(stored.ids.len() <= MAX + 1);
        }
    }

    #[test]
    fn events_are_known_until_a_batch_behind_them() {
        let mut stored = Stored::default();
        stored.begin("s", 0, 9);
        stored.add("a");
        stored.add("b");
        stored.begin("s", 0, 4);
        assert!(stored.has("a") && stored.has("b"));
        stored.forget(["a"].into_iter());
        stored.begin("s", 5, 9);
        assert!(!stored.has("a") && stored.has("b"));
        stored.begin("other", 0, 0);
        assert!(stored.has("b"));
        stored.begin("s", 5, 9);
        stored.begin("s", 10, 10);
        assert!(!stored.has("b"));
    }
}
