//! The heartbeat that keeps a session alive at the backend.

use super::api::{Api, Call};
use super::io::catch_panic;
use crate::diagnostic::DiagnosticKind;
use crate::session::Handle;
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use core::time::Duration;
use serde::Serialize;

/// The time between two heartbeats, and the deadline of one.
const INTERVAL: Duration = Duration::from_secs(10);
/// The time without a successful heartbeat after which a diagnostic is due.
const MAX_SILENCE: Duration = Duration::from_secs(120);

#[derive(Serialize)]
struct Heartbeat<'a> {
    session_id: &'a str,
    r#type: &'static str,
}

/// Sends heartbeats until the session is closed, the backend reports that it is gone, or the HTTP client finds that they
/// must not be repeated.
pub(super) async fn run(api: Arc<Api>, handle: Handle, session_id: Box<str>) {
    let body = Heartbeat {
        session_id: &session_id,
        r#type: "session_heartbeat",
    };
    let name = "session_heartbeat";
    let Ok(mut call) = Call::post(&api, name, name, &body) else {
        return;
    };
    call.timeout = INTERVAL;
    call.key = None;
    call.is_urgent = true;
    let report = |reason: &str| handle.report(DiagnosticKind::HeartbeatLost, reason, &session_id);
    let heartbeats = async {
        let (mut last_success, mut failures, mut is_reported) = (api.now(), 0, false);
        let mut started = last_success;
        loop {
            let next = started.checked_add(INTERVAL).unwrap_or(Instant::END);
            api.sleep_until(next).await;
            started = api.now();
            // A panic of the HTTP client counts as a missing response.
            match catch_panic(api.exchange(&call, failures)).await {
                Ok(Ok(response)) if response.status().is_success() => {
                    (last_success, failures, is_reported) = (started, 0, false);
                    continue;
                }
                Ok(Ok(response)) if response.status().as_u16() == 410 => {
                    report("the backend has ended the session, so heartbeats stop");
                    return Ok(());
                }
                Ok(Err(no_response)) if !no_response.is_retryable() => {
                    let reason = api.reason(&no_response);
                    report(&format!(
                        "heartbeats stop, for they cannot succeed: {reason}"
                    ));
                    return Ok(());
                }
                _ => failures += 1,
            }
            let silence = api.now().saturating_duration_since(last_success);
            if silence >= MAX_SILENCE && !is_reported {
                is_reported = true;
                report(&format!(
                    "the backend has not heard from the session for {} s",
                    silence.as_secs()
                ));
            }
        }
    };
    let _ = api.while_open(heartbeats).await;
}
