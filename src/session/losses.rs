//! Losses that were reported to no one: the line on stderr with which such a session ends.

use super::shared::Shared;
use crate::diagnostic::{Diagnostic, DiagnosticKind};
use crate::sys::console;
use crate::sys::lock::Lock;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

/// What a session has lost while neither a logger nor an observer listened.
pub(crate) struct Losses {
    unheard: Lock<Vec<Loss>>,
    /// The session has been stopped, or its owner dropped.
    is_ending: AtomicBool,
    is_told: AtomicBool,
}

/// The losses of one kind.
struct Loss {
    kind: DiagnosticKind,
    count: u64,
    reason: String,
    limit: Option<usize>,
    limit_name: Option<&'static str>,
}

impl Losses {
    pub(crate) const fn new() -> Self {
        Self {
            unheard: Lock::new(Vec::new()),
            is_ending: AtomicBool::new(false),
            is_told: AtomicBool::new(false),
        }
    }

    fn add(&self, diagnostic: &Diagnostic<'_>) {
        let loss = Loss {
            kind: diagnostic.kind,
            count: diagnostic.count,
            reason: diagnostic.reason.to_string(),
            limit: diagnostic.limit,
            limit_name: diagnostic.limit_name,
        };
        self.unheard.with(
            |all| match all.iter_mut().find(|other| other.kind == loss.kind) {
                Some(same) => {
                    let count = same.count + loss.count;
                    *same = Loss { count, ..loss };
                }
                None => all.push(loss),
            },
        );
    }
}

impl Shared {
    /// Keeps a loss that was reported to no one.
    pub(crate) fn note_unheard(&self, diagnostic: &Diagnostic<'_>) {
        if diagnostic.kind.is_loss() {
            self.host.losses.add(diagnostic);
        }
    }

    /// Notes that the owner is dropped.
    pub(crate) fn disown(&self) {
        self.note_ending();
        self.tell_losses();
    }

    /// Notes that the session is being stopped: what it has lost is told once nothing more can be sent.
    pub(crate) fn note_ending(&self) {
        self.host.losses.is_ending.store(true, Ordering::SeqCst);
    }

    /// Says once what was lost and not yet reported, when the session is ending and nothing more can be sent.
    pub(crate) fn tell_losses(&self) {
        let losses = &self.host.losses;
        if !losses.is_ending.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stats) = self.with(|engine| engine.stats()) else {
            return;
        };
        if stats.queued > 0 && stats.driver_alive {
            return;
        }
        let _own = crate::sys::origin::OwnWork::enter();
        if !self.observer().is_silent() || losses.is_told.swap(true, Ordering::SeqCst) {
            return;
        }
        let mut all = losses.unheard.with(core::mem::take);
        if stats.queued > 0 {
            all.push(Loss {
                kind: DiagnosticKind::NoDriver,
                count: stats.queued,
                reason: String::new(),
                limit: None,
                limit_name: None,
            });
        }
        if !all.is_empty() {
            let id = self.identity.id();
            let list = List { losses: &all, id };
            console::write_line(format_args!("session {id:?} has lost events. {list}"));
        }
    }
}

/// Shows the losses as their diagnostics, in one line.
struct List<'a> {
    losses: &'a [Loss],
    id: &'a str,
}

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, loss) in self.losses.iter().enumerate() {
            let diagnostic = Diagnostic {
                kind: loss.kind,
                count: loss.count,
                reason: &loss.reason,
                session_id: self.id,
                limit: loss.limit,
                limit_name: loss.limit_name,
            };
            let separator = if at == 0 { "" } else { "; " };
            write!(f, "{separator}{diagnostic}")?;
        }
        Ok(())
    }
}
