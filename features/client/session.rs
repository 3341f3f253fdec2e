//! A session at the backend, which all its clients share: calls, reports, its end.

use super::error::Result;
use super::heartbeat;
use super::link::{Call, Link};
use super::pending::Pending;
use super::port::{caught, until};
use super::queue::Queue;
use crate::sys::park::block_on;
use crate::{DiagnosticKind, Drain, Handle, QueueStateTracker};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::any::Any;
use core::future::Future;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use serde::{Deserialize, Serialize};

/// How long the backend may take to hear that a session is over.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);
/// The same where a drop waits for it.
const DROP_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) struct Session {
    pub(super) id: Box<str>,
    pub(super) link: Arc<Link>,
    pub(super) queue: Queue,
    handle: Handle,
    /// Owned until the last client is gone: its drop stops the session's telemetry.
    _reporter: Box<dyn Any + Send + Sync>,
    models: AtomicU64,
    samplers: AtomicU64,
}

/// What a session is created with.
#[derive(Serialize)]
pub(super) struct NewSession<'a> {
    pub(super) tags: &'a [String],
    pub(super) user_metadata: &'a BTreeMap<String, String>,
    pub(super) sdk_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) project_id: Option<&'a str>,
    pub(super) r#type: &'static str,
}

/// What that is answered.
#[derive(Deserialize)]
pub(super) struct Created {
    pub(super) session_id: Box<str>,
    #[serde(default)]
    info_message: Option<String>,
    #[serde(default)]
    warning_message: Option<String>,
    #[serde(default)]
    error_message: Option<String>,
}

/// How a session ends, for the backend's books.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndReason {
    /// The program has done what it wanted.
    #[default]
    Success,
    /// It has failed.
    Errored,
    /// Somebody has stopped it.
    Interrupted,
}

impl EndReason {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Errored => "errored",
            Self::Interrupted => "interrupted",
        }
    }
}

#[derive(Serialize)]
struct Finish<'a> {
    reason: FinishReason,
    detail: &'a str,
}

#[derive(Serialize)]
struct FinishReason {
    r#type: &'static str,
}

impl Session {
    /// A session that the backend has created. Its heart begins to beat.
    pub(super) fn open(
        created: Created,
        link: Arc<Link>,
        tracker: QueueStateTracker,
        handle: Handle,
        reporter: Box<dyn Any + Send + Sync>,
    ) -> Result<Arc<Self>> {
        let id = created.session_id.clone();
        created.tell(&link, &handle);
        let queue = Queue::new(tracker, handle.clone(), &id, Arc::clone(&link));
        let beats = heartbeat::beat(Arc::clone(&link), handle.clone(), id.clone());
        link.spawn(Box::pin(beats))?;
        Ok(Arc::new(Self {
            id,
            link,
            queue,
            handle,
            _reporter: reporter,
            models: AtomicU64::new(0),
            samplers: AtomicU64::new(0),
        }))
    }

    /// A handle on the session's telemetry; off where that is.
    pub(super) const fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(super) fn next_model(&self) -> u64 {
        self.models.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn next_sampler(&self) -> u64 {
        self.samplers.fetch_add(1, Ordering::Relaxed)
    }

    /// A public call: what it fails with is reported, a panic ends the session's telemetry and goes on, and the
    /// session's end is its end.
    pub(super) fn run<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Pending<T> {
        let session = Arc::clone(self);
        Pending::new(async move {
            // The outer capture sees a panic that the inner one has logged already, and never an error.
            let inner = session.handle.capture().future(work);
            let outer = session.handle.capture().fatal(true).future_plain(inner);
            session.link.while_open(outer).await
        })
    }

    /// Tells the backend that the session is over. What comes of it does not matter: older ones do not know the call.
    fn finish(
        &self,
        reason: EndReason,
        detail: &str,
    ) -> impl Future<Output = ()> + Send + 'static + use<> {
        let link = Arc::clone(&self.link);
        let finish = Finish {
            reason: FinishReason {
                r#type: reason.as_str(),
            },
            detail,
        };
        let path = format!("sessions/{}/finish", segment(&self.id));
        let call = Call::post(&link, "finish", path, &finish);
        async move {
            if let Ok(mut call) = call {
                call.timeout = FINISH_TIMEOUT;
                call.is_urgent = true;
                // Nor does a panic of the HTTP client: a drop may be in one already.
                let _ = caught(link.exchange(&call, 0)).await;
            }
        }
    }

    /// Ends the session: open calls fail, the backend is told, the telemetry is sent.
    pub(super) async fn close(
        self: Arc<Self>,
        reason: EndReason,
        detail: String,
        timeout: Duration,
    ) -> Drain {
        let begun = self.link.now();
        // In the child of a fork the session is the parent's.
        if !self.link.is_forked() && self.link.close() {
            let finish = self.finish(reason, &detail);
            // Half of the time is for what the session has to report.
            let _ = until(self.link.sleep(timeout / 2), finish).await;
        }
        let passed = self.link.now().saturating_duration_since(begun);
        self.handle.stop(timeout.saturating_sub(passed)).await
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.link.is_forked() || !self.link.close() {
            return;
        }
        let (reason, detail) = if std::thread::panicking() {
            (EndReason::Errored, "a panic")
        } else {
            (EndReason::Success, "")
        };
        let finish = self.finish(reason, detail);
        if self.link.may_block() {
            block_on(until(self.link.sleep(DROP_TIMEOUT), finish));
        } else {
            // Where there is no executor any more nobody can be told.
            let _ = self.link.spawn(Box::pin(finish));
        }
    }
}

impl Created {
    /// What the backend has to say goes where the reporter's own messages go.
    fn tell(&self, link: &Link, handle: &Handle) {
        let messages = [
            (DiagnosticKind::BackendInfo, &self.info_message),
            (DiagnosticKind::BackendWarning, &self.warning_message),
            (DiagnosticKind::BackendError, &self.error_message),
        ];
        for (kind, message) in messages {
            if let Some(message) = message.as_deref().filter(|message| !message.is_empty()) {
                handle.tell(kind, &link.excerpt(message.as_bytes()), &self.session_id);
            }
        }
    }
}

/// An id as a part of a path.
fn segment(id: &str) -> String {
    let mut path = String::with_capacity(id.len());
    for byte in id.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                path.push(char::from(byte));
            }
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
    path
}
