//! What the page, `tail` and tests in other languages ask for and do.

use core::time::Duration;

use axum::{body::Body, response::Response};
use http::{StatusCode, request::Parts};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::features::collector::{EventRecord, SessionRecord};

use super::super::hub::Hub;
use super::super::item::Item;
use super::super::prelude::*;
use super::super::{script, text};
use super::{plain, stream, typed};

/// The longest wait.
const MAX_WAIT: Duration = Duration::from_secs(600);
/// Between two looks at what came.
const REST: Duration = Duration::from_millis(30);

pub(super) fn get(hub: &Arc<Hub>, head: &Parts, call: &str) -> Response {
    let query = Query::of(head);
    match call {
        "stream" => stream::open(hub, head, &query),
        "sessions" => sessions(hub),
        "event" => event(hub, &query),
        _ => plain(StatusCode::NOT_FOUND, "There is no such call."),
    }
}

pub(super) async fn post(hub: &Arc<Hub>, call: &str, body: &[u8]) -> Response {
    let Ok(body) = serde_json::from_slice::<Value>(body) else {
        return plain(StatusCode::BAD_REQUEST, "The body is not JSON.");
    };
    match call {
        "wait" => wait(hub, &body).await,
        "fail" => fail(hub, &body),
        "clear" => clear(hub),
        _ => plain(StatusCode::NOT_FOUND, "There is no such call."),
    }
}

/// The parameters of a request's query.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    fn of(head: &Parts) -> Self {
        let pairs = head.uri.query().unwrap_or_default().split('&');
        let pairs = pairs.filter_map(|pair| pair.split_once('='));
        Self(
            pairs
                .map(|(key, value)| (decoded(key), decoded(value)))
                .collect(),
        )
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        let mut pairs = self.0.iter();
        pairs.find_map(|(found, value)| (found == key).then_some(&**value))
    }
}

