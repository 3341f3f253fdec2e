//! Checks the printed requests against the wire format, the order of events and the ledger.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use tinkex_telemetry::wire::{self, EventKind, Mode};

/// One session's part of the output, which passed the check.
pub(crate) struct Session<'a> {
    pub(crate) printed: &'a str,
    name: String,
    responses: Vec<&'a str>,
    events: BTreeMap<u64, String>,
    delivered: BTreeSet<u64>,
    dropped: BTreeSet<u64>,
    refused: u64,
}

/// One line: `request <attempt> <key> <response> <body>`.
struct Request<'a> {
    attempt: u32,
    key: &'a str,
    response: &'a str,
    body: &'a str,
}

impl<'a> Request<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let mut words = line.splitn(5, ' ');
        (words.next()? == "request").then_some(())?;
        Some(Self {
            attempt: words.next()?.parse().ok()?,
            key: words.next()?,
            response: words.next()?,
            body: words.next()?,
        })
    }

    fn is_retryable(&self) -> bool {
        matches!(self.response, "refused" | "silence" | "429") || self.response.starts_with('5')
    }
}

/// The sessions, each of which ends with its ledger, and the output after the last one.
pub(crate) fn sessions(printed: &str) -> Result<(Vec<Session<'_>>, &str), String> {
    let (mut sessions, mut start, mut at) = (Vec::new(), 0, 0);
    for line in printed.split_inclusive('\n') {
        at += line.len();
        if line.starts_with("ledger ") {
            sessions.push(Session::check(&printed[start..at])?);
            start = at;
        }
    }
    Ok((sessions, &printed[start..]))
}

/// Reports the longest critical section from a line `held <n> copy <n>`, which counts tens of instructions.
pub(crate) fn held(line: &str) -> Result<String, String> {
    let words: Vec<_> = line.split_whitespace().collect();
    let ["held", longest, "copy", copy] = words[..] else {
        return Err(format!("unexpected line after the last ledger: {line}"));
    };
    let instructions = |steps: &str| steps.parse().map(|steps: u32| steps * 10);
    let (Ok(longest), Ok(copy)) = (instructions(longest), instructions(copy)) else {
        return Err(format!("not numbers: {line}"));
    };
    // At most 256 bytes are copied, next to some 64-bit arithmetic: an id, an index, times.
    if longest > 10 * copy {
        return Err(format!("interrupts were off for {longest} instructions"));
    }
    Ok(format!(
        "The longest critical section took {longest} instructions; a copy of 256 bytes takes {copy}."
    ))
}

impl<'a> Session<'a> {
    fn check(printed: &'a str) -> Result<Self, String> {
        let (requests, ledger) = printed.trim_end().rsplit_once('\n').ok_or("no request")?;
        let mut session = Self {
            printed,
            name: String::new(),
            responses: Vec::new(),
            events: BTreeMap::new(),
            delivered: BTreeSet::new(),
            dropped: BTreeSet::new(),
            refused: 0,
        };
        let mut bodies: HashMap<&str, &str> = HashMap::new();
        let mut ids = HashSet::new();
        let mut before: Option<Request<'_>> = None;
        for line in requests.lines() {
            let problem = |what: &str| format!("{what}: {line}");
            let Some(request) = Request::read(line) else {
                return Err(problem("not a request"));
            };
            let due = before.take().filter(Request::is_retryable);
            let attempt = due.as_ref().map_or(0, |before| before.attempt + 1);
            if request.attempt != attempt || due.is_some_and(|before| before.key != request.key) {
                return Err(problem("not the attempt that is due"));
            }
            let known = bodies.insert(request.key, request.body);
            if known.is_some() != (attempt > 0) || known.is_some_and(|body| body != request.body) {
                return Err(problem("one key for two batches, or two keys for one"));
            }
            session
                .take(&request, &mut ids)
                .map_err(|reason| problem(&reason))?;
            before = Some(request);
        }
        session.check_ends()?;
        session.check_ledger(ledger)?;
        Ok(session)
    }

    fn take(&mut self, request: &Request<'a>, ids: &mut HashSet<String>) -> Result<(), String> {
        let checked = wire::check(request.body.as_bytes(), Mode::Strict)
            .map_err(|violation| violation.to_string())?;
        self.name = checked.session_id().to_owned();
        let mut indices = BTreeSet::new();
        for event in checked.events() {
            indices.insert(event.index());
            if let Some(known) = self.events.get(&event.index()) {
                if known != event.json() {
                    return Err("an event has changed".into());
                }
                continue;
            }
            let newest = self.events.last_key_value().map(|(index, _)| *index);
            if newest > Some(event.index()) || !ids.insert(event.id().to_owned()) {
                return Err("an event is out of order, or its id is taken".into());
            }
            self.events.insert(event.index(), event.json().to_owned());
        }
        let settled = match request.response {
            "200" => Some(&mut self.delivered),
            "400" => Some(&mut self.dropped),
            _ => None,
        };
        if let Some(settled) = settled {
            settled.append(&mut indices);
        }
        // No event may be sent before all older ones are settled.
        let is_settled = |index| self.delivered.contains(index) != self.dropped.contains(index);
        self.responses.push(request.response);
        let first = checked.events()[0].index();
        match self
            .events
            .range(..first)
            .all(|(index, _)| is_settled(index))
        {
            true => Ok(()),
            false => Err("an earlier event is unsettled, or settled twice".into()),
        }
    }

