//! Panics that the hook has logged and that no capture has seen yet: the capture that sees one does not log it again.

use super::frames::Print;
use crate::sys::fork::PerProcess;
use crate::sys::lock::Lock;
use alloc::collections::VecDeque;

/// As many panics are remembered for captures to claim, the latest last.
const MOST_UNCLAIMED: usize = 64;

static UNCLAIMED: PerProcess<Lock<VecDeque<Print>>> = PerProcess::new();

fn with<R>(work: impl FnOnce(&mut VecDeque<Print>) -> R) -> R {
    UNCLAIMED
        .get_or_init(|| Lock::new(VecDeque::new()))
        .with(work)
}

/// The session's panic with this message was logged by the hook.
pub(super) fn add(session: &str, message: &str) {
    let print = Print::of_panic(session, message, 0);
    with(|unclaimed| {
        unclaimed.push_back(print);
        if unclaimed.len() > MOST_UNCLAIMED {
            unclaimed.pop_front();
        }
    });
}

/// Whether the session's panic with this message was logged by the hook; if so, it is known now.
pub(super) fn claim(session: &str, message: &str) -> bool {
    let print = Print::of_panic(session, message, 0);
    with(|unclaimed| {
        let at = unclaimed.iter().rposition(|&one| one == print);
        at.and_then(|at| unclaimed.remove(at)).is_some()
    })
}

/// No hook is left that could add to it.
pub(super) fn clear() {
    with(VecDeque::clear);
}
