//! The simulated server: what it has, and what it finds wrong with what it gets.

use super::rng::Rng;
use crate::wire::{self, Mode};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

/// A scripted answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Reply {
    pub(super) status: Option<u16>,
    pub(super) retry_after: Option<String>,
    pub(super) delay: Duration,
    pub(super) keeps: bool,
}

impl Reply {
    /// 200; the events are kept.
    pub fn accept() -> Self {
        Self::status(200)
    }

    /// This status. The events are kept if it is a success.
    pub fn status(status: u16) -> Self {
        Self {
            status: Some(status),
            retry_after: None,
            delay: Duration::ZERO,
            keeps: (200..300).contains(&status),
        }
    }

    /// None, ever. The events are not kept.
    pub fn stall() -> Self {
        Self {
            status: None,
            keeps: false,
            ..Self::accept()
        }
    }

    /// None, though the events are kept.
    pub fn lost() -> Self {
        Self {
            keeps: true,
            ..Self::stall()
        }
    }

    /// With this `Retry-After`: seconds, a date, or anything else.
    pub fn retry_after(mut self, value: impl Into<String>) -> Self {
        self.retry_after = Some(value.into());
        self
    }

    /// After so much simulated time.
    pub const fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
}

/// An event that the server has.
#[derive(Clone, Copy, Debug)]
struct Kept {
    id: u64,
    /// The client was told.
    is_confirmed: bool,
}

/// What the server has of a session.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// By index.
    events: Vec<Option<Kept>>,
    pub(super) distinct: u64,
    /// Events whose answer reached the client.
    pub(super) confirmed: u64,
    pub(super) duplicates: u64,
    pub(super) requests: u64,
    ended_at: Option<u64>,
    /// The last request's first index and the hash of its key, unless the client was told that it was too large.
    last: Option<(u64, u64)>,
    /// The client was told that everything up to this index is refused for good.
    rejected_to: Option<u64>,
    /// The hash of each body that was not confirmed, by idempotency key.
    unconfirmed: BTreeMap<String, u64>,
}

/// One event, as far as a quick look at a body tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Glance {
    id: u64,
    index: u64,
    kind: u8,
}

#[derive(Default)]
pub(super) struct Server {
    pub(super) sessions: BTreeMap<String, Record>,
    pub(super) script: VecDeque<Reply>,
    pub(super) always: Option<Reply>,
    /// What is wrong with what came in.
    pub(super) wrong: Vec<String>,
    /// The bodies that are taken in, one behind the other, if they are wanted.
    pub(super) bodies: Option<Vec<u8>>,
    /// How many were not small.
    large_requests: u64,
}

/// What came in at once.
#[derive(Debug)]
pub(super) struct Receipt {
    pub(super) session: String,
    events: Vec<Glance>,
    pub(super) hash: u64,
}

impl Server {
    /// Looks at a request without taking it in. Whatever is wrong with its body is noted.
    pub(super) fn look(&mut self, key: &str, body: &[u8]) -> Option<Receipt> {
        let glances = glance(body);
        let is_small = body.len() < SMALL;
        let is_sample = is_small || self.large_requests.is_multiple_of(SAMPLE);
        self.large_requests += u64::from(!is_small);
        if is_sample && let Err(reason) = check(body, &glances) {
            self.wrong.push(reason);
            return None;
        }
        let session = session_id(body)?.to_string();
        let (first, last) = (glances.first()?.index, glances.last()?.index);
        let record = self.sessions.entry(session.clone()).or_default();
        record.requests += 1;
        if record.rejected_to.is_some_and(|to| first <= to) {
            self.wrong.push(format!(
                "session {session}, index {first}: sent again, though it was refused for good"
            ));
        }
        let attempt = (first, hash(key.as_bytes()));
        if let Some(last) = record.last.replace(attempt)
            && last.0 == attempt.0
            && last.1 != attempt.1
        {
            self.wrong.push(format!(
                "session {session}, index {first}: another idempotency key for another attempt"
            ));
        }
        if !record.unconfirmed.is_empty()
            && let Some(before) = record.unconfirmed.get(key)
            && *before != hash(body)
        {
            self.wrong
                .push(format!("two bodies for the idempotency key {key}"));
        }
        let ids = glances.iter().fold(0, |hash, glance| mix(hash, glance.id));
        Some(Receipt {
            session,
            events: glances,
            hash: mix(ids, last),
        })
    }

