//! The backend's other calls: sessions, sampling, training, with answers that can be scripted.

use alloc::{
    borrow::ToOwned,
    collections::{BTreeMap, VecDeque},
    format,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};
use core::{fmt, time::Duration};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use serde_json::{Value, json};

use super::results;
use super::script::Reply;

const PREFIX: &str = "/api/v1/";

/// The calls of the backend besides telemetry: sessions, sampling, training. Clones are the same one.
///
/// It knows what each call needs, takes requests under ids, and answers each poll for a result with something of the
/// right form; [`script`](Self::script) and [`result`](Self::result) say otherwise. A [`Collector`](super::Collector)
/// serves [one](super::Collector::backend); by itself it is a backend without a socket:
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, StatusCode};
/// use tinkex_telemetry::collector::{Answer, Backend};
///
/// let backend = Backend::new();
/// backend.script("get_server_capabilities", [Answer::status(503)]);
/// for expected in [StatusCode::SERVICE_UNAVAILABLE, StatusCode::OK] {
///     let request = Request::get("http://any/api/v1/get_server_capabilities");
///     let answer = backend.answer(&request.body(Bytes::new())?).response();
///     assert_eq!(answer.map(|answer| answer.status()), Some(expected));
/// }
/// # Ok::<_, http::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Backend(Arc<Shared>);

#[derive(Default)]
struct Shared {
    books: Mutex<Books>,
    changed: Condvar,
}

/// A call that has come.
#[derive(Clone, Debug)]
pub struct CallRecord {
    name: String,
    headers: HeaderMap,
    body: Value,
    status: Option<u16>,
}

impl CallRecord {
    /// The last part of its path: `asample`, `retrieve_future`, `finish`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its headers. The API key is marked sensitive.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// A header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Its body; null when it is not JSON.
    pub fn body(&self) -> &Value {
        &self.body
    }

    /// The status that it was answered with, if that was HTTP.
    pub fn status(&self) -> Option<u16> {
        self.status
    }
}

#[derive(Default)]
struct Books {
    /// What tells this backend's sessions from those of others.
    name: String,
    calls: Vec<CallRecord>,
    scripts: BTreeMap<String, VecDeque<Reply>>,
    always: BTreeMap<String, Reply>,
    results: BTreeMap<String, VecDeque<Value>>,
    sessions: u64,
    samplers: u64,
    models: u64,
    /// Requests that were taken: which call, and with what.
    taken: Vec<(String, Value)>,
    /// The number of each model's last training call.
    seq_ids: BTreeMap<String, u64>,
}

impl Backend {
    /// A backend that knows nobody yet. Its sessions are `session-1` and so on.
    pub fn new() -> Self {
        Self::default()
    }

    /// A backend whose sessions can be told from those of others: they may have a bus in common.
    pub(super) fn named(name: &str) -> Self {
        let backend = Self::default();
        backend.books().name = format!("{name}-");
        backend
    }

    /// Appends to the script of a call, by the last part of its path (`asample`, `retrieve_future`, `finish`): each takes
    /// one answer from its front. What is scripted does not change what the backend knows: a request that it answers
    /// with an error was not taken.
    pub fn script(&self, call: &str, answers: impl IntoIterator<Item = Reply>) {
        let mut books = self.books();
        let script = books.scripts.entry(call.to_owned()).or_default();
        script.extend(answers);
    }

    /// Sets the answer that holds whenever the script of a call is empty; `None` is the backend's own again.
    pub fn always(&self, call: &str, answer: impl Into<Option<Reply>>) {
        let mut books = self.books();
        match answer.into() {
            Some(answer) => books.always.insert(call.to_owned(), answer),
            None => books.always.remove(call),
        };
    }

    /// Appends to the results of a kind of request, by its `X-Tinker-Request-Type` (`Sample`, `OptimStep`): each request
    /// of the kind takes one when it is done.
    pub fn result(&self, kind: &str, result: Value) {
        let mut books = self.books();
        books
            .results
            .entry(kind.to_owned())
            .or_default()
            .push_back(result);
    }

    /// Every call so far, in the order in which they came.
    pub fn calls(&self) -> Vec<CallRecord> {
        self.books().calls.clone()
    }

    /// The calls of one name.
    pub fn calls_of(&self, name: &str) -> Vec<CallRecord> {
        let books = self.books();
        let calls = books.calls.iter().filter(|call| call.name == name);
        calls.cloned().collect()
    }

    /// Waits until there were `count` calls of this name; `false` when `timeout` comes first. Blocks the thread.
    pub fn wait_for(&self, name: &str, count: usize, timeout: Duration) -> bool {
        let is_open = |books: &mut Books| {
            let calls = books.calls.iter().filter(|call| call.name == name);
            calls.count() < count
        };
        let wait = self
            .0
            .changed
            .wait_timeout_while(self.books(), timeout, is_open);
        let (_books, result) = wait.unwrap_or_else(PoisonError::into_inner);
        !result.timed_out()
    }

