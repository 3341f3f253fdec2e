//! `tail`: prints what a running collector receives.

use core::{hash::BuildHasher, time::Duration};
use std::{collections::HashSet, hash::RandomState, io::Write, thread};

use crate::features::collector::EventRecord;
use crate::features::wire::json::{Object, Raw};
use serde_json::Value;

use super::args::{PrintArgs, TailArgs};
use super::client::{Message, Remote};
use super::line::{self, Style};
use super::output;
use super::prelude::*;
use super::{Failure, Outcome, signals, text};

/// Between attempts to reach a collector that went away.
const PAUSE: Duration = Duration::from_millis(500);
/// How long it may be away.
const PATIENCE: u32 = 20;

/// What is printed.
struct Filter {
    session: Option<String>,
    kind: Option<String>,
    min_severity: usize,
    print: PrintArgs,
    style: Style,
}

const SEVERITIES: [&str; 5] = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"];

pub(super) fn tail(options: &TailArgs) -> Outcome {
    let severity = options.min_severity.as_deref().map(str::to_uppercase);
    let rank = |severity: &str| SEVERITIES.iter().position(|known| *known == severity);
    let filter = Filter {
        session: options.session.clone(),
        kind: options.kind.clone(),
        min_severity: severity.and_then(|severity| rank(&severity)).unwrap_or(0),
        print: options.print,
        style: Style {
            full: options.print.full,
            colours: output::has_colours(&std::io::stdout()),
        },
    };
    follow(
        &Remote::new(&options.url).map_err(Failure::Usage)?,
        &filter,
        options.once,
    )
}

/// Prints everything from a collector that has the port that was asked for.
pub(super) fn beside(remote: &Remote, print: PrintArgs) -> Outcome {
    let style = Style {
        full: print.full,
        colours: output::has_colours(&std::io::stdout()),
    };
    let filter = Filter {
        session: None,
        kind: None,
        min_severity: 0,
        print,
        style,
    };
    follow(remote, &filter, false)
}

fn follow(remote: &Remote, filter: &Filter, once: bool) -> Outcome {
    let query = if once { "&once=1" } else { "" };
    let mut last = None::<String>;
    let mut stream = remote.stream(query, None)?;
    let mut stdout = std::io::stdout();
    // Also while there is nothing to print.
    signals::end_unread();
    let (mut seen, mut is_again) = (Seen::default(), false);
    loop {
        for message in &mut stream {
            if !message.id.is_empty() {
                last = Some(message.id.clone());
            }
            if message.data == r#"{"type":"restart"}"# {
                output::say("the collector was started again; what was printed is left out");
                is_again = true;
            }
            if seen.has(&message, is_again) {
                continue;
            }
            let Some(line) = filter.line(&message) else {
                continue;
            };
            // The reader has gone.
            if writeln!(stdout, "{line}")
                .and_then(|()| stdout.flush())
                .is_err()
            {
                return Ok(());
            }
        }
        if once {
            return Ok(());
        }
        let again = (0..PATIENCE).find_map(|attempt| {
            thread::sleep(if attempt == 0 { Duration::ZERO } else { PAUSE });
            remote.stream(query, last.as_deref()).ok()
        });
        let Some(again) = again else {
            output::say(&format!("the collector at {} has ended", remote.base()));
            return Ok(());
        };
        stream = again;
    }
}

/// Events that were received, by the hashes of their sessions and ids: a collector that was started again sends those
/// that it kept once more.
#[derive(Default)]
struct Seen {
    new: HashSet<u64>,
    old: HashSet<u64>,
    hasher: RandomState,
}

/// Half of the events that are remembered.
const MAX_SEEN: usize = 500_000;

impl Seen {
    /// Remembers an event; whether it was there before. What is no event, or has no id, never was. Only a collector that
    /// was started again, as `is_again` says, sends an event twice.
    fn has(&mut self, message: &Message, is_again: bool) -> bool {
        let Ok(object) = Object::read(&message.data) else {
            return false;
        };
        let Some(event) = object.get("event") else {
            return false;
        };
        let Ok(event) = Object::read(event.get()) else {
            return false;
        };
        let Some(id) = event.get("event_id").map(Raw::get) else {
            return false;
        };
        let session = object.get("session").map(Raw::get);
        let hash = self.hasher.hash_one((session, id));
        if self.new.len() >= MAX_SEEN {
            self.old = core::mem::take(&mut self.new);
        }
        let is_known = self.old.contains(&hash) || !self.new.insert(hash);
        is_again && is_known
    }
}

impl Filter {
    fn line(&self, message: &Message) -> Option<String> {
        let object = Object::read(&message.data).ok()?;
        let string = |key| {
            object
                .get(key)
                .and_then(crate::features::wire::json::string)
        };
        let (kind, session) = (string("type")?, string("session"));
        if self.session.is_some() && self.session.as_deref() != session.as_deref() {
            return None;
        }
        let is_event = kind == "event";
        if is_event {
            let event = EventRecord::read(object.get("event")?.get())?;
            let rank = SEVERITIES
                .iter()
                .position(|known| *known == event.severity());
            let is_kind = self.kind.as_deref().is_none_or(|kind| {
                event.kind().as_str().eq_ignore_ascii_case(kind) || event.name() == kind
            });
            if !is_kind || rank.unwrap_or(0) < self.min_severity {
                return None;
            }
            if self.print.json {
                return Some(text::visible_json(&message.data));
            }
            let run = object.get("run").map(Raw::get);
            let run = run.and_then(|run| run.parse().ok()).unwrap_or(1);
            return Some(line::event_lines(&session?, run, &event, self.style));
        }
        if self.kind.is_some()
            || self.min_severity > 0
            || matches!(&*kind, "now" | "restart" | "end")
        {
            return None;
        }
        if self.print.json {
            return Some(text::visible_json(&message.data));
        }
        match &*kind {
            "notice" | "request" => {
                let value: Value = serde_json::from_str(&message.data).ok()?;
                line::told(&value, self.style)
            }
            "gap" => {
                let rows = object.get("rows")?.get().parse().ok()?;
                let (count, verb) = (text::count(rows, "earlier line"), text::is_or_are(rows));
                Some(format!("({count} {verb} not kept)"))
            }
            _ => None,
        }
    }
}
