//! The settings of what a session takes, and the checks of what they promise.

use super::app::{AppSession, indices_taken};
use crate::sometimes;

impl AppSession {
    pub(super) fn set_enabled(&mut self, is_enabled: bool) {
        self.is_enabled = is_enabled;
        self.handle.set_enabled(is_enabled);
        assert_eq!(self.handle.is_enabled(), is_enabled);
    }

    /// Discards what is queued: none of it may begin a request from now on.
    pub(super) fn discard(&self) {
        let before = self.handle.stats();
        let discarded = self.handle.discard();
        let after = self.handle.stats();
        assert_eq!((discarded, after.queued), (before.queued, 0), "{after:?}");
        let counted = after.dropped.discarded - before.dropped.discarded;
        assert_eq!(counted, discarded, "{after:?}");
        let id = self.handle.session_id().unwrap_or_default();
        self.env.withdraw_below(id, indices_taken(&after));
        sometimes!(discarded > 1, "a queue is discarded");
        sometimes!(
            before.session_ended && discarded > 0,
            "an end is discarded, or what follows it"
        );
    }
}
