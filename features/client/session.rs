//! A session at the backend, shared by its clients: calls, reports, end.

use super::api::{Api, Call};
use super::block_on::block_on;
use super::error::{ClientError, Result};
use super::heartbeat;
use super::io::{Boxed, catch_panic, with_deadline};
use super::open_calls::{CallEnd, OpenCalls, OpenRequest, StallObserver};
use super::pending::Pending;
use super::progress::Progress;
use super::queue_watch::QueueWatch;
use super::usage::{Prices, UsageMeter};
use crate::bus::QueueStateTracker;
use crate::diagnostic::DiagnosticKind;
use crate::session::Handle;
use crate::stats::Drain;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::sync::atomic::{AtomicU64, Ordering};
use core::task::{Context, Poll};
use core::time::Duration;
use serde::{Deserialize, Serialize};

/// The deadline of the call that finishes a session.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);
/// The same when a drop waits for it.
const DROP_TIMEOUT: Duration = Duration::from_secs(2);

/// A session at the backend.
pub(super) struct ClientSession {
    pub(super) id: Box<str>,
    pub(super) api: Arc<Api>,
    pub(super) queue_watch: QueueWatch,
    pub(super) usage: Arc<UsageMeter>,
    open: Arc<OpenCalls>,
    handle: Handle,
    /// Held for its drop, which stops the session's telemetry after the last client is gone.
    _reporter: Box<dyn Any + Send + Sync>,
    next_model: AtomicU64,
    next_sampler: AtomicU64,
}

/// The request that creates a session.
#[derive(Serialize)]
pub(super) struct NewSession<'a> {
    pub(super) tags: &'a [String],
    pub(super) user_metadata: &'a BTreeMap<String, String>,
    pub(super) sdk_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) project_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) display_name: Option<&'a str>,
    pub(super) r#type: &'static str,
}

/// The response to it.
#[derive(Deserialize)]
pub(super) struct CreatedSession {
    pub(super) session_id: Box<str>,
    #[serde(default)]
    info_message: Option<String>,
    #[serde(default)]
    warning_message: Option<String>,
    #[serde(default)]
    error_message: Option<String>,
}

/// How a session ended, as reported to the backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndReason {
    /// The program succeeded.
    #[default]
    Success,
    /// The program failed.
    Errored,
    /// The program was interrupted.
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

impl ClientSession {
    /// Opens a session that the backend has created, and starts its heartbeat.
    pub(super) fn open(
        created: CreatedSession,
        api: Arc<Api>,
        tracker: QueueStateTracker,
        handle: Handle,
        reporter: Box<dyn Any + Send + Sync>,
        watch: WatchOptions,
    ) -> Result<Arc<Self>> {
        let id = created.session_id.clone();
        created.report_messages(&api, &handle);
        let queue_watch = QueueWatch::new(tracker, handle.clone(), &id, Arc::clone(&api));
        let observer = watch.stall_observer;
        let open = OpenCalls::new(Arc::clone(&api), &handle, &id, watch.stall_after, observer);
        let (interval, prices) = (watch.usage_interval, watch.prices);
        let usage = UsageMeter::new(Arc::clone(&api), &handle, &id, interval, prices);
        let usage = Arc::new(usage);
        let heartbeat = heartbeat::run(Arc::clone(&api), handle.clone(), id.clone());
        let task = in_background(
            Arc::clone(&api),
            heartbeat,
            Arc::clone(&open),
            Arc::clone(&usage),
        );
        api.spawn(Box::pin(task))?;
        Ok(Arc::new(Self {
            id,
            api,
            queue_watch,
            usage,
            open,
            handle,
            _reporter: reporter,
            next_model: AtomicU64::new(0),
            next_sampler: AtomicU64::new(0),
        }))
    }

    /// A handle of the session's telemetry; disabled if telemetry is.
    pub(super) const fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(super) fn next_model_seq_id(&self) -> u64 {
        self.next_model.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn next_sampler_seq_id(&self) -> u64 {
        self.next_sampler.fetch_add(1, Ordering::Relaxed)
    }

    /// [`run`](Self::run), as a call that is listed and reported while it is under way: the public calls, except those
    /// that make another one. `progress` shows how far it has come.
    pub(super) fn run_listed<T: Send + 'static>(
        self: &Arc<Self>,
        name: &'static str,
        progress: Arc<Progress>,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Pending<T> {
        let session = Arc::clone(self);
        let call = self.run(work);
        Pending::new(async move {
            if session.api.is_forked() {
                return Err(ClientError::Closed);
            }
            let under_way = session.open.begin(name, &progress);
            let result = call.await;
            under_way.end(match &result {
                Ok(_) => CallEnd::Ok,
                Err(ClientError::Closed) => CallEnd::Closed,
                Err(_) => CallEnd::Error,
            });
            result
        })
    }

    /// The calls that are under way.
    pub(super) fn open_requests(&self) -> Vec<OpenRequest> {
        self.open.list()
    }

    /// Reports what is left to report about the session's calls.
    fn report_end(&self) {
        self.open.end_all();
        self.usage.report();
    }

    /// Runs a public call: reports its error; reports its panic as fatal to the session's telemetry and resumes it;
    /// fails the call when the session is closed.
    pub(super) fn run<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Pending<T> {
        let session = Arc::clone(self);
        // On the heap at once: each of the futures around it would hold it twice, and a call took 80 KiB.
        let work: Boxed<'static, Result<T>> = Box::pin(work);
        Pending::new(async move {
            // The outer capture sees only panics, already logged by the inner one, and makes them fatal.
            let inner = session.handle.capture().future(work);
            let outer = session.handle.capture().fatal(true).future_plain(inner);
            session.api.while_open(outer).await
        })
    }

    /// Reports the end of the session to the backend. The response is ignored: older backends do not know the call.
    fn finish(
        &self,
        reason: EndReason,
        detail: &str,
    ) -> impl Future<Output = ()> + Send + 'static + use<> {
        let api = Arc::clone(&self.api);
        let finish = Finish {
            reason: FinishReason {
                r#type: reason.as_str(),
            },
            detail,
        };
        let path = format!("sessions/{}/finish", path_segment(&self.id));
        let call = Call::post(&api, "finish", path, &finish);
        async move {
            if let Ok(mut call) = call {
                call.timeout = FINISH_TIMEOUT;
                call.is_urgent = true;
                // A panic of the HTTP client is ignored, too: a drop during another panic would abort the process.
                let _ = catch_panic(api.exchange(&call, 0)).await;
            }
        }
    }

