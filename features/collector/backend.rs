//! The backend's calls besides telemetry: sessions, sampling, training, with scriptable replies.

use alloc::{
    borrow::ToOwned,
    collections::{BTreeMap, VecDeque},
    format,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};
use core::{fmt, time::Duration};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use serde_json::{Value, json};

use super::protobuf;
use super::results::{self, Input};
use super::script::Reply;

const PREFIX: &str = "/api/v1/";
/// Bytes of a model's id, which is kept.
const MAX_MODEL: usize = 1_024;
/// Of a result that is made up: a small request may ask for a very large one.
const MAX_ENTRIES: u64 = 1 << 20;

/// The backend's calls besides telemetry: sessions, sampling, training. Clones share one backend.
///
/// It checks the keys that each call needs (unless its collector is lenient), accepts requests under ids, and returns a valid result to each poll, unless
/// [`script`](Self::script) or [`result`](Self::result) overrides it. A [`Collector`](super::Collector) serves
/// [one](super::Collector::backend); alone it is a backend without a socket:
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, StatusCode};
/// use tinkex_telemetry::collector::{Backend, Reply};
///
/// let backend = Backend::new();
/// backend.script("get_server_capabilities", [Reply::status(503)]);
/// for expected in [StatusCode::SERVICE_UNAVAILABLE, StatusCode::OK] {
///     let request = Request::get("http://any/api/v1/get_server_capabilities");
///     let response = backend.reply(&request.body(Bytes::new())?).response();
///     assert_eq!(response.map(|response| response.status()), Some(expected));
/// }
/// # Ok::<_, http::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Backend(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// A received call.
#[derive(Clone, Debug)]
pub struct CallRecord {
    name: String,
    headers: HeaderMap,
    body: Arc<CallBody>,
    status: Option<u16>,
}

/// The body of a call, decoded when it is looked at: that may take thirty times the memory.
#[derive(Debug)]
struct CallBody {
    bytes: Bytes,
    value: OnceLock<Value>,
}

impl CallRecord {
    /// The last segment of its path: `asample`, `retrieve_future`, `finish`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its headers. The API key is marked sensitive.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The value of a header, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Its body; null if that is not JSON. The pass of a model that was sent in protobuf has the same keys as in JSON, and
    /// `forward_only` where it is set; of chunks that are no text only the type is left, and of images the format.
    pub fn body(&self) -> &Value {
        let decode = || serde_json::from_slice(&self.body.bytes).unwrap_or_default();
        self.body.value.get_or_init(decode)
    }

    /// Its estimated memory, in bytes.
    fn cost(&self) -> usize {
        let headers = self.headers.iter();
        let headers: usize = headers
            .map(|(name, value)| 128 + name.as_str().len() + value.len())
            .sum();
        1_024 + self.name.len() + headers + self.body.bytes.len()
    }

    /// The status of the response, if it was HTTP.
    pub fn status(&self) -> Option<u16> {
        self.status
    }
}

#[derive(Default)]
struct State {
    /// Distinguishes this backend's session ids from those of others.
    prefix: String,
    calls: VecDeque<CallRecord>,
    /// The bytes of all calls, estimated, and their bound.
    bytes: usize,
    max_bytes: Option<usize>,
    /// Accepts what other clients send.
    is_lenient: bool,
    scripts: BTreeMap<String, VecDeque<Reply>>,
    always: BTreeMap<String, Reply>,
    results: BTreeMap<String, VecDeque<Value>>,
    sessions: u64,
    samplers: u64,
    models: u64,
    /// The clients that have joined a sampling session.
    joined: u64,
    /// The accepted requests: call and body. With a bound, only the newest.
    requests: VecDeque<(String, Arc<CallBody>)>,
    /// The number of requests that were forgotten.
    forgotten: usize,
    /// The `seq_id` of each model's last training call.
    seq_ids: BTreeMap<String, u64>,
}

impl Backend {
    /// A backend without sessions. The ids that it assigns are `session-1` and so on.
    pub fn new() -> Self {
        Self::default()
    }

    /// A backend whose session ids are unique in the process: sessions may share a bus.
    pub(super) fn named(name: &str) -> Self {
        let backend = Self::default();
        backend.state().prefix = format!("{name}-");
        backend
    }

    /// Requires no keys, and no order of training calls.
    pub(super) fn be_lenient(&self) {
        self.state().is_lenient = true;
    }

    /// Bounds the memory of the calls, and with them the accepted requests: the oldest are forgotten.
    pub(super) fn bound(&self, max_bytes: usize) {
        self.state().max_bytes = Some(max_bytes);
    }

