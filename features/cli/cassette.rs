//! Recordings: one request a line, with its response and its time, and without the key.

use alloc::collections::{BTreeMap, VecDeque};
use core::time::Duration;
use std::{
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write},
    path::Path,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use serde_json::{Map, Value};

use crate::features::collector::{Reply, tap::Exchange};

use super::item;
use super::prelude::*;

/// The headers of a request that are recorded. The key, cookies and unknown headers are not.
const REQUEST_HEADERS: [&str; 7] = [
    "accept",
    "content-encoding",
    "content-type",
    "user-agent",
    "x-idempotency-key",
    "x-tinker-request-iteration",
    "x-tinker-request-type",
];
/// Those of a response.
const RESPONSE_HEADERS: [&str; 3] = ["content-encoding", "content-type", "retry-after"];

/// A request that was recorded.
pub(super) struct Recorded {
    /// After the first one.
    pub(super) offset: Duration,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) response: Value,
    response_headers: HeaderMap,
    response_body: Bytes,
    delay: Duration,
}

/// Writes a recording.
pub(super) struct Recorder(Mutex<Tape>);

struct Tape {
    file: BufWriter<File>,
    start: Option<SystemTime>,
    problem: Option<String>,
}

impl Recorder {
    /// A new file, readable by its owner alone: bodies may hold secrets.
    pub(super) fn create(path: &Path) -> Result<Self, String> {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options
            .open(path)
            .map_err(|error| format!("cannot create {}: {error}", path.display()))?;
        Ok(Self(Mutex::new(Tape {
            file: BufWriter::new(file),
            start: None,
            problem: None,
        })))
    }

    /// Appends a request. Returns a problem once.
    pub(super) fn add(&self, exchange: &Exchange) -> Option<String> {
        let mut tape = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tape.problem.is_some() {
            return None;
        }
        let start = *tape.start.get_or_insert(exchange.arrived);
        let offset = exchange.arrived.duration_since(start).unwrap_or_default();
        let mut line = line(exchange, offset).to_string();
        line.push('\n');
        let written = tape.file.write_all(line.as_bytes());
        let error = written.and_then(|()| tape.file.flush()).err()?;
        let problem = format!("the recording ends here: {error}");
        tape.problem = Some(problem.clone());
        Some(problem)
    }

    /// What prevented it from being complete.
    pub(super) fn problem(&self) -> Option<String> {
        let tape = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tape.problem.clone()
    }
}

