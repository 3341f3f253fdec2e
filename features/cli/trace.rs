//! `trace`: a session as Chrome's trace format, which ui.perfetto.dev shows.

use alloc::collections::BTreeMap;
use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::PathBuf,
};

use serde_json::{Value, json};

use crate::features::collector::{EventKind, EventRecord};
use crate::features::wire::json::{self as raw, Object};

use super::args::TraceArgs;
use super::client::Remote;
use super::prelude::*;
use super::{Outcome, kept, output, text};

pub(super) fn trace(options: &TraceArgs) -> Outcome {
    let sink: Box<dyn Write> = match &options.output {
        None => Box::new(io::stdout().lock()),
        Some(path) => Box::new(Later::To(path.clone())),
    };
    let mut trace = Trace::new(BufWriter::new(sink));
    let found = match &options.keep {
        Some(folder) => from_files(&mut trace, folder, &options.session)?,
        None => from_collector(&mut trace, &options.from, &options.session)?,
    };
    // A session whose requests were all refused has no event.
    if found == 0 && trace.is_empty {
        return Err(format!("there is no session {:?}", options.session).into());
    }
    let done = trace.finish();
    match done {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(format!("cannot write the trace: {error}").into())
        }
        _ => {
            if options.output.is_some() {
                output::say(&format!(
                    "{}; open the file at ui.perfetto.dev",
                    text::count(found, "event")
                ));
            }
            Ok(())
        }
    }
}

/// A file that is created, or emptied, when something is written to it: an older trace stays if there is no session.
enum Later {
    To(PathBuf),
    File(File),
}

impl Write for Later {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Self::To(path) = self {
            let file = File::create(&*path).map_err(|error| {
                let problem = format!("{}: {error}", path.display());
                io::Error::new(error.kind(), problem)
            })?;
            *self = Self::File(file);
        }
        match self {
            Self::File(file) => file.write(bytes),
            Self::To(_) => Ok(0),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::To(_) => Ok(()),
        }
    }
}