    /// Appends to the script of a call, named by the last segment of its path (`asample`, `retrieve_future`, `finish`):
    /// each call takes one reply from the front. A scripted reply does not change the backend's state: a request that
    /// gets an error was not accepted.
    pub fn script(&self, call: &str, replies: impl IntoIterator<Item = Reply>) {
        let mut state = self.state();
        let script = state.scripts.entry(call.to_owned()).or_default();
        script.extend(replies);
    }

    /// Sets the reply to a call whose script is empty; `None` restores the backend's own.
    pub fn always(&self, call: &str, reply: impl Into<Option<Reply>>) {
        let mut state = self.state();
        match reply.into() {
            Some(reply) => state.always.insert(call.to_owned(), reply),
            None => state.always.remove(call),
        };
    }

    /// Appends to the results of a kind of request, named by its `X-Tinker-Request-Type` (`Sample`, `OptimStep`): each
    /// request of the kind takes one when it completes. Where the client asks for protobuf, a result that it has a form for
    /// is sent in it.
    pub fn result(&self, kind: &str, result: Value) {
        let mut state = self.state();
        state
            .results
            .entry(kind.to_owned())
            .or_default()
            .push_back(result);
    }

    /// All calls so far, in order of arrival.
    pub fn calls(&self) -> Vec<CallRecord> {
        self.state().calls.iter().cloned().collect()
    }

    /// The calls with this name.
    pub fn calls_of(&self, name: &str) -> Vec<CallRecord> {
        let state = self.state();
        let calls = state.calls.iter().filter(|call| call.name == name);
        calls.cloned().collect()
    }

    /// Forgets the calls, and with them the requests that were accepted. Scripts stay.
    pub(super) fn clear(&self) {
        let mut state = self.state();
        (state.bytes, state.forgotten) = (0, state.forgotten + state.requests.len());
        state.calls.clear();
        state.requests.clear();
    }

    /// Blocks the thread until there have been `count` calls with this name; `false` if `timeout` passes first.
    pub fn wait_for(&self, name: &str, count: usize, timeout: Duration) -> bool {
        let is_missing = |state: &mut State| {
            let calls = state.calls.iter().filter(|call| call.name == name);
            calls.count() < count
        };
        let wait = self
            .0
            .changed
            .wait_timeout_while(self.state(), timeout, is_missing);
        let (_state, result) = wait.unwrap_or_else(PoisonError::into_inner);
        !result.timed_out()
    }

    /// Replies to a request for a path that begins with `/api/v1/`.
    pub fn reply(&self, request: &Request<Bytes>) -> Reply {
        self.reply_with(request, None)
    }

