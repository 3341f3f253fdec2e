//! Tidying: segments of which everything is settled are removed, and folders that are empty.

use super::disk::Disk;
use super::folder::Folder;
use super::format::SegmentId;
use super::segment::done_path;
use super::state::{RunKey, Shared};
use super::stats::SpoolStats;
use super::writer::OwnFolders;
use crate::time::Instant;
use alloc::vec::Vec;
use std::path::PathBuf;
use std::sync::PoisonError;

/// A segment of which everything is settled.
pub(super) struct Settled {
    pub(super) key: RunKey,
    pub(super) id: SegmentId,
    pub(super) path: PathBuf,
    pub(super) len: u64,
    /// A process that seems to have ended might have appended to it.
    pub(super) may_have_grown: bool,
}

/// The segments that may be removed at this time, `None` for those alone that may be at any.
pub(super) fn settled(shared: &Shared, now: Option<Instant>) -> Vec<Settled> {
    let state = shared.lock();
    let is_due = |until: Option<Instant>| match (until, now) {
        (None, _) => true,
        (Some(until), Some(now)) => until <= now,
        (Some(_), None) => false,
    };
    let mut found = Vec::new();
    for (key, run) in &state.runs {
        let mut is_behind = false;
        for it in &run.segments {
            // A copy may be needed as long as what it is a copy of has not been sent.
            let is_needed = it.pending() > 0 || (is_behind && it.next < it.copies);
            is_behind |= it.pending() > 0;
            if it.is_closed && !is_needed && is_due(it.keep_until) {
                found.push(Settled {
                    key: *key,
                    id: it.id,
                    path: it.path.clone(),
                    len: it.len,
                    may_have_grown: it.keep_until.is_some(),
                });
            }
        }
    }
    found
}

/// Removes a segment that is settled, and what says so.
pub(super) fn remove(disk: &dyn Disk, shared: &Shared, settled: &Settled) {
    // In this order: a segment that is left without its note would be sent again.
    let _ = disk.remove_file(&settled.path);
    let _ = disk.remove_file(&done_path(&settled.path));
    shared.update(|state| {
        state.forget(settled.key, settled.id, |counts: &mut SpoolStats| {
            &mut counts.unreadable
        });
    });
}

/// Leaves nothing behind if there is nothing to send. Both the writer and the keeper do so when they end: the last of them
/// finds what the other has settled or closed.
pub(super) fn finish(disk: &dyn Disk, shared: &Shared, folders: &OwnFolders) {
    for settled in settled(shared, None) {
        remove(disk, shared, &settled);
    }
    let folders = folders
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    for folder in folders {
        Folder::remove_if_empty(&folder, disk);
    }
    shared.lock().ended += 1;
}