/// Percent-decoded.
fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, tail @ ..] = rest {
        rest = tail;
        let byte = match (first, tail) {
            (b'+', _) => b' ',
            (b'%', [high, low, after @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                let digits = [*high, *low];
                let digits = core::str::from_utf8(&digits).ok();
                match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
                    Some(byte) => {
                        rest = after;
                        byte
                    }
                    None => b'%',
                }
            }
            (byte, _) => *byte,
        };
        bytes.push(byte);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn json_response(status: StatusCode, body: String) -> Response {
    typed(status, "application/json", Body::from(body))
}

fn error(problem: &str) -> Response {
    json_response(
        StatusCode::BAD_REQUEST,
        json!({ "error": problem }).to_string(),
    )
}

fn summary(session: &SessionRecord) -> Value {
    let gaps = session.gaps();
    let gaps: Vec<_> = gaps
        .iter()
        .map(|gap| json!([gap.start(), gap.end()]))
        .collect();
    json!({
        "session": session.id(), "run": session.run(), "events": session.len(), "gaps": gaps,
        "duplicates": session.duplicates(), "ended": session.has_ended(), "platform": session.platform(),
        "sdk_version": session.sdk_version(), "process_uuid": session.process_uuid(),
    })
}

fn sessions(hub: &Hub) -> Response {
    let sessions = hub.collector().map(|collector| collector.sessions());
    let sessions = sessions.unwrap_or_default();
    let list: Vec<_> = sessions.iter().map(|session| summary(session)).collect();
    json_response(StatusCode::OK, Value::from(list).to_string())
}

/// One event, as it was received.
fn event(hub: &Hub, query: &Query) -> Response {
    let number = |key| query.get(key).and_then(|number| number.parse::<u64>().ok());
    let (Some(session), Some(index)) = (query.get("session"), number("index")) else {
        return error("session and index must be given");
    };
    let run = number("run").unwrap_or(1);
    let sessions = hub.collector().map(|collector| collector.sessions());
    let sessions = sessions.unwrap_or_default();
    let record = sessions
        .iter()
        .find(|record| record.id() == session && u64::from(record.run()) == run);
    let found = record.and_then(|record| {
        let events = record.events();
        let at = events.binary_search_by_key(&index, |event| event.index());
        at.ok().and_then(|at| events.get(at))
    });
    match found {
        Some(event) => json_response(StatusCode::OK, event.json().to_owned()),
        None => plain(
            StatusCode::NOT_FOUND,
            "There is no such event, or not any more.",
        ),
    }
}

/// Waits until a session has what is asked for: `{"session", "events"?, "name"?, "ended"?, "timeout_ms"?}`.
async fn wait(hub: &Arc<Hub>, body: &Value) -> Response {
    let Some(session) = body["session"].as_str() else {
        return error("session must be a text");
    };
    for (key, is_right) in [
        (
            "events",
            body["events"].is_null() || body["events"].is_u64(),
        ),
        ("name", body["name"].is_null() || body["name"].is_string()),
        (
            "ended",
            body["ended"].is_null() || body["ended"].is_boolean(),
        ),
        (
            "timeout_ms",
            body["timeout_ms"].is_null() || body["timeout_ms"].is_u64(),
        ),
    ] {
        if !is_right {
            return error(&format!("{key} has the wrong type"));
        }
    }
    let timeout = Duration::from_millis(body["timeout_ms"].as_u64().unwrap_or(5_000));
    let deadline = Instant::now() + timeout.min(MAX_WAIT);
    let mut news = hub.feed.next();
    let mut scan = Scan::default();
    loop {
        news.mark_unchanged();
        let record = hub
            .collector()
            .and_then(|collector| collector.session(session));
        let (is_met, event) = match &record {
            Some(record) => condition(record, body, &mut scan),
            None => (false, None),
        };
        let is_late = Instant::now() >= deadline;
        if is_met || is_late {
            let summary = record
                .as_ref()
                .map_or(Value::Null, |record| summary(record));
            let event = event.unwrap_or_else(|| "null".to_owned());
            let body = format!(r#"{{"met":{is_met},"session":{summary},"event":{event}}}"#);
            return json_response(StatusCode::OK, body);
        }
        drop(record);
        match tokio::time::timeout_at(deadline, news.changed()).await {
            Ok(Err(_)) => return error("the collector has ended"),
            // A thousand events a second need not be looked at one by one.
            Ok(Ok(())) => tokio::time::sleep_until(deadline.min(Instant::now() + REST)).await,
            Err(_) => {}
        }
    }
}

/// How far a session was searched: so many events, the last of them with this index.
#[derive(Default)]
struct Scan {
    run: u32,
    events: usize,
    last: u64,
    found: Option<String>,
}

impl Scan {
    /// Looks for an event of this name among those that came since.
    fn event(&mut self, record: &SessionRecord, name: &str) -> Option<String> {
        let events = record.events();
        let before = self.events.checked_sub(1).and_then(|at| events.get(at));
        let is_same = before.is_some_and(|event| event.index() == self.last);
        if self.run != record.run() || !is_same {
            // Another run, or a late event stands before.
            *self = Self::default();
        }
        if self.found.is_none() {
            let mut new = events.iter().skip(self.events);
            let found = new.find(|event| event.name() == name);
            self.found = found.map(|event| event.json().to_owned());
        }
        self.run = record.run();
        self.events = events.len();
        self.last = events.last().map_or(0, EventRecord::index);
        self.found.clone()
    }
}

/// Whether everything that is asked for is there, and the event.
fn condition(record: &SessionRecord, body: &Value, scan: &mut Scan) -> (bool, Option<String>) {
    let has_count = body["events"]
        .as_u64()
        .is_none_or(|count| record.len() as u64 >= count);
    let has_ended = body["ended"]
        .as_bool()
        .is_none_or(|ended| record.has_ended() == ended);
    let Some(name) = body["name"].as_str() else {
        return (has_count && has_ended, None);
    };
    let event = scan.event(record, name);
    (has_count && has_ended && event.is_some(), event)
}

/// The next requests fail as scripted: `{"script": "503x3"}`, `{"always": "503"}` or `{"reset": true}`.
fn fail(hub: &Hub, body: &Value) -> Response {
    let Some(collector) = hub.collector() else {
        return error("the collector has ended");
    };
    let said = match (body["script"].as_str(), body["always"].as_str()) {
        (Some(text), None) => match script::parse(text) {
            Ok(script) => {
                collector.script(script.0);
                format!("the next requests are answered: {text}")
            }
            Err(problem) => return error(&problem),
        },
        (None, Some(text)) => match script::reply(text) {
            Ok(reply) => {
                collector.always(reply);
                format!("every request is answered: {text}")
            }
            Err(problem) => return error(&problem),
        },
        (None, None) if body["reset"] == true => {
            collector.clear_script();
            "requests are answered as usual".to_owned()
        }
        _ => return error("one of script, always and reset must be given"),
    };
    hub.say("fail", text::cut(&said, 200).into_owned());
    json_response(StatusCode::OK, "{}".to_owned())
}

fn clear(hub: &Hub) -> Response {
    if let Some(collector) = hub.collector() {
        collector.clear();
    }
    hub.add(Item::Clear);
    json_response(StatusCode::OK, "{}".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded_whatever_it_is() {
        assert_eq!(decoded("a%20b+c"), "a b c");
        assert_eq!(decoded("%e2%82%ac"), "€");
        assert_eq!(decoded("%"), "%");
        assert_eq!(decoded("%4"), "%4");
        assert_eq!(decoded("%zz%+1"), "%zz% 1");
    }
}