    /// Takes a request in. `is_replay`: the network has doubled it.
    pub(super) fn take(&mut self, receipt: &Receipt, body: &[u8], is_replay: bool) {
        let Some(record) = self.sessions.get_mut(&receipt.session) else {
            return;
        };
        if let Some(bodies) = &mut self.bodies {
            bodies.extend_from_slice(body);
        }
        for event in &receipt.events {
            if let Err(reason) = record.take(*event, is_replay) {
                let session = &receipt.session;
                self.wrong.push(format!(
                    "session {session}, index {}: {reason}",
                    event.index
                ));
            }
        }
    }

    /// The client has been told that the server has these.
    pub(super) fn confirm(&mut self, receipt: &Receipt, key: &str) {
        if let Some(record) = self.sessions.get_mut(&receipt.session) {
            record.unconfirmed.remove(key);
            for event in &receipt.events {
                if let Some(Some(kept)) = record.events.get_mut(event.index as usize) {
                    record.confirmed +=
                        u64::from(!core::mem::replace(&mut kept.is_confirmed, true));
                }
            }
        }
    }

    /// The client has been told this, which is not that the server has them.
    pub(super) fn refuse(&mut self, receipt: &Receipt, status: u16) {
        if let Some(record) = self.sessions.get_mut(&receipt.session) {
            match status {
                // Its halves are batches of their own.
                413 => record.last = None,
                408 | 425 | 429 | 500.. => {}
                _ => record.rejected_to = Some(receipt.last()),
            }
        }
    }

    /// The client does not know what became of this one, and will send it again as it is.
    pub(super) fn leave_open(&mut self, receipt: &Receipt, key: &str, body: &[u8]) {
        if let Some(record) = self.sessions.get_mut(&receipt.session) {
            record.unconfirmed.insert(key.to_string(), hash(body));
        }
    }
}

impl Record {
    fn take(&mut self, event: Glance, is_replay: bool) -> Result<(), &'static str> {
        let index = u32::try_from(event.index).map_err(|_| "an index beyond all memory")? as usize;
        if let Some(Some(kept)) = self.events.get(index) {
            self.duplicates += 1;
            return match kept {
                Kept { id, .. } if *id != event.id => Err("another event under the same index"),
                Kept { is_confirmed, .. } if *is_confirmed && !is_replay => {
                    Err("sent again, though the client was told that it has arrived")
                }
                _ => Ok(()),
            };
        }
        if index < self.events.len() {
            return Err("it comes after a later one");
        }
        if self.distinct == 0 && (event.index, event.kind) != (0, b'S') && self.ended_at.is_none() {
            // The start may have been dropped, which the reporter has counted; nothing else is index 0.
            if event.index == 0 {
                return Err("the first event is not SESSION_START");
            }
        }
        if event.index > 0 && event.kind == b'S' {
            return Err("a second SESSION_START");
        }
        if event.kind == b'E' && self.ended_at.replace(event.index).is_some() {
            return Err("a second SESSION_END");
        }
        if index > self.events.len() {
            self.events.resize(index, None);
        }
        self.events.push(Some(Kept {
            id: event.id,
            is_confirmed: false,
        }));
        self.distinct += 1;
        Ok(())
    }

    /// Index of the `SESSION_END`, once it is here.
    pub(super) const fn ended_at(&self) -> Option<u64> {
        self.ended_at
    }
}

/// Smaller requests are checked as strictly as can be, in bytes.
const SMALL: usize = 2_048;

/// And so is one in so many larger ones.
const SAMPLE: u64 = 256;

const MARK: &[u8; 13] = br#"{"event_id":""#;
const BETWEEN: &[u8; 24] = br#"","event_session_index":"#;
const KIND: &[u8; 10] = br#","event":""#;

/// The events of a body in the form that this crate writes, without reading what is in them: fast enough for tens of
/// thousands. The strict check of samples says whether the form is right.
fn glance(body: &[u8]) -> Vec<Glance> {
    let mut found: Vec<Glance> = Vec::with_capacity(body.len() / 200 + 1);
    let (mut at, mut step) = (0, 0);
    loop {
        // Most events are as long as the one before. What is found so must be the next one: none was passed over.
        let expected = found.last().and_then(|last| {
            let event = read_behind_another(body, at + step)?;
            (Some(event.index) == last.index.checked_add(1)).then_some(event)
        });
        if let Some(event) = expected {
            at += step;
            found.push(event);
            continue;
        }
        let next = match found.last() {
            None => find(body, 0, |at| read(&body[at..])),
            Some(last) => find(body, at + last.least_len(), |at| {
                read_behind_another(body, at)
            }),
        };
        let Some((next, event)) = next else {
            return found;
        };
        if !found.is_empty() {
            step = next - at;
        }
        at = next;
        found.push(event);
    }
}

