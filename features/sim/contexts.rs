//! What the application logs in contexts, and the checks of what they promise.

use super::app::AppSession;
use crate::{fields, sometimes};

impl AppSession {
    /// Through a handle with a context, and through one within it: both log to the same session, and its ledger counts
    /// their events like any others.
    pub(super) fn log_in_context(&self, count: u32) {
        let outer = self.handle.with(fields! { request: 42 });
        let inner = outer.with(fields! { part: "the inner one", attempt: count });
        assert_eq!(outer.session_id(), self.handle.session_id());
        for n in 0..count {
            for handle in [&outer, &inner] {
                let before = self.handle.stats();
                let accepted = handle.log("in a context", fields! { n: n });
                let after = self.handle.stats();
                assert_eq!(after.accepted - before.accepted, u64::from(accepted));
                let refused = after.refused.total() - before.refused.total();
                assert_eq!(refused, u64::from(!accepted), "{after:?}");
                assert_eq!(after.refused.unencodable, before.refused.unencodable);
                sometimes!(accepted, "an event with a context is accepted");
            }
        }
    }
}
