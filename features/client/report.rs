//! Diagnostics that the client reports, in addition to the reporter's.

use crate::diagnostic::{Diagnostic, DiagnosticKind, Observer};
use crate::session::Handle;

impl Handle {
    /// Reports to the session's observer, or to the `log` facade if telemetry is off.
    pub(super) fn report(&self, kind: DiagnosticKind, reason: &str, session_id: &str) {
        self.report_all(kind, 1, reason, session_id);
    }

    /// [`report`](Self::report), for `count` of them at once.
    pub(super) fn report_all(
        &self,
        kind: DiagnosticKind,
        count: u64,
        reason: &str,
        session_id: &str,
    ) {
        let observer = self.session().map(|session| session.shared().observer());
        let _ = observer.unwrap_or(&Observer::Log).notify(&Diagnostic {
            kind,
            count,
            reason,
            session_id,
            limit: None,
            limit_name: None,
        });
    }
}
