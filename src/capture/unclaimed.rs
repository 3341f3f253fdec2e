//! Panics that the hook has logged and no capture has claimed yet. A capture that claims one does not log it again.

use super::frames::Fingerprint;
use crate::sys::fork::PerProcess;
use crate::sys::lock::Lock;
use alloc::collections::VecDeque;

/// The maximum number of panics to remember; the oldest is forgotten first.
const MAX_UNCLAIMED: usize = 64;

static UNCLAIMED: PerProcess<Lock<VecDeque<Fingerprint>>> = PerProcess::new();

fn with<R>(work: impl FnOnce(&mut VecDeque<Fingerprint>) -> R) -> R {
    UNCLAIMED
        .get_or_init(|| Lock::new(VecDeque::new()))
        .with(work)
}

/// Records that the hook has logged a panic with this message to the session.
pub(super) fn add(session: &str, message: &str) {
    let fingerprint = Fingerprint::of_panic(session, message, 0);
    with(|unclaimed| {
        unclaimed.push_back(fingerprint);
        if unclaimed.len() > MAX_UNCLAIMED {
            unclaimed.pop_front();
        }
    });
}

/// Whether the hook has logged a panic with this message to the session; if so, it is claimed.
pub(super) fn claim(session: &str, message: &str) -> bool {
    let fingerprint = Fingerprint::of_panic(session, message, 0);
    with(|unclaimed| {
        let index = unclaimed.iter().rposition(|&other| other == fingerprint);
        index.and_then(|index| unclaimed.remove(index)).is_some()
    })
}

/// Forgets all panics, once no hook is left.
pub(super) fn clear() {
    with(VecDeque::clear);
}