/// The first event at `from` or later, and where it begins.
fn find(
    body: &[u8],
    from: usize,
    read: impl Fn(usize) -> Option<Glance>,
) -> Option<(usize, Glance)> {
    let starts = memchr::memchr_iter(MARK[0], body.get(from..)?);
    starts
        .map(|at| from + at)
        .find_map(|at| Some((at, read(at)?)))
}

/// An event that begins there, behind the end of another one: not an event's data that look like one.
#[inline]
fn read_behind_another(body: &[u8], at: usize) -> Option<Glance> {
    match body.split_at_checked(at)? {
        ([.., b'}', b','], event) => read(event),
        _ => None,
    }
}

impl Glance {
    /// How many bytes such an event has at the least: that of a single digit, INFO, and nothing in its name and data.
    const fn least_len(&self) -> usize {
        match self.kind {
            b'G' => 191,
            _ => 159,
        }
    }
}

#[inline]
fn read(event: &[u8]) -> Option<Glance> {
    let rest = after(MARK, event)?;
    let (id, rest) = rest.split_first_chunk::<36>()?;
    let mut rest = after(BETWEEN, rest)?;
    let mut index = 0_u64;
    while let [digit @ b'0'..=b'9', others @ ..] = rest {
        index = index
            .checked_mul(10)?
            .checked_add(u64::from(digit - b'0'))?;
        rest = others;
    }
    // SESSION_START, SESSION_END, GENERIC_EVENT, UNHANDLED_EXCEPTION: the ninth letter tells the first two apart.
    let kind = match after(KIND, rest)? {
        [b'S', _, _, _, _, _, _, _, kind, ..] | [kind, ..] => *kind,
        [] => return None,
    };
    Some(Glance {
        id: hash(id),
        index,
        kind,
    })
}

/// What follows `prefix`, whose length is known to the compiler: no call compares it.
#[inline]
fn after<'a, const N: usize>(prefix: &[u8; N], text: &'a [u8]) -> Option<&'a [u8]> {
    let (begin, rest) = text.split_first_chunk::<N>()?;
    (begin == prefix).then_some(rest)
}

/// The whole check, and that the quick look saw the same.
fn check(body: &[u8], glances: &[Glance]) -> Result<(), String> {
    let checked = wire::check(body, Mode::Strict).map_err(|violation| violation.to_string())?;
    let events = checked.events().iter();
    let indices = events.map(|event| (event.index(), hash(event.id().as_bytes())));
    let seen = glances.iter().map(|glance| (glance.index, glance.id));
    if indices.eq(seen) {
        Ok(())
    } else {
        Err("the events are not written as this crate writes them".into())
    }
}

fn session_id(body: &[u8]) -> Option<&str> {
    let rest = body.strip_prefix(br#"{"session_id":""#)?;
    let end = memchr::memchr(b'"', rest)?;
    core::str::from_utf8(&rest[..end]).ok()
}

pub(super) const fn mix(hash: u64, value: u64) -> u64 {
    (hash.rotate_left(23) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95)
}

#[inline]
fn hash(bytes: &[u8]) -> u64 {
    let word = |hash, word: &[u8; 8]| mix(hash, u64::from_le_bytes(*word));
    let (words, rest) = bytes.as_chunks::<8>();
    let hash = words.iter().fold(bytes.len() as u64, word);
    match bytes.last_chunk() {
        _ if rest.is_empty() => hash,
        // With some bytes that are in it already.
        Some(last) => word(hash, last),
        None => rest
            .iter()
            .fold(hash, |hash, byte| mix(hash, u64::from(*byte))),
    }
}

/// A `Retry-After` of the kind that a fault asks for.
pub(super) fn retry_after(
    fault: super::Fault,
    rng: &mut Rng,
    utc: crate::time::Timestamp,
) -> String {
    use super::Fault;
    let seconds = rng.below(120);
    match fault {
        Fault::RetryAfterSeconds => seconds.to_string(),
        Fault::RetryAfterDate => {
            let at = Duration::from_micros(utc.as_unix_micros()) + Duration::from_secs(seconds);
            httpdate::fmt_http_date(std::time::UNIX_EPOCH + at.min(MAX_DATE))
        }
        Fault::RetryAfterZero => "0".into(),
        Fault::RetryAfterNegative => "-5".into(),
        Fault::RetryAfterEnormous => "99999999999999999999".into(),
        _ => "soon".into(),
    }
}

/// The last second that such a date can say: the year 9999 is over.
const MAX_DATE: Duration = Duration::from_secs(253_402_300_799);

impl Receipt {
    /// How many events.
    pub(super) const fn events(&self) -> usize {
        self.events.len()
    }

    /// The highest index.
    pub(super) fn last(&self) -> u64 {
        self.events.last().map_or(0, |event| event.index)
    }
}
