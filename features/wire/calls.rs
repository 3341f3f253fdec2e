//! The HTTP calls of a session: each has one start and, after it, one end.

use super::json::Object;
use crate::bus::{HTTP_REQUEST_EXCEPTION, HTTP_REQUEST_START, HTTP_REQUEST_STOP};
use std::collections::HashMap;

/// The start or the end of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallEvent {
    pub(crate) number: u64,
    pub(crate) is_end: bool,
}

impl CallEvent {
    /// Reads an event; `None` for one that belongs to no call, or does not say to which.
    pub(crate) fn read(json: &str) -> Option<Self> {
        // Most events are told apart without parsing them.
        if !json.contains("tinkex.http.request.") {
            return None;
        }
        let event = Object::read(json).ok()?;
        let name = event.get("event_name")?.get();
        let name = name.strip_prefix('"')?.strip_suffix('"')?;
        let is_end = match name {
            HTTP_REQUEST_START => false,
            HTTP_REQUEST_STOP | HTTP_REQUEST_EXCEPTION => true,
            _ => return None,
        };
        let data = Object::read(event.get("event_data")?.get()).ok()?;
        let metadata = Object::read(data.get("metadata")?.get()).ok()?;
        let number = metadata.get("call")?.get().parse().ok()?;
        Some(Self { number, is_end })
    }
}

/// The calls that a session has begun or ended, and whether each has ended.
///
/// An end without a start is none of its business: the session may not take starts from its bus, or have begun in the
/// middle of the call. Nor is a start without an end, as the session may have ended in the middle of the call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Calls {
    have_ended: HashMap<u64, bool>,
}

impl Calls {
    /// Notes an event in the order of the indices. `Err` says what is wrong with it, and it is not noted.
    pub(crate) fn note(&mut self, event: CallEvent) -> Result<(), &'static str> {
        match self.have_ended.get_mut(&event.number) {
            None => {
                self.have_ended.insert(event.number, event.is_end);
                Ok(())
            }
            Some(has_ended) if event.is_end && !*has_ended => {
                *has_ended = true;
                Ok(())
            }
            Some(true) if event.is_end => Err("is the number of a call that has ended before"),
            Some(true) => Err("is the number of a call that has ended before it starts"),
            Some(false) => Err("is the number of a call that has started before"),
        }
    }

    /// [Notes](Self::note) an event that comes after those of `before`, without changing them.
    #[cfg(feature = "collector")]
    pub(crate) fn note_after(
        &mut self,
        before: &Self,
        event: CallEvent,
    ) -> Result<(), &'static str> {
        if let Some(has_ended) = before.have_ended.get(&event.number) {
            self.have_ended.entry(event.number).or_insert(*has_ended);
        }
        self.note(event)
    }

    /// How many calls have ended, and how many have not.
    #[cfg(feature = "sim")]
    pub(crate) fn counts(&self) -> (usize, usize) {
        let ended = self.have_ended.values().filter(|ended| **ended).count();
        (ended, self.have_ended.len() - ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    fn event(name: &str, data: &str) -> Option<CallEvent> {
        CallEvent::read(&format!(
            r#"{{"event":"GENERIC_EVENT","event_name":"{name}","event_data":{data}}}"#
        ))
    }

    #[test]
    fn an_event_of_a_call_is_told_by_its_name_and_has_its_number_in_its_metadata() {
        let data = r#"{"measurements":{},"metadata":{"method":"GET","call":7}}"#;
        for (name, is_end) in [
            ("tinkex.http.request.start", Some(false)),
            ("tinkex.http.request.stop", Some(true)),
            ("tinkex.http.request.exception", Some(true)),
            ("tinkex.http.request.stopped", None),
            ("x", None),
        ] {
            let expected = is_end.map(|is_end| CallEvent { number: 7, is_end });
            assert_eq!(event(name, data), expected);
        }
        for old in [
            "{}",
            r#"{"metadata":{}}"#,
            r#"{"metadata":[7]}"#,
            r#"{"call":7}"#,
            r#"{"metadata":{"call":"7"}}"#,
        ] {
            assert_eq!(event("tinkex.http.request.stop", old), None);
        }
    }

    #[test]
    fn a_call_has_one_start_and_then_one_end() {
        let (start, end) = (false, true);
        let note = |events: &[(u64, bool)]| {
            let mut calls = Calls::default();
            let mut events = events.iter();
            events.try_for_each(|&(number, is_end)| calls.note(CallEvent { number, is_end }))
        };
        assert!(note(&[(0, start), (1, start), (1, end), (0, end), (2, start)]).is_ok());
        assert!(note(&[(5, end), (6, end)]).is_ok(), "starts are not taken");
        assert!(note(&[(0, start), (0, start)]).is_err());
        assert!(note(&[(0, start), (0, end), (0, end)]).is_err());
        assert!(note(&[(0, end), (0, end)]).is_err());
        assert!(note(&[(0, end), (0, start)]).is_err());
        assert!(note(&[(0, start), (0, end), (0, start)]).is_err());
    }
}
