//! Items as lines for people.

use serde_json::Value;

use crate::features::collector::{EventKind, EventRecord};
use crate::time::Timestamp;

use super::item::Item;
use super::prelude::*;
use super::text;

/// How lines are written.
#[derive(Clone, Copy)]
pub(super) struct Style {
    pub(super) full: bool,
    pub(super) colours: bool,
}

/// How items are printed.
#[derive(Clone, Copy)]
pub(super) enum Format {
    Json { full: bool },
    Lines(Style),
}

impl Format {
    pub(super) fn text(self, item: &Item) -> Option<String> {
        match self {
            Self::Json { .. } if matches!(item, Item::Clear) => None,
            Self::Json { full } => Some(text::visible_json(&item.json(full))),
            Self::Lines(style) => lines(item, style),
        }
    }
}

/// Lines of a stack or of causes that are printed unless `full`.
const MAX_CAUSES: usize = 16;

/// The lines of an item, if it is worth one: time, session, index, severity, name, data.
pub(super) fn lines(item: &Item, style: Style) -> Option<String> {
    match item {
        Item::Event {
            session,
            run,
            event,
        } => Some(event_lines(session, *run, event, style)),
        Item::Request(_) | Item::Notice { .. } => {
            told(&serde_json::from_str(&item.json(false)).ok()?, style)
        }
        Item::Session { .. } | Item::Clear => None,
    }
}

pub(super) fn event_lines(session: &str, run: u32, event: &EventRecord, style: Style) -> String {
    let full = style.full;
    let timestamp = event.timestamp().unwrap_or_default();
    let severity = format!("{:<8}", event.severity());
    let mut line = String::with_capacity(256);
    line.push_str(&text::name(time(&timestamp), false));
    line.push(' ');
    line.push_str(&text::name(session, full));
    if run > 1 {
        line.push_str(&format!("#{run}"));
    }
    line.push(' ');
    line.push_str(&event.index().to_string());
    line.push(' ');
    line.push_str(&paint(style, colour(event.severity()), &severity));
    line.push(' ');
    line.push_str(&text::name(&event.name(), full));
    let rest = match event.kind() {
        EventKind::GenericEvent => text::data(event.data().unwrap_or_default(), full),
        EventKind::SessionEnd => text::name(&event.duration().unwrap_or_default(), full),
        EventKind::UnhandledException => {
            let message = event.message().unwrap_or_default();
            text::visible(&text::cut(
                &message,
                if full { usize::MAX } else { text::MAX_DATA },
            ))
        }
        _ => String::new(),
    };
    if !rest.is_empty() {
        line.push(' ');
        line.push_str(&rest);
    }
    for cause in causes(&event.traceback().unwrap_or_default(), full) {
        line.push_str("\n    ");
        line.push_str(&cause);
    }
    line
}

/// The causes in a traceback, and with `full` its stack.
fn causes(traceback: &str, full: bool) -> Vec<String> {
    let lines = traceback.lines();
    if full {
        return lines.map(text::visible).collect();
    }
    let causes = lines.filter(|line| line.starts_with("Caused by: "));
    let short = |line| text::visible(&text::cut(line, text::MAX_DATA));
    causes.take(MAX_CAUSES).map(short).collect()
}

/// The line of a notice or a request, from its JSON, if it is worth one.
pub(super) fn told(item: &Value, style: Style) -> Option<String> {
    let micros = item["at"].as_f64().unwrap_or_default() * 1e3;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float becomes the nearest integer that there is"
    )]
    let at = Timestamp::from_unix_micros(micros as u64).to_string();
    let (text, colour) = match item["type"].as_str()? {
        "notice" => (item["text"].as_str()?.to_owned(), DIM),
        _ => (request(item, style)?, YELLOW),
    };
    let text = text::visible(&text::cut(&text, text::MAX_DATA * 2));
    Some(format!("{} {}", time(&at), paint(style, colour, &text)))
}

/// A request that was not simply accepted, unless a notice says so already.
fn request(item: &Value, style: Style) -> Option<String> {
    let (reply, reason) = (&item["reply"], item["reason"].as_str());
    let status = reply.as_u64();
    let is_success = status.is_some_and(|status| (200..300).contains(&status));
    let reply = match reply.as_str() {
        Some(name @ ("lost" | "close" | "stall")) => format!("no response ({name})"),
        Some(name) => format!("answered {name}"),
        None => format!("answered {reply}"),
    };
    let what = match (reason, is_success) {
        // The collector's own refusals are notices.
        (None, true) | (Some(_), false) => return None,
        (Some(reason), true) => format!("{reply}, though {reason}"),
        (None, false) => {
            let after = item["retry_after"].as_str();
            let after = after.map(|after| format!(", Retry-After: {after}"));
            let kept = if item["kept"] == true {
                ", events kept"
            } else {
                ""
            };
            format!("{reply}{}{kept}", after.unwrap_or_default())
        }
    };
    let session = item["session"].as_str();
    let session = session.map(|session| format!(" session {}", text::name(session, style.full)));
    let events = item["first"]
        .as_u64()
        .map(|first| format!(" events {first}-{}", item["last"]));
    Some(format!(
        "{what}: {} {}{}{}",
        item["method"].as_str()?,
        text::name(item["path"].as_str()?, style.full),
        session.unwrap_or_default(),
        events.unwrap_or_default(),
    ))
}

/// The time of day in a timestamp, with milliseconds. It is UTC, as in the events.
fn time(timestamp: &str) -> &str {
    timestamp.get(11..23).unwrap_or("--:--:--.---")
}

const DIM: &str = "2";
const YELLOW: &str = "33";

fn colour(severity: &str) -> &'static str {
    match severity {
        "CRITICAL" | "ERROR" => "31",
        "WARNING" => YELLOW,
        "DEBUG" => DIM,
        _ => "",
    }
}

fn paint(style: Style, colour: &str, text: &str) -> String {
    if style.colours && !colour.is_empty() {
        format!("\u{1b}[{colour}m{text}\u{1b}[0m")
    } else {
        text.to_owned()
    }
}