    /// Replies with `answer`, unless there is a script.
    pub(super) fn reply_with(&self, request: &Request<Bytes>, answer: Option<Reply>) -> Reply {
        let path = request.uri().path().strip_prefix(PREFIX);
        let path = path.unwrap_or_default();
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        let (bytes, problem) = match read_body(request, &name) {
            Ok(bytes) => (bytes, None),
            Err(refused) => (request.body().clone(), Some(refused)),
        };
        let body = Arc::new(CallBody {
            bytes,
            value: OnceLock::new(),
        });
        // Read outside the lock.
        let input = Input::read(&body.bytes);
        let mut headers = request.headers().clone();
        if let Some(key) = headers.get_mut("x-api-key") {
            key.set_sensitive(true);
        }
        let mut state = self.state();
        let asked = Asked {
            method: request.method(),
            path,
            name: &name,
            kind: text_of(request, "x-tinker-request-type"),
            wants_protobuf: protobuf::is_accepted(request.headers()),
        };
        let reply = match state.scripted(&name).or(answer).or(problem) {
            Some(reply) => reply,
            None => state.default_reply(&asked, (&input, &body)),
        };
        drop(input);
        state.add_call(CallRecord {
            name,
            headers,
            body,
            status: reply.status_code(),
        });
        drop(state);
        self.0.changed.notify_all();
        reply
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add_call(&mut self, call: CallRecord) {
        self.bytes += call.cost();
        self.calls.push_back(call);
        let Some(max) = self.max_bytes else {
            return;
        };
        /// More models' sequences are not kept: a stranger decides how many there are.
        const MAX_MODELS: usize = 10_000;
        while self.bytes > max
            && let Some(oldest) = self.calls.pop_front()
        {
            self.bytes -= oldest.cost();
            // Its request, if it was one, is at most as old.
            if self
                .requests
                .front()
                .is_some_and(|(_, body)| Arc::ptr_eq(body, &oldest.body))
            {
                self.requests.pop_front();
                self.forgotten += 1;
            }
        }
        if self.seq_ids.len() > MAX_MODELS {
            self.seq_ids.clear();
        }
    }

    fn scripted(&mut self, name: &str) -> Option<Reply> {
        let script = self.scripts.get_mut(name);
        script
            .and_then(VecDeque::pop_front)
            .or_else(|| self.always.get(name).cloned())
    }

    fn default_reply(
        &mut self,
        asked: &Asked<'_>,
        (input, body): (&Input<'_>, &Arc<CallBody>),
    ) -> Reply {
        let (method, name) = (asked.method, asked.name);
        let Some(required) = required_keys(asked.path, name, input) else {
            return refusal(404, "no such path");
        };
        let sampler = sampler_of(asked.path);
        let allowed = match name {
            "get_server_capabilities" | "healthz" => Method::GET,
            _ if sampler.is_some() => Method::GET,
            _ => Method::POST,
        };
        if *method != allowed {
            return refusal(405, &format!("only {allowed} is allowed here"));
        }
        let missing = |key: &&&str| input.get(key).is_none();
        match required.iter().find(missing) {
            Some(key) if !self.is_lenient => return refusal(422, &format!("{key} is missing")),
            _ => {}
        }
        if let Some(id) = sampler {
            return Reply::json(&json!({ "sampler_id": id, "base_model": "small" }));
        }
        match name {
            "get_server_capabilities" => Reply::json(&results::capabilities()),
            "create_session" => {
                self.sessions += 1;
                let id = format!("session-{}{}", self.prefix, self.sessions);
                Reply::json(&json!({ "session_id": id }))
            }
            "create_sampling_session" => {
                self.samplers += 1;
                let id = format!("sampler-{}", self.samplers);
                Reply::json(&json!({ "sampling_session_id": id }))
            }
            "get_info" => Reply::json(&results::info(input)),
            "weights_info" => Reply::json(&results::weights_info()),
            "retrieve_future" => self.retrieve(asked, input),
            "retrieve_futures" => self.retrieve_many(input),
            "join_sampling_session" => {
                self.joined += 1;
                Reply::json(&json!({ "client_counter": self.joined }))
            }
            "session_heartbeat" | "finish" | "cancel_future" => Reply::json(&json!({})),
            // Without keys: the client's own defaults.
            "config" | "dynamic_config" => Reply::json(&json!({})),
            "healthz" => Reply::json(&json!({ "status": "ok" })),
            _ if results::entries(name, input) > MAX_ENTRIES => {
                let problem = format!("its result would have more than {MAX_ENTRIES} numbers");
                refusal(422, &problem)
            }
            _ => self.accept(name, input, body),
        }
    }

    /// Accepts a request, whose result is then polled for.
    fn accept(&mut self, name: &str, input: &Input<'_>, body: &Arc<CallBody>) -> Reply {
        if let (Some(model), Some(seq_id)) = (input.text("model_id"), input.number("seq_id")) {
            if model.len() > MAX_MODEL {
                return refusal(422, &format!("model_id must be at most {MAX_MODEL} bytes"));
            }
            let last = self.seq_ids.get(&*model).copied().unwrap_or_default();
            if seq_id > last.saturating_add(1) && !self.is_lenient {
                let problem = format!("seq_id must be {}, not {seq_id}", last + 1);
                return refusal(400, &problem);
            }
            self.seq_ids.insert(model.into_owned(), seq_id.max(last));
        }
        // A repeated request, whose first response may have been lost, gets a new id.
        self.requests.push_back((name.to_owned(), Arc::clone(body)));
        let id = format!("request-{}", self.forgotten + self.requests.len());
        Reply::json(&results::accepted(name, input, &id))
    }

    fn retrieve(&mut self, asked: &Asked<'_>, input: &Input<'_>) -> Reply {
        let id = input.text("request_id").unwrap_or_default();
        let number = id.strip_prefix("request-");
        let at = number.and_then(|number| number.parse::<usize>().ok()?.checked_sub(1));
        let at = at.and_then(|at| at.checked_sub(self.forgotten));
        let Some((name, request)) = at.and_then(|at| self.requests.get(at)) else {
            return refusal(410, "no such request");
        };
        let kind = asked.kind;
        let scripted = kind.and_then(|kind| self.results.get_mut(kind)?.pop_front());
        let result = scripted.unwrap_or_else(|| {
            let request = Input::read(&request.bytes);
            // A load may create its model.
            let is_load = name == "load_weights" && request.get("session_id").is_some();
            self.models += u64::from(name == "create_model" || is_load);
            results::result(name, &request, self.models, &mut self.samplers)
        });
        let encoded = asked
            .wants_protobuf
            .then(|| protobuf::from_json(name, &result));
        match encoded.flatten() {
            Some(bytes) => Reply::status(200)
                .header("content-type", protobuf::CONTENT_TYPE)
                .body(bytes),
            None => Reply::json(&result),
        }
    }

    /// Which requests of a sampling session are done: all, as soon as they are accepted.
    fn retrieve_many(&self, input: &Input<'_>) -> Reply {
        let sampler = input.object("target").text("sampling_session_id");
        let cursor = input.number("prev_cursor").unwrap_or_default();
        let skipped = usize::try_from(cursor).unwrap_or(usize::MAX);
        let skipped = skipped.saturating_sub(self.forgotten);
        let new = self.requests.iter().enumerate().skip(skipped);
        let completions: Vec<_> = new
            .filter(|(_, (name, _))| name == "asample")
            .filter(|(_, (_, body))| {
                Input::read(&body.bytes).text("sampling_session_id") == sampler
            })
            .map(|(at, _)| {
                let id = format!("request-{}", self.forgotten + at + 1);
                json!({ "state": "finished", "request_id": id })
            })
            .collect();
        let cursor = self.forgotten + self.requests.len();
        Reply::json(&json!({ "completions": completions, "cursor": cursor }))
    }
}

/// What a request asks for.
struct Asked<'a> {
    method: &'a Method,
    path: &'a str,
    name: &'a str,
    /// The kind of the request that is polled for.
    kind: Option<&'a str>,
    wants_protobuf: bool,
}

fn text_of<'a>(request: &'a Request<Bytes>, header: &str) -> Option<&'a str> {
    request.headers().get(header)?.to_str().ok()
}

