//! The writer's part in discarding all that is on disk: it writes to those files, so it lets go of them first.

use super::Writer;
use crate::features::spool::discard::{self, Discard};

impl Writer {
    /// Ends the segments that are open and removes all, then has the keeper look for what ended processes have left.
    pub(super) fn discard(&mut self, discard: &Discard) {
        for stream in self.streams.values_mut() {
            stream.open = None;
            stream.again.clear();
        }
        self.shared.update(|state| {
            let segments = state.runs.values_mut().flat_map(|run| &mut run.segments);
            segments.for_each(|segment| segment.is_closed = true);
        });
        let is_all = discard::remove_all(&*self.disk, &self.shared, |_| true);
        discard.go_on(is_all);
    }
}