fn from_collector(trace: &mut Trace, url: &str, session: &str) -> Result<u64, String> {
    let remote = Remote::new(url)?;
    let mut found = 0;
    for message in remote.stream(&format!("&once=1&session={}", encoded(session)), None)? {
        let Ok(object) = Object::read(&message.data) else {
            continue;
        };
        let run = object
            .get("run")
            .and_then(|run| run.get().parse().ok())
            .unwrap_or(1);
        match object.get("type").and_then(raw::string).as_deref() {
            Some("event") => {
                let event = object
                    .get("event")
                    .and_then(|event| EventRecord::read(event.get()));
                if let Some(event) = event {
                    found += 1;
                    trace.event(session, run, &event);
                }
            }
            Some("request") => {
                if let Ok(request) = serde_json::from_str(&message.data) {
                    trace.request(session, run, &request);
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

fn from_files(trace: &mut Trace, folder: &std::path::Path, session: &str) -> Result<u64, String> {
    let mut found = 0;
    // The sender of each run.
    let mut runs = Vec::<String>::new();
    kept::read(folder, |portion| {
        if portion.session != session {
            return;
        }
        for event in portion
            .events
            .iter()
            .filter_map(|json| EventRecord::read(json))
        {
            found += 1;
            let known = runs.iter().rposition(|head| *head == portion.head);
            let begins = event.kind() == EventKind::SessionStart;
            let at = known.filter(|at| !begins || !trace.has(number(*at)));
            let at = at.unwrap_or_else(|| {
                runs.push(portion.head.clone());
                runs.len() - 1
            });
            trace.event(session, number(at), &event);
        }
    })?;
    Ok(found)
}

/// Of the run at this place.
fn number(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX).saturating_add(1)
}

/// Percent-encoded, for a query.
fn encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            (byte as char).to_string()
        }
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

/// A trace that is written as it grows.
struct Trace {
    sink: BufWriter<Box<dyn Write>>,
    result: io::Result<()>,
    is_empty: bool,
    runs: BTreeMap<u32, Run>,
}

/// The state of a run, which is a process of the trace.
#[derive(Default)]
struct Run {
    /// Calls that have not ended: by number, or by method and path, since when.
    open: BTreeMap<String, Call>,
    /// Until when each lane of calls is taken.
    lanes: Vec<f64>,
    queue: BTreeMap<String, (String, f64)>,
    next_index: u64,
    attempts: BTreeMap<String, u32>,
    last: f64,
}

struct Call {
    at: f64,
    name: String,
    lane: u32,
}

const SESSION: u32 = 1;
const QUEUE: u32 = 2;
const DELIVERY: u32 = 3;
const FIRST_LANE: u32 = 10;

impl Trace {
    fn new(sink: BufWriter<Box<dyn Write>>) -> Self {
        Self {
            sink,
            result: Ok(()),
            is_empty: true,
            runs: BTreeMap::new(),
        }
    }

    fn write(&mut self, entry: &Value) {
        if self.result.is_err() {
            return;
        }
        let before = if self.is_empty {
            "{\"traceEvents\":[\n"
        } else {
            ",\n"
        };
        self.is_empty = false;
        self.result = write!(self.sink, "{before}{entry}");
    }

    fn name_thread(&mut self, run: u32, thread: u32, name: &str) {
        self.write(&json!({"ph": "M", "pid": run, "tid": thread, "name": "thread_name", "args": {"name": name}}));
        self.write(
            &json!({"ph": "M", "pid": run, "tid": thread, "name": "thread_sort_index",
            "args": {"sort_index": thread}}),
        );
    }

    fn run(&mut self, session: &str, run: u32) -> &mut Run {
        let is_new = !self.runs.contains_key(&run);
        if is_new {
            let name = match run {
                1 => session.to_owned(),
                run => format!("{session}#{run}"),
            };
            self.write(&json!({"ph": "M", "pid": run, "tid": 0, "name": "process_name", "args": {"name": name}}));
            for (thread, name) in [
                (SESSION, "events"),
                (QUEUE, "queue"),
                (DELIVERY, "delivery"),
            ] {
                self.name_thread(run, thread, name);
            }
        }
        self.runs.entry(run).or_default()
    }

    /// Whether a run has begun.
    fn has(&self, run: u32) -> bool {
        self.runs.contains_key(&run)
    }

    fn event(&mut self, session: &str, run: u32, event: &EventRecord) {
        let timestamp = event.timestamp().unwrap_or_default();
        let Some(at) = micros(&timestamp) else {
            return;
        };
        let state = self.run(session, run);
        state.last = state.last.max(at);
        let (expected, index) = (state.next_index, event.index());
        state.next_index = state.next_index.max(index + 1);
        if index > expected {
            let name = format!("missing {expected}-{}", index - 1);
            self.write(
                &json!({"ph": "i", "s": "p", "pid": run, "tid": SESSION, "ts": at, "name": name,
                "cat": "gap"}),
            );
        }
        let name = event.name().into_owned();
        let data: Value = event
            .data()
            .and_then(|data| serde_json::from_str(data).ok())
            .unwrap_or_default();
        match &*name {
            "tinkex.http.request.start" => return self.starts(session, run, at, &data),
            "tinkex.http.request.stop" | "tinkex.http.request.exception" => {
                return self.stops(session, run, at, &name, &data);
            }
            "tinkex.queue.state_change" => return self.queues(session, run, at, &data),
            _ => {}
        }
        let arguments = match event.message() {
            Some(message) => {
                json!({"index": index, "severity": event.severity(), "message": message,
                "traceback": event.traceback()})
            }
            None => json!({"index": index, "severity": event.severity(), "data": data}),
        };
        let scope = match event.severity() {
            "ERROR" | "CRITICAL" => "p",
            _ => "t",
        };
        self.write(
            &json!({"ph": "i", "s": scope, "pid": run, "tid": SESSION, "ts": at, "name": name,
            "cat": event.severity(), "args": arguments}),
        );
    }

    fn starts(&mut self, session: &str, run: u32, at: f64, data: &Value) {
        let state = self.run(session, run);
        let lane = state.lane(at, f64::INFINITY);
        let call = Call {
            at,
            name: call_name(data),
            lane,
        };
        state.open.insert(call_key(data), call);
    }

    fn stops(&mut self, session: &str, run: u32, at: f64, name: &str, data: &Value) {
        let state = self.run(session, run);
        let duration = data["measurements"]["duration"]
            .as_f64()
            .map(|nanos| nanos / 1e3);
        let call = state.open.remove(&call_key(data));
        let (start, lane) = match call {
            Some(call) => {
                if let Some(end) = state.lanes.get_mut((call.lane - FIRST_LANE) as usize) {
                    *end = at;
                }
                (
                    duration.map_or(call.at, |duration| at - duration),
                    call.lane,
                )
            }
            None => {
                let start = at - duration.unwrap_or_default();
                (start, state.lane(start, at))
            }
        };
        let kind = if name.ends_with(".exception") {
            "exception"
        } else {
            "call"
        };
        self.write(
            &json!({"ph": "X", "pid": run, "tid": lane, "ts": start, "dur": (at - start).max(0.0),
            "name": call_name(data), "cat": kind, "args": data}),
        );
        if data["metadata"]["retry_count"]
            .as_u64()
            .is_some_and(|count| count > 0)
        {
            self.write(
                &json!({"ph": "i", "s": "t", "pid": run, "tid": lane, "ts": start, "name": "retry",
                "cat": "retry", "args": {"retry_count": data["metadata"]["retry_count"]}}),
            );
        }
    }

    fn queues(&mut self, session: &str, run: u32, at: f64, data: &Value) {
        let metadata = &data["metadata"];
        let text = |key: &str| metadata[key].as_str().unwrap_or_default().to_owned();
        let state = self.run(session, run);
        let before = state.queue.insert(text("request_id"), (text("to"), at));
        if let Some((name, since)) = before {
            self.write(&json!({"ph": "X", "pid": run, "tid": QUEUE, "ts": since, "dur": (at - since).max(0.0),
                "name": name, "cat": "queue", "args": metadata}));
        }
    }

    fn request(&mut self, session: &str, run: u32, request: &Value) {
        let number = |key: &str| request[key].as_f64().unwrap_or_default();
        let at = number("at") * 1e3;
        let state = self.run(session, run.max(1));
        state.last = state.last.max(at);
        let attempts = state
            .attempts
            .entry(request["key"].as_str().unwrap_or_default().to_owned());
        let attempts = attempts.or_default();
        *attempts += 1;
        let attempt = *attempts;
        let name = match (request["first"].as_u64(), request["last"].as_u64()) {
            (Some(first), Some(last)) => format!("{first}-{last}: {}", request["reply"]),
            _ => format!("refused: {}", request["reply"]),
        };
        let duration = (number("took") + number("delay")) * 1e3;
        let run = run.max(1);
        self.write(
            &json!({"ph": "X", "pid": run, "tid": DELIVERY, "ts": at, "dur": duration, "name": name,
            "cat": "batch", "args": request}),
        );
        if attempt > 1 {
            self.write(
                &json!({"ph": "i", "s": "t", "pid": run, "tid": DELIVERY, "ts": at,
                "name": format!("attempt {attempt}"), "cat": "retry"}),
            );
        }
    }

    /// Closes what is open, and the file.
    fn finish(mut self) -> io::Result<()> {
        let runs = core::mem::take(&mut self.runs);
        for (run, state) in runs {
            for call in state.open.values() {
                let name = format!("{} (no end)", call.name);
                self.write(
                    &json!({"ph": "X", "pid": run, "tid": call.lane, "ts": call.at,
                    "dur": (state.last - call.at).max(0.0), "name": name, "cat": "open"}),
                );
            }
            for (name, since) in state.queue.values() {
                self.write(&json!({"ph": "X", "pid": run, "tid": QUEUE, "ts": since,
                    "dur": (state.last - since).max(0.0), "name": name, "cat": "queue"}));
            }
            for lane in 0..state.lanes.len() {
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "calls at the same time are few"
                )]
                let lane = lane as u32;
                self.name_thread(run, FIRST_LANE + lane, &format!("calls {}", lane + 1));
            }
        }
        self.result?;
        let before = if self.is_empty {
            "{\"traceEvents\":["
        } else {
            ""
        };
        writeln!(self.sink, "{before}\n]}}")?;
        self.sink.flush()
    }
}

impl Run {
    /// The first lane that is free at `start`, taken until `end`.
    fn lane(&mut self, start: f64, end: f64) -> u32 {
        let free = self.lanes.iter().position(|until| *until <= start);
        let at = free.unwrap_or(self.lanes.len());
        match self.lanes.get_mut(at) {
            Some(until) => *until = end,
            None => self.lanes.push(end),
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "calls at the same time are few"
        )]
        let at = at as u32;
        FIRST_LANE + at
    }
}