/// The body in JSON, or the refusal of one that cannot be read.
#[expect(clippy::result_large_err, reason = "a reply is what both cases end in")]
fn read_body(request: &Request<Bytes>, name: &str) -> Result<Bytes, Reply> {
    if let Some(encoding) = text_of(request, "content-encoding")
        && !encoding.eq_ignore_ascii_case("identity")
    {
        let problem = format!("content-encoding {encoding} is not spoken here");
        return Err(refusal(415, &problem));
    }
    if !protobuf::is_sent(request.headers()) {
        return Ok(request.body().clone());
    }
    if name != "forward_backward" {
        return Err(refusal(415, &format!("{name} is not spoken in protobuf")));
    }
    let read = protobuf::to_json(request.body());
    read.map(Bytes::from)
        .map_err(|problem: protobuf::Malformed| {
            refusal(400, &format!("the body is not valid: {problem}"))
        })
}

/// The id of the sampler that is asked about.
fn sampler_of(path: &str) -> Option<&str> {
    let id = path.strip_prefix("samplers/")?;
    (!id.is_empty() && !id.contains('/')).then_some(id)
}

/// The keys that every version of a call's clients sends; `None` if there is no such call. Some versions leave out keys
/// that have a default.
fn required_keys(path: &str, name: &str, input: &Input<'_>) -> Option<&'static [&'static str]> {
    if path.starts_with("sessions/") && name == "finish" {
        return Some(&["reason"]);
    }
    if matches!(path, "client/config" | "client/dynamic_config") || sampler_of(path).is_some() {
        return Some(&[]);
    }
    if path != name {
        return None;
    }
    Some(match name {
        "get_server_capabilities" => &[],
        "healthz" => &[],
        "create_session" => &["tags", "user_metadata", "sdk_version"],
        "session_heartbeat" => &["session_id"],
        "create_sampling_session" => &["session_id", "sampling_session_seq_id"],
        "join_sampling_session" => &["sampling_session_id"],
        // Where there is no session, one of these names the model.
        "asample" if input.has_any(["base_model", "model_path"]) => &["prompt", "sampling_params"],
        "asample" => &["sampling_session_id", "seq_id", "prompt", "sampling_params"],
        "create_model" => &["session_id", "model_seq_id", "base_model"],
        "unload_model" => &["model_id"],
        "get_info" => &["model_id"],
        "weights_info" => &["tinker_path"],
        "forward" => &["forward_input", "model_id", "seq_id"],
        "forward_backward" => &["forward_backward_input", "model_id", "seq_id"],
        "optim_step" if input.has_any(["optimizer_params"]) => &["model_id", "seq_id"],
        "optim_step" => &["adam_params", "model_id", "seq_id"],
        "save_weights" | "save_weights_for_sampler" => &["model_id", "seq_id"],
        // A load may create its model.
        "load_weights" if input.has_any(["session_id"]) => &["model_seq_id", "path", "optimizer"],
        "load_weights" => &["model_id", "path", "optimizer", "seq_id"],
        "retrieve_future" | "cancel_future" => &["request_id"],
        "retrieve_futures" => &["target"],
        _ => return None,
    })
}

fn refusal(status: u16, error: &str) -> Reply {
    Reply::refuse(status, error.into()).body(json!({ "error": error }).to_string())
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend")
            .field("calls", &self.state().calls.len())
            .finish_non_exhaustive()
    }
}
