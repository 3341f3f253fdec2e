//! A fast scan of request bodies for the ids and indices of their events.

use super::hash::hash;
use crate::wire::{self, Mode};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// What the scan reads of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ScannedEvent {
    /// The hash of its id.
    pub(super) id: u64,
    pub(super) index: u64,
    /// `S` for SESSION_START, `E` for SESSION_END, otherwise the first letter of its type.
    pub(super) kind: u8,
    /// Whether it is an exception or a user error, after which `SESSION_END` does not end the logging. Known only for
    /// the last event of a request and the one before `SESSION_END`.
    pub(super) is_failure: bool,
}

const EVENT_PREFIX: &[u8; 13] = br#"{"event_id":""#;
const INDEX_KEY: &[u8; 24] = br#"","event_session_index":"#;
const TYPE_KEY: &[u8; 10] = br#","event":""#;

/// The events of a body as this crate writes them, without parsing what is in them: fast enough for tens of thousands.
/// Strict checks of samples verify that the body has this form.
pub(super) fn scan(body: &[u8]) -> Vec<ScannedEvent> {
    let mut found: Vec<ScannedEvent> = Vec::with_capacity(body.len() / 200 + 1);
    let (mut at, mut step) = (0, 0);
    loop {
        // Most events are as long as the one before. The index proves that no event was skipped.
        let expected = found.last().and_then(|last| {
            let event = read_after_event(body, at + step)?;
            (Some(event.index) == last.index.checked_add(1)).then_some(event)
        });
        if let Some(event) = expected {
            note_failure(body, at, &mut found, Some(event.kind));
            at += step;
            found.push(event);
            continue;
        }
        let next = match found.last() {
            None => find(body, 0, |at| read(&body[at..])),
            Some(last) => find(body, at + last.min_len(), |at| read_after_event(body, at)),
        };
        note_failure(body, at, &mut found, next.map(|(_, event)| event.kind));
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

/// Sets [`ScannedEvent::is_failure`] of the last event found, which begins at `at`, where it matters: before
/// `SESSION_END` and at the end of the body.
fn note_failure(body: &[u8], at: usize, found: &mut [ScannedEvent], next: Option<u8>) {
    /// Longer than an event up to its name: ids and types have fixed lengths, an index has 20 digits at most.
    const HEAD: usize = 256;
    const USER_ERROR: &[u8] = br#"","event_name":"user_error","#;
    if let (Some(last), None | Some(b'E')) = (found.last_mut(), next) {
        let head = body.get(at..).unwrap_or_default();
        let head = &head[..head.len().min(HEAD)];
        last.is_failure = match last.kind {
            b'U' => true,
            b'G' => memchr::memmem::find(head, USER_ERROR).is_some(),
            _ => false,
        };
    }
}

/// The first event at or after `from`, and where it begins.
fn find(
    body: &[u8],
    from: usize,
    read: impl Fn(usize) -> Option<ScannedEvent>,
) -> Option<(usize, ScannedEvent)> {
    let starts = memchr::memchr_iter(EVENT_PREFIX[0], body.get(from..)?);
    starts
        .map(|at| from + at)
        .find_map(|at| Some((at, read(at)?)))
}

/// The event that begins at `at`, directly after the end of another: data that look like an event do not count.
#[inline]
fn read_after_event(body: &[u8], at: usize) -> Option<ScannedEvent> {
    match body.split_at_checked(at)? {
        ([.., b'}', b','], event) => read(event),
        _ => None,
    }
}

impl ScannedEvent {
    /// The minimum length of such an event in bytes: one digit of index, severity INFO, empty name and data.
    const fn min_len(&self) -> usize {
        match self.kind {
            b'G' => 191,
            _ => 159,
        }
    }
}

#[inline]
fn read(event: &[u8]) -> Option<ScannedEvent> {
    let rest = after(EVENT_PREFIX, event)?;
    let (id, rest) = rest.split_first_chunk::<36>()?;
    let mut rest = after(INDEX_KEY, rest)?;
    let mut index = 0_u64;
    while let [digit @ b'0'..=b'9', others @ ..] = rest {
        index = index
            .checked_mul(10)?
            .checked_add(u64::from(digit - b'0'))?;
        rest = others;
    }
    // SESSION_START, SESSION_END, GENERIC_EVENT, UNHANDLED_EXCEPTION: the ninth letter distinguishes the first two.
    let kind = match after(TYPE_KEY, rest)? {
        [b'S', _, _, _, _, _, _, _, kind, ..] | [kind, ..] => *kind,
        [] => return None,
    };
    Some(ScannedEvent {
        id: hash(id),
        index,
        kind,
        is_failure: false,
    })
}

/// `text` without `prefix`, whose length the compiler knows: the comparison is inline.
#[inline]
fn after<'a, const N: usize>(prefix: &[u8; N], text: &'a [u8]) -> Option<&'a [u8]> {
    let (begin, rest) = text.split_first_chunk::<N>()?;
    (begin == prefix).then_some(rest)
}

/// The strict check of the body, and that the scan found the same events.
pub(super) fn check_strictly(body: &[u8], scanned: &[ScannedEvent]) -> Result<(), String> {
    let checked = wire::check(body, Mode::Strict).map_err(|violation| violation.to_string())?;
    let events = checked.events().iter();
    let parsed = events.map(|event| (event.index(), hash(event.id().as_bytes())));
    if parsed.eq(scanned.iter().map(|event| (event.index, event.id))) {
        Ok(())
    } else {
        Err("the events are not written as this crate writes them".into())
    }
}

pub(super) fn session_id(body: &[u8]) -> Option<&str> {
    let rest = body.strip_prefix(br#"{"session_id":""#)?;
    let end = memchr::memchr(b'"', rest)?;
    core::str::from_utf8(&rest[..end]).ok()
}
