//! Bounds the memory that the result of a large response takes: no more than the response itself.

use super::api::MAX_SMALL_BYTES;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::Cell;
use core::fmt;
use core::marker::PhantomData;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// What every result may take, whatever the size of its response: short numbers take more memory than text.
const MIN_BUDGET: usize = 4 << 20;
/// The longest text in a large response, and the deepest nesting.
const MAX_TEXT: usize = 64 << 10;
const MAX_DEPTH: usize = 128;
/// What an allocation takes besides its contents.
const ALLOCATION: usize = 32;

std::thread_local! {
    /// What the result that is being decoded may still take; `None` where nothing is bounded.
    static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
    static IS_EXCEEDED: Cell<bool> = const { Cell::new(false) };
}

/// Checks a large response before it is decoded: what is nested deeply, or is one long text, would be copied.
pub(super) fn check(body: &[u8]) -> Result<(), &'static str> {
    if body.len() < MAX_SMALL_BYTES {
        return Ok(());
    }
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(byte) = body.get(at) {
        at += 1;
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => {
                let len = text_len(&body[at..]);
                if len > MAX_TEXT {
                    return Err("it is larger than 1 MiB, and has a text longer than 64 KiB");
                }
                at += len + 1;
            }
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err("it is larger than 1 MiB, and nested deeper than 128");
        }
    }
    Ok(())
}

/// The length of a text up to its closing quote. Looks no further than it may be long.
fn text_len(body: &[u8]) -> usize {
    let mut at = 0;
    while at <= MAX_TEXT {
        match body.get(at) {
            None | Some(b'"') => break,
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
        }
    }
    at
}

/// Restores the budget of the result around this one.
struct Restored(Option<usize>);

impl Drop for Restored {
    fn drop(&mut self) {
        LEFT.set(self.0);
    }
}

/// Runs `decode` on a response of `len` bytes, whose result may take nearly as many: a thirty-second is left for what is
/// not counted. Also returns whether it would have taken more.
pub(super) fn bounded<T>(len: usize, decode: impl FnOnce() -> T) -> (T, bool) {
    let _restored = Restored(LEFT.replace(Some((len - len / 32).max(MIN_BUDGET))));
    IS_EXCEEDED.set(false);
    let decoded = decode();
    (decoded, IS_EXCEEDED.get())
}

/// The memory for a result is used up.
#[derive(Debug)]
pub(super) struct Exceeded;

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the result takes more memory than the response")
    }
}

/// Takes `bytes` from the budget, if there is one.
pub(super) fn take(bytes: usize) -> Result<(), Exceeded> {
    let Some(left) = LEFT.get() else {
        return Ok(());
    };
    match left.checked_sub(bytes) {
        Some(left) => {
            LEFT.set(Some(left));
            Ok(())
        }
        None => {
            IS_EXCEEDED.set(true);
            Err(Exceeded)
        }
    }
}

/// Gives `bytes` back.
pub(super) fn give_back(bytes: usize) {
    LEFT.set(LEFT.get().map(|left| left.saturating_add(bytes)));
}

/// Appends, after making room by a quarter: doubling would leave up to half of it unused.
pub(super) fn push<T>(items: &mut Vec<T>, item: T) -> Result<(), Exceeded> {
    if items.len() == items.capacity() {
        let size = size_of::<T>().max(1);
        if items.is_empty() {
            take(ALLOCATION)?;
        }
        let wanted = (items.len() / 4).max(4);
        let affordable = LEFT.get().map_or(wanted, |left| (left / size).max(1));
        let room = wanted.min(affordable);
        take(room * size)?;
        items.reserve_exact(room);
    }
    items.push(item);
    Ok(())
}

/// Gives back the room that is left.
pub(super) fn shrink<T>(items: &mut Vec<T>) {
    let before = items.capacity();
    items.shrink_to_fit();
    give_back((before - items.capacity()) * size_of::<T>());
}

/// What can be decoded within a budget.
pub(super) trait Decode<'de>: Sized {
    fn decode<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
}

/// For `deserialize_with`.
pub(super) fn decode<'de, T: Decode<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    T::decode(deserializer)
}

/// Values whose memory is counted by what holds them, or that count it themselves.
macro_rules! decode_as_usual {
    ($($type:ty),* $(,)?) => { $(
        impl<'de> Decode<'de> for $type {
            fn decode<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                serde::Deserialize::deserialize(deserializer)
            }
        }
    )* };
}

decode_as_usual!(u32, f32, f64, usize, (u32, f32));
decode_as_usual!(super::output::Sequence, super::tensor::TensorData);

struct Seed<T>(PhantomData<T>);

impl<'de, T: Decode<'de>> DeserializeSeed<'de> for Seed<T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        T::decode(deserializer)
    }
}

impl<'de, T: Decode<'de>> Decode<'de> for Vec<T> {
    fn decode<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);

        impl<'de, T: Decode<'de>> Visitor<'de> for Reader<T> {
            type Value = Vec<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element_seed(Seed(PhantomData))? {
                    push(&mut items, item).map_err(A::Error::custom)?;
                }
                shrink(&mut items);
                Ok(items)
            }
        }

        deserializer.deserialize_seq(Reader(PhantomData))
    }
}