fn line(exchange: &Exchange, offset: Duration) -> Value {
    let mut response = Map::new();
    response.insert("reply".into(), item::reply(exchange.reply));
    response.insert("ms".into(), millis(exchange.took + exchange.delay).into());
    response.insert(
        "headers".into(),
        headers(&exchange.reply_headers, &RESPONSE_HEADERS),
    );
    put_body(&mut response, &exchange.reply_body);
    let mut line = Map::new();
    line.insert("at".into(), item::rfc3339(exchange.arrived).into());
    line.insert("ms".into(), millis(offset).into());
    line.insert("method".into(), exchange.method.as_str().into());
    line.insert("path".into(), exchange.path.clone().into());
    line.insert(
        "headers".into(),
        headers(&exchange.headers, &REQUEST_HEADERS),
    );
    put_body(&mut line, &exchange.body);
    line.insert("response".into(), response.into());
    line.into()
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn headers(headers: &HeaderMap, allowed: &[&str]) -> Value {
    let allowed = allowed.iter().filter_map(|name| {
        let value = headers.get(*name)?.to_str().ok()?;
        Some(((*name).to_owned(), Value::from(value)))
    });
    Value::Object(allowed.collect())
}

/// As text where it is text, so that a recording can be read and edited.
fn put_body(line: &mut Map<String, Value>, body: &[u8]) {
    match core::str::from_utf8(body) {
        Ok(text) => line.insert("body".into(), text.into()),
        Err(_) => {
            let hex: String = body.iter().map(|byte| format!("{byte:02x}")).collect();
            line.insert("body_hex".into(), hex.into())
        }
    };
}

fn body(line: &Value) -> Option<Bytes> {
    if let Some(text) = line["body"].as_str() {
        return Some(Bytes::from(text.to_owned()));
    }
    let hex = line["body_hex"].as_str()?;
    let digits = hex.as_bytes().chunks(2).map(|pair| {
        let pair = core::str::from_utf8(pair)
            .ok()
            .filter(|pair| pair.len() == 2 && !pair.starts_with('+'))?;
        u8::from_str_radix(pair, 16).ok()
    });
    digits.collect::<Option<Vec<u8>>>().map(Bytes::from)
}

/// Reads a recording line by line.
pub(super) fn read(path: &Path) -> Result<impl Iterator<Item = Result<Recorded, String>>, String> {
    let file =
        File::open(path).map_err(|error| format!("cannot open {}: {error}", path.display()))?;
    let name = path.display().to_string();
    let lines = BufReader::new(file).lines().enumerate();
    Ok(lines.map(move |(at, line)| {
        let wrong = |what: &str| format!("{name}, line {}: {what}", at + 1);
        let line = line.map_err(|error| wrong(&error.to_string()))?;
        let line: Value = serde_json::from_str(&line).map_err(|error| wrong(&error.to_string()))?;
        recorded(&line).ok_or_else(|| wrong("not a recorded request"))
    }))
}

fn recorded(line: &Value) -> Option<Recorded> {
    let response = &line["response"];
    let duration = |value: &Value| Duration::try_from_secs_f64(value.as_f64()? / 1e3).ok();
    let path = line["path"].as_str()?;
    Some(Recorded {
        offset: duration(&line["ms"])?,
        method: line["method"].as_str()?.parse().ok()?,
        path: path.starts_with('/').then(|| path.to_owned())?,
        headers: header_map(&line["headers"])?,
        body: body(line)?,
        response: response["reply"].clone(),
        response_headers: header_map(&response["headers"])?,
        response_body: body(response)?,
        delay: duration(&response["ms"])?,
    })
}

fn header_map(headers: &Value) -> Option<HeaderMap> {
    let headers = headers.as_object()?.iter().map(|(name, value)| {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        Some((name, HeaderValue::from_str(value.as_str()?).ok()?))
    });
    headers.collect()
}

impl Recorded {
    /// The response as the recording has it.
    fn reply(&self) -> Option<Reply> {
        let reply = match (self.response.as_u64(), self.response.as_str()) {
            (Some(status), _) => {
                let status = u16::try_from(status).ok().filter(|status| *status >= 200)?;
                let mut response = Response::new(self.response_body.clone());
                *response.status_mut() = StatusCode::from_u16(status).ok()?;
                response.headers_mut().clone_from(&self.response_headers);
                Reply::foreign(response)
            }
            (None, Some(name)) => super::script::reply(name).ok()?,
            (None, None) => return None,
        };
        Some(reply.delay(self.delay))
    }
}

/// The responses of a recording, each given once: the next one to each method and path.
pub(super) struct Answers(Mutex<BTreeMap<(String, String), VecDeque<Reply>>>);

impl Answers {
    /// Reads the whole recording.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let mut answers: BTreeMap<_, VecDeque<Reply>> = BTreeMap::new();
        for (at, recorded) in read(path)?.enumerate() {
            let recorded = recorded?;
            let reply = recorded
                .reply()
                .ok_or_else(|| format!("{}, line {}: no such response", path.display(), at + 1))?;
            let key = (recorded.method.to_string(), recorded.path);
            answers.entry(key).or_default().push_back(reply);
        }
        Ok(Self(Mutex::new(answers)))
    }

    pub(super) fn next(&self, method: &Method, path: &str) -> Option<Reply> {
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (method.to_string(), path.to_owned());
        answers.get_mut(&key)?.pop_front()
    }

    /// How many responses were not asked for.
    pub(super) fn left(&self) -> usize {
        let answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        answers.values().map(VecDeque::len).sum()
    }
}

/// Whether a request got the recorded response.
pub(super) fn is_same(recorded: &Value, status: Option<u16>) -> bool {
    match (recorded.as_u64(), status) {
        (Some(recorded), Some(status)) => recorded == u64::from(status),
        // Lost, stalled, closed: there was no whole response.
        (None, None) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::collector::ReplyKind;

    fn exchange(body: &'static [u8]) -> Exchange {
        let mut headers = HeaderMap::new();
        headers.insert("x-api-key", HeaderValue::from_static("secret"));
        headers.insert("authorization", HeaderValue::from_static("secret"));
        headers.insert("user-agent", HeaderValue::from_static("a"));
        Exchange {
            arrived: SystemTime::UNIX_EPOCH,
            took: Duration::from_millis(3),
            method: Method::POST,
            path: "/api/v1/telemetry".to_owned(),
            headers,
            body: Bytes::from_static(body),
            reply: ReplyKind::Status(429),
            delay: Duration::ZERO,
            reply_headers: HeaderMap::from_iter([(
                http::header::RETRY_AFTER,
                HeaderValue::from_static("2"),
            )]),
            reply_body: Bytes::from_static(b"{}"),
            telemetry: None,
            reason: None,
        }
    }

    #[test]
    fn a_recording_has_the_bytes_of_bodies_and_no_key() {
        for body in [&b"{\"a\": 1}\n"[..], b"\xff\x00\xfe", b""] {
            let line = line(&exchange(body), Duration::from_millis(7));
            assert!(!line.to_string().contains("secret"));
            let recorded = recorded(&line).unwrap();
            assert_eq!(recorded.body, body);
            assert_eq!(recorded.headers["user-agent"], "a");
            assert_eq!(recorded.offset, Duration::from_millis(7));
            let response = recorded.reply().unwrap().response().unwrap();
            assert_eq!(response.status(), 429);
            assert_eq!(response.headers()["retry-after"], "2");
        }
    }
}
