//! The heartbeat, which tells the backend that a session lives.

use super::link::{Call, Link};
use super::port::caught;
use crate::diagnostic::DiagnosticKind;
use crate::session::Handle;
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use core::time::Duration;
use serde::Serialize;

/// From one beat to the next, and how long one may take.
const INTERVAL: Duration = Duration::from_secs(10);
/// How long without one is worth a warning.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Serialize)]
struct Beat<'a> {
    session_id: &'a str,
    r#type: &'static str,
}

/// Beats until the session is closed or the backend has given it up.
pub(super) async fn beat(link: Arc<Link>, handle: Handle, session_id: Box<str>) {
    let body = Beat {
        session_id: &session_id,
        r#type: "session_heartbeat",
    };
    let name = "session_heartbeat";
    let Ok(mut call) = Call::post(&link, name, name, &body) else {
        return;
    };
    call.timeout = INTERVAL;
    call.key = None;
    call.is_urgent = true;
    let tell = |reason: &str| handle.tell(DiagnosticKind::HeartbeatLost, reason, &session_id);
    let beats = async {
        let (mut heard, mut failures, mut has_warned) = (link.now(), 0, false);
        let mut begun = heard;
        loop {
            let next = begun.checked_add(INTERVAL).unwrap_or(Instant::END);
            link.sleep_until(next).await;
            begun = link.now();
            // A client that panics is as good as one without an answer.
            match caught(link.exchange(&call, failures)).await {
                Ok(Ok(answer)) if answer.status().is_success() => {
                    (heard, failures, has_warned) = (begun, 0, false);
                    continue;
                }
                Ok(Ok(answer)) if answer.status().as_u16() == 410 => {
                    tell("the backend has given the session up, its heartbeat ends");
                    return Ok(());
                }
                _ => failures += 1,
            }
            let silence = link.now().saturating_duration_since(heard);
            if silence >= PATIENCE && !has_warned {
                has_warned = true;
                tell(&format!(
                    "the backend has not heard of the session for {} s",
                    silence.as_secs()
                ));
            }
        }
    };
    let _ = link.while_open(beats).await;
}