impl<'de, T: Decode<'de>> Decode<'de> for Option<T> {
    fn decode<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);

        impl<'de, T: Decode<'de>> Visitor<'de> for Reader<T> {
            type Value = Option<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value or null")
            }

            fn visit_none<E>(self) -> Result<Option<T>, E> {
                Ok(None)
            }

            fn visit_unit<E>(self) -> Result<Option<T>, E> {
                Ok(None)
            }

            fn visit_some<D: Deserializer<'de>>(self, some: D) -> Result<Option<T>, D::Error> {
                T::decode(some).map(Some)
            }
        }

        deserializer.deserialize_option(Reader(PhantomData))
    }
}

impl<'de, T: Decode<'de>> Decode<'de> for BTreeMap<String, T> {
    fn decode<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);

        impl<'de, T: Decode<'de>> Visitor<'de> for Reader<T> {
            type Value = BTreeMap<String, T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    // A node has room for eleven entries, and at least five; the first one is made whole.
                    let entry = size_of::<(String, T)>();
                    let node = if entries.is_empty() { 11 * entry } else { 0 };
                    take(node + 2 * entry + name.len() + ALLOCATION).map_err(A::Error::custom)?;
                    let value = map.next_value_seed(Seed(PhantomData))?;
                    entries.insert(name, value);
                }
                Ok(entries)
            }
        }

        deserializer.deserialize_map(Reader(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::client::output::{ForwardBackward, Sampled};
    use alloc::format;

    /// A response of about `len` bytes.
    fn repeated(before: &str, piece: &str, after: &str, len: usize) -> String {
        let pieces = piece.repeat(len / piece.len());
        format!("{before}{}{after}", pieces.trim_end_matches(','))
    }

    #[test]
    fn a_large_response_of_deep_nesting_or_long_text_is_refused_before_it_is_decoded() {
        let len = MAX_SMALL_BYTES + 1;
        for (body, problem) in [
            ("[".repeat(len), Some("deeper than 128")),
            ("{\"a\":".repeat(len / 5 + 1), Some("deeper than 128")),
            (repeated("[\"", "a", "\"]", len), Some("longer than 64 KiB")),
            (
                repeated("[\"", "\\n", "\"]", len),
                Some("longer than 64 KiB"),
            ),
            (repeated("[\"", "\\\"", "", len), Some("longer than 64 KiB")),
            (repeated("[", "\"[[[[\\\"[[[[\",", "]", len), None),
            (repeated("[", "[],", "]", len), None),
            ("[".repeat(1_000), None),
        ] {
            let refused = check(body.as_bytes()).err();
            let is_expected = match (refused, problem) {
                (Some(reason), Some(problem)) => reason.contains(problem),
                (reason, problem) => reason.is_none() && problem.is_none(),
            };
            assert!(is_expected, "{refused:?} for {}", &body[..20]);
        }
    }

    #[test]
    fn a_result_that_would_take_more_memory_than_its_response_is_refused() {
        let len = 2 * MIN_BUDGET;
        let sampled = |before: &str, piece: &str, after: &str| {
            let body = repeated(before, piece, after, len);
            let (result, is_exceeded) =
                bounded(body.len(), || serde_json::from_str::<Sampled>(&body));
            assert_eq!(result.is_err(), is_exceeded, "{piece}");
            is_exceeded
        };
        assert!(sampled(r#"{"sequences":["#, r#"{"tokens":[]},"#, "]}"));
        assert!(sampled(r#"{"sequences":[{"tokens":["#, "0,", "]}]}"));
        assert!(!sampled(r#"{"sequences":[{"tokens":["#, "128000,", "]}]}"));
        let logprobs = r#"{"sequences":[{"tokens":[],"logprobs":["#;
        assert!(!sampled(logprobs, "-0.5,", "]}]}"));
        assert!(sampled(r#"{"prompt_logprobs":["#, "0,", "]}"));
        assert!(sampled(r#"{"topk_prompt_logprobs":["#, "[],", "]}"));
        assert!(sampled(r#"{"topk_prompt_logprobs":["#, "[[1,0]],", "]}"));

        let passed = |before: &str, piece: &str, after: &str| {
            let body = repeated(before, piece, after, len);
            bounded(body.len(), || {
                serde_json::from_str::<ForwardBackward>(&body)
            })
        };
        let (result, is_exceeded) = passed(r#"{"loss_fn_outputs":["#, "{},", "]}");
        assert!(result.is_err() && is_exceeded);
        let tensor = r#"{"loss_fn_outputs":[{"a":{"dtype":"int64","data":["#;
        let (result, is_exceeded) = passed(tensor, "0,", "]}}]}");
        assert!(result.is_err() && is_exceeded);
        let tensor = r#"{"loss_fn_outputs":[{"a":{"dtype":"float32","data":["#;
        let (result, is_exceeded) = passed(tensor, "-0.5,", "]}}]}");
        assert!(result.is_ok() && !is_exceeded);
    }

    #[test]
    fn a_small_result_may_take_more_than_its_response() {
        let body = repeated(r#"{"topk_prompt_logprobs":["#, "[],", "]}", 1 << 10);
        let (result, is_exceeded) = bounded(body.len(), || serde_json::from_str::<Sampled>(&body));
        assert!(result.is_ok() && !is_exceeded);
        // Nothing is bounded outside.
        assert_eq!(LEFT.get(), None);
        assert!(serde_json::from_str::<Sampled>(&body).is_ok());
    }
}