    /// Answers a request to a URL whose path begins with `/api/v1/`.
    pub fn answer(&self, request: &Request<Bytes>) -> Reply {
        let path = request.uri().path().strip_prefix(PREFIX);
        let path = path.unwrap_or_default();
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        let body: Value = serde_json::from_slice(request.body()).unwrap_or_default();
        let mut headers = request.headers().clone();
        if let Some(key) = headers.get_mut("x-api-key") {
            key.set_sensitive(true);
        }
        let mut books = self.books();
        let kind = headers.get("x-tinker-request-type").cloned();
        let kind = kind.as_ref().and_then(|kind| kind.to_str().ok());
        let answer = match books.scripted(&name) {
            Some(answer) => answer,
            None => books.own_answer(request.method(), path, &name, kind, &body),
        };
        books.calls.push(CallRecord {
            name,
            headers,
            body,
            status: answer.status_code(),
        });
        drop(books);
        self.0.changed.notify_all();
        answer
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn scripted(&mut self, name: &str) -> Option<Reply> {
        let script = self.scripts.get_mut(name);
        script
            .and_then(VecDeque::pop_front)
            .or_else(|| self.always.get(name).cloned())
    }

    fn own_answer(
        &mut self,
        method: &Method,
        path: &str,
        name: &str,
        kind: Option<&str>,
        body: &Value,
    ) -> Reply {
        let Some(needed) = needed(path, name) else {
            return refusal(404, "no such path");
        };
        let wanted = if name == "get_server_capabilities" {
            Method::GET
        } else {
            Method::POST
        };
        if *method != wanted {
            return refusal(405, &format!("only {wanted} is allowed here"));
        }
        if let Some(key) = needed.iter().find(|key| body.get(*key).is_none()) {
            return refusal(422, &format!("{key} is missing"));
        }
        match name {
            "get_server_capabilities" => Reply::json(&results::capabilities()),
            "create_session" => {
                self.sessions += 1;
                let id = format!("session-{}{}", self.name, self.sessions);
                Reply::json(&json!({ "session_id": id }))
            }
            "create_sampling_session" => {
                self.samplers += 1;
                let id = format!("sampler-{}", self.samplers);
                Reply::json(&json!({ "sampling_session_id": id }))
            }
            "get_info" => Reply::json(&results::info(body)),
            "retrieve_future" => self.retrieve(kind, body),
            "session_heartbeat" | "finish" => Reply::json(&json!({})),
            _ => self.take(name, body),
        }
    }

    /// A request that is answered with a promise.
    fn take(&mut self, name: &str, body: &Value) -> Reply {
        if let (Some(model), Some(seq_id)) = (body["model_id"].as_str(), body["seq_id"].as_u64()) {
            let last = self.seq_ids.get(model).copied().unwrap_or_default();
            if seq_id > last + 1 {
                let problem = format!("seq_id must be {}, not {seq_id}", last + 1);
                return refusal(400, &problem);
            }
            self.seq_ids.insert(model.to_owned(), seq_id.max(last));
        }
        // What comes again is what it was, unless it was lost.
        self.taken.push((name.to_owned(), body.clone()));
        Reply::json(&json!({ "request_id": format!("request-{}", self.taken.len()) }))
    }

    fn retrieve(&mut self, kind: Option<&str>, body: &Value) -> Reply {
        let id = body["request_id"].as_str().unwrap_or_default();
        let number = id.strip_prefix("request-");
        let at = number.and_then(|number| number.parse::<usize>().ok()?.checked_sub(1));
        let Some((name, request)) = at.and_then(|at| self.taken.get(at)) else {
            return refusal(410, "no such request");
        };
        let scripted = kind.and_then(|kind| self.results.get_mut(kind)?.pop_front());
        if let Some(result) = scripted {
            return Reply::json(&result);
        }
        if name == "create_model" {
            self.models += 1;
        }
        let result = results::result(name, request, self.models, &mut self.samplers);
        Reply::json(&result)
    }
}

/// The keys that a call needs; `None` when there is no such call.
fn needed(path: &str, name: &str) -> Option<&'static [&'static str]> {
    if path.starts_with("sessions/") && name == "finish" {
        return Some(&["reason"]);
    }
    if path != name {
        return None;
    }
    Some(match name {
        "get_server_capabilities" => &[],
        "create_session" => &["tags", "user_metadata", "sdk_version", "type"],
        "session_heartbeat" => &["session_id", "type"],
        "create_sampling_session" => &["session_id", "sampling_session_seq_id", "type"],
        "asample" => &[
            "sampling_session_id",
            "seq_id",
            "num_samples",
            "prompt",
            "sampling_params",
            "prompt_logprobs",
            "topk_prompt_logprobs",
            "type",
        ],
        "create_model" => &[
            "session_id",
            "model_seq_id",
            "base_model",
            "lora_config",
            "type",
        ],
        "get_info" => &["model_id", "type"],
        "forward" => &["forward_input", "model_id", "seq_id"],
        "forward_backward" => &["forward_backward_input", "model_id", "seq_id"],
        "optim_step" => &["adam_params", "model_id", "seq_id"],
        "save_weights" => &["model_id", "path", "seq_id"],
        "save_weights_for_sampler" => &["model_id", "seq_id"],
        "load_weights" => &["model_id", "path", "optimizer", "seq_id"],
        "retrieve_future" => &["request_id"],
        _ => return None,
    })
}

fn refusal(status: u16, error: &str) -> Reply {
    Reply::status(status).body(json!({ "error": error }).to_string())
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend")
            .field("calls", &self.books().calls.len())
            .finish_non_exhaustive()
    }
}