    /// Ends the session: fails its open calls, notifies the backend, sends the remaining telemetry.
    pub(super) async fn close(
        self: Arc<Self>,
        reason: EndReason,
        detail: String,
        timeout: Duration,
    ) -> Drain {
        let started = self.api.now();
        // In the child of a fork the session still belongs to the parent.
        if !self.api.is_forked() && self.api.close() {
            self.report_end();
            let finish = self.finish(reason, &detail);
            // The other half is for the telemetry.
            let _ = with_deadline(self.api.sleep(timeout / 2), finish).await;
        }
        let elapsed = self.api.now().saturating_duration_since(started);
        self.handle.stop(timeout.saturating_sub(elapsed)).await
    }
}

impl Drop for ClientSession {
    fn drop(&mut self) {
        if self.api.is_forked() || !self.api.close() {
            return;
        }
        self.report_end();
        let (reason, detail) = if std::thread::panicking() {
            (EndReason::Errored, "a panic")
        } else {
            (EndReason::Success, "")
        };
        let finish = self.finish(reason, detail);
        let (is_running, finished) = async_channel::bounded::<()>(1);
        // As a task, since the HTTP client may need the executor's context. Without an executor, the backend cannot be
        // notified.
        let task = async move {
            finish.await;
            drop(is_running);
        };
        if self.api.spawn(Box::pin(task)).is_ok() {
            let wait = || with_deadline(self.api.sleep(DROP_TIMEOUT), finished.recv());
            self.api.block_in_place(&mut || {
                let _ = block_on(wait());
            });
        }
    }
}

/// How a session's calls are watched.
pub(super) struct WatchOptions {
    pub(super) stall_after: Duration,
    pub(super) stall_observer: Option<StallObserver>,
    pub(super) usage_interval: Duration,
    pub(super) prices: BTreeMap<String, Prices>,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self {
            stall_after: Duration::from_secs(60),
            stall_observer: None,
            usage_interval: Duration::from_secs(600),
            prices: BTreeMap::new(),
        }
    }
}

/// What a session does by itself while it is open, in one task.
async fn in_background(
    api: Arc<Api>,
    heartbeat: impl Future<Output = ()>,
    open: Arc<OpenCalls>,
    usage: Arc<UsageMeter>,
) {
    let watch = async {
        open.watch().await;
        Ok(())
    };
    let report = async {
        usage.report_regularly().await;
        Ok(())
    };
    // Each is polled only while it has not ended.
    let (mut heartbeat, mut watch, mut report) = (
        Some(Box::pin(heartbeat)),
        Some(Box::pin(api.while_open(watch))),
        Some(Box::pin(api.while_open(report))),
    );
    poll_fn(|context| {
        end_if_ready(&mut heartbeat, context);
        end_if_ready(&mut watch, context);
        end_if_ready(&mut report, context);
        match (&heartbeat, &watch, &report) {
            (None, None, None) => Poll::Ready(()),
            _ => Poll::Pending,
        }
    })
    .await;
}

/// Polls a future, and drops it when it has ended.
fn end_if_ready<F: Future>(slot: &mut Option<Pin<Box<F>>>, context: &mut Context<'_>) {
    if let Some(future) = slot
        && future.as_mut().poll(context).is_ready()
    {
        *slot = None;
    }
}

impl CreatedSession {
    /// Refuses an id that no URL can name: clients resolve `.` and `..`, percent-encoded or not, and the call that
    /// finishes the session would go elsewhere.
    pub(super) fn check(&self) -> Result<()> {
        match &*self.session_id {
            id @ ("" | "." | "..") => {
                let reason = format!("the session id {id:?} cannot be part of a URL");
                Err(ClientError::invalid_response("create_session", reason))
            }
            _ => Ok(()),
        }
    }

    /// Reports the backend's messages as diagnostics.
    fn report_messages(&self, api: &Api, handle: &Handle) {
        let messages = [
            (DiagnosticKind::BackendInfo, &self.info_message),
            (DiagnosticKind::BackendWarning, &self.warning_message),
            (DiagnosticKind::BackendError, &self.error_message),
        ];
        for (kind, message) in messages {
            if let Some(message) = message.as_deref().filter(|message| !message.is_empty()) {
                handle.report(kind, &api.excerpt(message.as_bytes()), &self.session_id);
            }
        }
    }
}

/// Percent-encodes an id as a path segment. It is not `.` or `..`, which has no encoding.
fn path_segment(id: &str) -> String {
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