    fn check_ends(&self) -> Result<(), String> {
        let is = |text: &str, kind: EventKind| {
            text.contains(&format!(r#","event":"{}","#, kind.as_str()))
        };
        let count = |kind| self.events.values().filter(|text| is(text, kind)).count();
        let first = self.events.first_key_value();
        let last = self.events.last_key_value();
        let begins = first.is_some_and(|(_, text)| is(text, EventKind::SessionStart));
        let ends = last.is_some_and(|(_, text)| is(text, EventKind::SessionEnd));
        let once = count(EventKind::SessionStart) == 1 && count(EventKind::SessionEnd) == 1;
        if begins && ends && once {
            return Ok(());
        }
        Err(format!(
            "{}: the first event must be the only SESSION_START, and the last the only SESSION_END",
            self.name
        ))
    }

    /// The ledger must agree with the requests; each gap in the indices is a refusal.
    fn check_ledger(&mut self, ledger: &str) -> Result<(), String> {
        let words = ledger.strip_prefix("ledger ").ok_or("no ledger")?;
        let counts: HashMap<&str, u64> = words
            .split_whitespace()
            .filter_map(|word| word.split_once('='))
            .filter_map(|(name, count)| Some((name, count.parse().ok()?)))
            .collect();
        let count = |names: &[&str]| names.iter().map(|name| counts.get(name).copied()).sum();
        let refused: Option<u64> = count(&["queue_full", "event_too_large", "unencodable"]);
        let last = self.events.last_key_value().map_or(0, |(index, _)| *index);
        let gaps = last + 1 - self.events.len() as u64;
        let found = [
            ("accepted", count(&["accepted"]), self.events.len() as u64),
            (
                "delivered",
                count(&["delivered"]),
                self.delivered.len() as u64,
            ),
            ("rejected", count(&["rejected"]), self.dropped.len() as u64),
            ("queued", count(&["queued"]), 0),
            (
                "other drops",
                count(&["too_large", "retries_exhausted", "shutdown"]),
                0,
            ),
            ("refusals", refused, gaps),
        ];
        self.refused = gaps;
        for (what, counted, seen) in found {
            if counted != Some(seen) {
                return Err(format!("{what}: the requests say {seen}: {ledger}"));
            }
        }
        if self.delivered.len() + self.dropped.len() == self.events.len() {
            Ok(())
        } else {
            Err("an event was neither delivered nor dropped".into())
        }
    }

    /// The session began with exactly these responses.
    pub(crate) fn expect_responses(&self, expected: &[scenario::Reply]) -> Result<(), String> {
        let expected: Vec<_> = expected.iter().map(ToString::to_string).collect();
        let first = self.responses.get(..expected.len());
        if self.name == "scenario" && first.is_some_and(|first| first == expected) {
            return Ok(());
        }
        Err(format!(
            "{}: the responses were {:?}",
            self.name, self.responses
        ))
    }

    /// Thread and interrupt have both logged, each in order, and their events interleave.
    pub(crate) fn expect_interrupted_thread(&self) -> Result<(), String> {
        let numbers = |name: &str| -> Vec<(usize, u64)> {
            let start = format!(r#""event_name":"{name}","event_data":{{"n":"#);
            let number = |text: &str| {
                let rest = &text[text.find(&start)? + start.len()..];
                rest[..rest.find([',', '}'])?].parse().ok()
            };
            let events = self.events.values().enumerate();
            events
                .filter_map(|(at, text)| Some((at, number(text)?)))
                .collect()
        };
        let (thread, interrupt) = (numbers("thread"), numbers("interrupt"));
        for (source, numbers) in [("thread", &thread), ("interrupt", &interrupt)] {
            let are_in_order = numbers
                .iter()
                .enumerate()
                .all(|(at, (_, n))| at as u64 == *n);
            if !are_in_order || numbers.len() < 100 {
                return Err(format!(
                    "{}: events of the {source} are missing or out of order",
                    self.name
                ));
            }
        }
        let turns = thread
            .windows(2)
            .filter(|pair| pair[1].0 - pair[0].0 > 1)
            .count();
        if turns < 10 {
            return Err(format!(
                "{}: the thread was interrupted only {turns} times",
                self.name
            ));
        }
        Ok(())
    }
}

/// The first difference, with the text around it.
pub(crate) fn difference(one: &str, other: &str) -> Option<String> {
    let at = one
        .bytes()
        .zip(other.bytes())
        .take_while(|(a, b)| a == b)
        .count();
    if at == one.len() && at == other.len() {
        return None;
    }
    let around = |text: &str| {
        let (from, to) = (at.saturating_sub(60), (at + 60).min(text.len()));
        String::from_utf8_lossy(&text.as_bytes()[from..to]).into_owned()
    };
    Some(format!(
        "at byte {at}\n  {}\n  {}",
        around(one),
        around(other)
    ))
}

impl fmt::Display for Session<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} valid requests; {} events accepted, {} delivered, {} dropped, {} refused",
            self.name,
            self.responses.len(),
            self.events.len(),
            self.delivered.len(),
            self.dropped.len(),
            self.refused,
        )
    }
}