fn call_key(data: &Value) -> String {
    match data["metadata"]["call"].as_u64() {
        Some(number) => number.to_string(),
        None => call_name(data),
    }
}

fn call_name(data: &Value) -> String {
    let text = |key: &str| data["metadata"][key].as_str().unwrap_or_default();
    format!("{} {}", text("method"), text("path"))
}

/// Microseconds since the epoch.
fn micros(timestamp: &str) -> Option<f64> {
    let (whole, rest) = timestamp.split_at_checked(19)?;
    let fraction = rest.strip_prefix('.').unwrap_or("0");
    let digits: String = fraction.chars().take_while(char::is_ascii_digit).collect();
    let fraction: f64 = format!("0.{digits}").parse().ok()?;
    let number = |range: core::ops::Range<usize>| whole.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    // Days since the epoch, by the civil calendar that begins in March.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (153 * month + 2) / 5
        + day
        - 719_469;
    let seconds = days * 86_400 + number(11..13)? * 3_600 + number(14..16)? * 60 + number(17..19)?;
    #[expect(
        clippy::cast_precision_loss,
        reason = "seconds are far below the limit"
    )]
    let seconds = seconds as f64;
    Some(seconds * 1e6 + fraction * 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_microseconds_since_the_epoch() {
        assert_eq!(micros("1970-01-01T00:00:00.000001Z"), Some(1.0));
        assert_eq!(micros("2025-11-26T10:30:45Z"), Some(1_764_153_045e6));
        assert_eq!(
            micros("2000-02-29T12:00:00.5+00:00"),
            Some(951_825_600_500_000.0)
        );
        assert_eq!(micros("soon"), None);
    }

    #[test]
    fn a_query_is_encoded() {
        assert_eq!(encoded("a b/ü&"), "a%20b%2F%C3%BC%26");
    }
}
