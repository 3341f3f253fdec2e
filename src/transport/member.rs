//! Members of an event's JSON, found without parsing what follows them; and the indices of a batch's events.

use super::{Batch, Objects};

/// The value of a member of an object, as it is written: its own members only, not those of values in it.
pub(crate) fn member<'a>(object: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let (mut depth, mut at) = (0_usize, 0);
    let mut may_be_key = false;
    while let Some(&byte) = object.get(at) {
        match byte {
            b'"' => {
                let end = at + 1 + string_len(object.get(at + 1..)?)?;
                let is_it = depth == 1 && may_be_key && object.get(at + 1..end)? == name.as_bytes();
                if is_it {
                    let value = object.get(end + 1..)?.trim_ascii_start();
                    let value = value.strip_prefix(b":")?.trim_ascii_start();
                    return value.get(..value_len(value)?);
                }
                may_be_key = false;
                at = end;
            }
            b'{' => {
                depth += 1;
                may_be_key = true;
            }
            b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            b',' => may_be_key = true,
            _ => {}
        }
        at += 1;
    }
    None
}

/// The length of a string's contents, which begin here.
fn string_len(text: &[u8]) -> Option<usize> {
    let mut escaped = false;
    text.iter().position(|&byte| {
        let is_end = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        is_end
    })
}

/// The length of the value that begins here.
fn value_len(text: &[u8]) -> Option<usize> {
    let (mut depth, mut at) = (0_usize, 0);
    loop {
        match text.get(at)? {
            b'"' => at += 1 + string_len(text.get(at + 1..)?)?,
            b'{' | b'[' => depth += 1,
            b'}' | b']' | b',' | b' ' | b'\t' | b'\n' | b'\r' if depth == 0 => return Some(at),
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
}

/// The indices of a batch's events: see [`Batch::indices`].
struct Indices<'a> {
    events: Objects<'a>,
    /// Of the next event, if it does not say.
    next: u64,
}

impl Iterator for Indices<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let event = self.events.next()?;
        let said = member(event, "event_session_index");
        let said = said.and_then(|digits| core::str::from_utf8(digits).ok()?.parse().ok());
        let index = said.unwrap_or(self.next);
        self.next = index.saturating_add(1);
        Some(index)
    }
}

impl Batch<'_> {
    /// The `event_session_index` of each event, in order. They ascend, and not always in steps of one: an index whose
    /// event was refused or dropped is missing, so that the k-th event's is not [`first_index`](Self::first_index) + k.
    ///
    /// They are read from the [body](Self::body), and so are none once it has been taken. An event that has no index, as
    /// in a [`SampleBatch`](super::SampleBatch), counts as one behind the event before it.
    pub fn indices(&self) -> impl Iterator<Item = u64> {
        let (start, end) = self.head.list;
        Indices {
            events: Objects(self.body().get(start..end).unwrap_or_default()),
            next: self.head.first_index,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_found_in_its_own_object_only() {
        let object =
            br#"{"a":"b","b":{"c":1,"x":"}"},"c":[{"d":2}],"d" : -3.5e2 ,"e":"q\"\\","f":null}"#;
        let found = |name| member(object, name).map(|value| core::str::from_utf8(value).unwrap());
        assert_eq!(found("a"), Some("\"b\""));
        assert_eq!(found("b"), Some(r#"{"c":1,"x":"}"}"#));
        assert_eq!(found("c"), Some(r#"[{"d":2}]"#));
        assert_eq!(found("d"), Some("-3.5e2"));
        assert_eq!(found("e"), Some(r#""q\"\\""#));
        assert_eq!(found("f"), Some("null"));
        for absent in ["x", "q", ""] {
            assert_eq!(found(absent), None);
        }
    }

    #[test]
    fn what_is_cut_off_has_no_members_and_does_not_panic() {
        let object = br#"{"a":"b","b":{"c":"\\"},"d":[1,2]}"#;
        for end in 0..object.len() {
            for name in ["a", "b", "c", "d", "e"] {
                let found = member(&object[..end], name);
                assert!(found.is_none_or(|value| member(object, name) == Some(value)));
            }
        }
        assert_eq!(member(b"}}{", "a"), None);
    }

    #[cfg(has_arc)]
    #[test]
    fn the_indices_of_a_batch_are_those_of_its_events_across_gaps() {
        use crate::transport::SampleBatch;
        use alloc::vec::Vec;

        let events = [
            r#"{"event_id":"a","event_session_index":7,"event_data":{"event_session_index":1}}"#,
            r#"{"event_data":{"event_session_index":2},"event_session_index":12}"#,
            r#"{"event_data":["event_session_index",3]}"#,
            r#"{"event_session_index":18446744073709551615}"#,
            r#"{"event_session_index":"4"}"#,
        ];
        let mut sample = SampleBatch::new("s", events).first_index(7);
        let mut batch = sample.batch();
        let indices: Vec<_> = batch.indices().collect();
        assert_eq!(indices, [7, 12, 13, u64::MAX, u64::MAX]);
        drop(batch.take_body());
        assert_eq!(batch.indices().count(), 0);
    }
}
