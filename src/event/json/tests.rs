//! Tests of the serializer: it writes what serde_json writes, and nothing that is not JSON.

use super::*;
use crate::event::raw;
use crate::event::writer::{EncodeError, encode_to_vec};
use alloc::collections::BTreeMap;
use alloc::{boxed::Box, format, rc::Rc, string::String, vec, vec::Vec};
use arbtest::arbitrary::{self, Unstructured};
use arbtest::arbtest;
use core::cell::RefCell;
use serde::ser::{
    Error as _, SerializeMap as _, SerializeSeq as _, SerializeStruct as _,
    SerializeStructVariant as _, SerializeTuple as _, SerializeTupleVariant as _,
};
use serde_json::{Value, json};
use std::panic;

/// What is written with at most this depth.
fn written(value: &(impl Serialize + ?Sized), depth: usize) -> Result<String, EncodeError> {
    let bytes = encode_to_vec(64 << 10, |out| {
        out.set_max_depth(depth);
        out.value(value)
    });
    bytes.map(|bytes| String::from_utf8(bytes).expect("UTF-8"))
}

fn refused(value: &(impl Serialize + ?Sized)) -> String {
    match written(value, 100) {
        Err(EncodeError::Unencodable(reason)) => reason.as_str().into(),
        other => panic!("{other:?}"),
    }
}

/// What a value may do in its `Serialize`, in turn or not.
#[derive(Debug)]
enum Chaos {
    Unit,
    Bool(bool),
    Signed(i64),
    Wide(i128),
    Float(f64),
    Single(f32),
    Text(String),
    Shown(String),
    Bytes(Vec<u8>),
    Wrapped(Box<Self>),
    Variant(Box<Self>),
    Raw(String),
    /// An array or an object, by a number for its kind.
    Compound(u8, Vec<Op>, End),
    Panic,
    Fail,
}

#[derive(Debug)]
enum Op {
    Key(Chaos),
    Value(Chaos),
    Both(Chaos, Chaos),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    /// Errors are passed on.
    Proper,
    /// Errors and panics are swallowed.
    Stubborn,
    /// It fails after its operations.
    Failed,
}

const BEHAVED: u8 = 12;

fn any_text(u: &mut Unstructured<'_>) -> arbitrary::Result<String> {
    let letters = [
        'a', 'é', '"', '\\', '\n', '\u{1}', '😀', '\u{7f}', '\u{2028}',
    ];
    let letter = |u: &mut Unstructured<'_>| u.choose(&letters).copied();
    (0..u.int_in_range(0..=4)?).map(|_| letter(u)).collect()
}

/// A value that nests no deeper than this; one that keeps serde's contract, if it should.
fn any(u: &mut Unstructured<'_>, depth: usize, is_behaved: bool) -> arbitrary::Result<Chaos> {
    let most = if depth == 0 {
        8
    } else if is_behaved {
        BEHAVED
    } else {
        BEHAVED + 5
    };
    Ok(match u.int_in_range(0..=most)? {
        0 => Chaos::Unit,
        1 => Chaos::Bool(u.arbitrary()?),
        2 => Chaos::Signed(u.arbitrary()?),
        3 => Chaos::Wide(u.arbitrary()?),
        4 => Chaos::Float(u.arbitrary()?),
        5 => Chaos::Single(u.arbitrary()?),
        6 => Chaos::Text(any_text(u)?),
        7 => Chaos::Shown(any_text(u)?),
        8 => Chaos::Bytes(u.arbitrary()?),
        9 => Chaos::Wrapped(Box::new(any(u, depth - 1, is_behaved)?)),
        10 => Chaos::Variant(Box::new(any(u, depth - 1, is_behaved)?)),
        13 => Chaos::Panic,
        14 => Chaos::Fail,
        15 => Chaos::Raw(String::from(*u.choose(&RAWS)?)),
        _ => {
            let kind = u.int_in_range(0..=9)?;
            let end = match is_behaved {
                true => End::Proper,
                false => *u.choose(&[End::Proper, End::Stubborn, End::Failed])?,
            };
            let op = |u: &mut Unstructured<'_>| {
                Ok(match u.int_in_range(0..=5)? {
                    0 if !is_behaved => Op::Key(any(u, depth - 1, false)?),
                    1 if !is_behaved => Op::Value(any(u, depth - 1, false)?),
                    _ if is_behaved => {
                        Op::Both(Chaos::Text(any_text(u)?), any(u, depth - 1, true)?)
                    }
                    _ => Op::Both(any(u, 1, false)?, any(u, depth - 1, false)?),
                })
            };
            let ops = (0..u.int_in_range(0..=4)?).map(|_| op(u));
            Chaos::Compound(kind, ops.collect::<Result<_, _>>()?, end)
        }
    })
}

/// Raw JSON that is, and that is not.
const RAWS: [&str; 12] = [
    "1e999",
    "-0",
    "[[[[]]]]",
    "{\"a\":{}}",
    "\"\\ud800\"",
    "{\"a\":1,}",
    "[1",
    "nul",
    "01",
    " [1] ",
    "",
    "1 2",
];

/// Runs an operation; an error or panic of a stubborn value's is forgotten.
fn attempt<E>(end: End, work: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
    if end != End::Stubborn {
        return work();
    }
    let _ = panic::catch_unwind(panic::AssertUnwindSafe(work));
    Ok(())
}

impl Serialize for Chaos {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Unit => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Signed(value) => serializer.serialize_i64(*value),
            Self::Wide(value) => serializer.serialize_i128(*value),
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::Single(value) => serializer.serialize_f32(*value),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Shown(text) => serializer.collect_str(text),
            Self::Bytes(bytes) => serializer.serialize_bytes(bytes),
            Self::Wrapped(value) => serializer.serialize_newtype_struct("W", &Some(&**value)),
            Self::Variant(value) => serializer.serialize_newtype_variant("E", 0, "V", &**value),
            Self::Raw(json) => {
                let mut raw = serializer.serialize_struct(RAW, 1)?;
                raw.serialize_field(RAW, json)?;
                raw.end()
            }
            Self::Panic => panic::resume_unwind(Box::new(())),
            Self::Fail => Err(S::Error::custom("it fails")),
            Self::Compound(kind, ops, end) => {
                macro_rules! run {
                    ($compound:expr, |$out:ident, $op:ident| $each:expr) => {{
                        let mut $out = $compound?;
                        for $op in ops {
                            attempt(*end, || $each)?;
                        }
                        if *end == End::Failed {
                            core::mem::forget($out);
                            return Err(S::Error::custom("it fails in the end"));
                        }
                        $out.end()
                    }};
                }
                // An exact length unless the value is stubborn, which says that there is nothing.
                let len = if *end == End::Stubborn { 0 } else { ops.len() };
                match kind {
                    0 => run!(serializer.serialize_seq(Some(len)), |out, op| out
                        .serialize_element(op.value())),
                    1 => run!(serializer.serialize_seq(None), |out, op| out
                        .serialize_element(op.value())),
                    2 => run!(serializer.serialize_tuple(len), |out, op| out
                        .serialize_element(op.value())),
                    3 => run!(
                        serializer.serialize_tuple_variant("E", 1, "T", len),
                        |out, op| out.serialize_field(op.value())
                    ),
                    4 => run!(serializer.serialize_struct("S", len), |out, op| out
                        .serialize_field("field", op.value())),
                    5 => run!(
                        serializer.serialize_struct_variant("E", 2, "\"S\"", len),
                        |out, op| out.serialize_field("a\nb", op.value())
                    ),
                    6 => run!(serializer.serialize_map(Some(len)), |out, op| match op {
                        Op::Key(key) => out.serialize_key(key),
                        Op::Value(value) => out.serialize_value(value),
                        Op::Both(key, value) => out.serialize_entry(key, value),
                    }),
                    _ => run!(serializer.serialize_map(None), |out, op| match op {
                        Op::Key(key) => out.serialize_key(key),
                        Op::Value(value) => out.serialize_value(value),
                        Op::Both(key, value) => out.serialize_entry(key, value),
                    }),
                }
            }
        }
    }
}

impl Op {
    fn value(&self) -> &Chaos {
        match self {
            Self::Key(value) | Self::Value(value) | Self::Both(_, value) => value,
        }
    }
}

#[test]
fn what_keeps_the_contract_is_written_as_serde_json_writes_it() {
    arbtest(|u| {
        let value = any(u, 5, true)?;
        let expected = serde_json::to_string(&value).expect("encodable");
        assert_eq!(written(&value, 100), Ok(expected), "{value:?}");
        Ok(())
    })
    .size_max(4_000)
    .budget_ms(500);
}

/// The deepest nesting of what serde_json reads.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(array) => array.iter().map(depth).max().unwrap_or(0) + 1,
        Value::Object(object) => object.values().map(depth).max().unwrap_or(0) + 1,
        _ => 0,
    }
}

#[test]
fn whatever_a_serialize_does_the_result_is_well_formed_or_an_error() {
    let (mut accepted, mut refused) = (0, 0);
    arbtest(|u| {
        let value = any(u, 6, false)?;
        let most = u.int_in_range(1..=7)?;
        match written(&value, most) {
            Ok(json) => {
                accepted += 1;
                let read: Value = serde_json::from_str(&json).unwrap_or_else(|error| {
                    panic!("{error}: {json} of {value:?}");
                });
                let checked = raw::check(&json).unwrap_or_else(|error| {
                    panic!("{error}: {json} of {value:?}");
                });
                // Of a key given twice, serde_json keeps one value.
                assert!(checked.depth >= depth(&read), "{json}");
                assert!(checked.depth <= most, "{json}");
            }
            Err(EncodeError::Unencodable(reason)) => {
                refused += 1;
                assert!(!reason.as_str().is_empty());
            }
            Err(EncodeError::TooLarge) => {}
        }
        Ok(())
    })
    .size_max(4_000)
    .budget_ms(1_000);
    assert!(accepted > 100 && refused > 100, "{accepted} {refused}");
}

/// A map written by a closure over the calls that serde allows.
struct Rude(fn(&mut dyn Calls) -> bool);

trait Calls {
    fn key(&mut self, key: &str) -> bool;
    fn value(&mut self, value: &Chaos) -> bool;
}

impl<M: serde::ser::SerializeMap> Calls for M {
    fn key(&mut self, key: &str) -> bool {
        self.serialize_key(key).is_ok()
    }

    fn value(&mut self, value: &Chaos) -> bool {
        self.serialize_value(value).is_ok()
    }
}

impl Serialize for Rude {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        (self.0)(&mut map);
        map.end()
    }
}

#[test]
fn a_call_out_of_turn_makes_a_value_unencodable() {
    let contract = JsonError::BROKEN.to_string_short();
    let rude: [fn(&mut dyn Calls) -> bool; 5] = [
        |map| map.key("key without a value"),
        |map| map.value(&Chaos::Unit),
        |map| map.key("a") && map.key("b") && map.value(&Chaos::Unit),
        |map| map.key("a") && map.value(&Chaos::Unit) && map.value(&Chaos::Unit),
        // The error of a value is swallowed, and replaced.
        |map| map.key("x") && (map.value(&Chaos::Fail) || map.key("x")) && map.value(&Chaos::Unit),
    ];
    for rude in rude {
        assert!(refused(&Rude(rude)).starts_with(&contract));
        assert!(refused(&[Rude(rude)]).starts_with(&contract));
    }
}

impl JsonError {
    fn to_string_short(&self) -> String {
        format!("{self}").chars().take(40).collect()
    }
}

#[test]
fn a_length_of_zero_is_only_a_hint() {
    struct Zero;
    impl Serialize for Zero {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut fields = serializer.serialize_struct("W", 0)?;
            fields.serialize_field("a", &1)?;
            fields.end()
        }
    }
    assert_eq!(written(&[Zero], 100), Ok(String::from(r#"[{"a":1}]"#)));
}

#[test]
fn a_value_nests_as_deep_as_it_may_and_no_deeper() {
    let mut value = json!({});
    for _ in 0..9 {
        value = json!({"a": value});
    }
    assert!(written(&value, 10).is_ok());
    assert!(written(&value, 9).is_err());
    // An array becomes the value of an object.
    let array = json!([[]]);
    assert!(written(&array, 3).is_ok());
    assert!(written(&array, 2).is_err());
    let raw = serde_json::value::RawValue::from_string("[[]]".into()).expect("JSON");
    assert!(written(&raw, 3).is_ok());
    assert!(written(&raw, 2).is_err());
    assert!(written(&json!({"a": raw}), 3).is_ok());
}

#[test]
fn raw_json_that_some_reader_would_refuse_is_refused() {
    for json in ["1e999", "-1e400", "\"\\ud800\"", "{\"a\":\"\\udc00x\"}"] {
        let raw = serde_json::value::RawValue::from_string(json.into()).expect("it takes them");
        let reason = refused(&BTreeMap::from([("raw", raw)]));
        assert!(
            reason.contains("surrogate") || reason.contains("64-bit"),
            "{reason}"
        );
    }
    // A struct that only pretends to be raw JSON.
    for json in ["{\"a\"", "nothing", "1}{", "", "\u{feff}1"] {
        assert!(refused(&Chaos::Raw(json.into())).contains("not valid JSON"));
    }
    let fine = "{\"a\": [1e308, -0.0, 18446744073709551616, \"\\ud83d\\ude00\"]}";
    let raw = serde_json::value::RawValue::from_string(fine.into()).expect("JSON");
    assert_eq!(written(&raw, 100), Ok(fine.into()));
}

#[derive(Clone)]
struct Looped(Rc<RefCell<Vec<Looped>>>);

impl Serialize for Looped {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.borrow().serialize(serializer)
    }
}

enum Wrapper {
    Newtype(RefCell<Option<Rc<Self>>>),
    Optional(RefCell<Option<Rc<Self>>>),
}

impl Serialize for Wrapper {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Newtype(inner) => match &*inner.borrow() {
                Some(inner) => serializer.serialize_newtype_struct("N", &**inner),
                None => serializer.serialize_unit(),
            },
            Self::Optional(inner) => match &*inner.borrow() {
                Some(inner) => serializer.serialize_some(&**inner),
                None => serializer.serialize_unit(),
            },
        }
    }
}

#[test]
fn a_value_that_contains_itself_never_overflows_the_stack() {
    let small = std::thread::Builder::new().stack_size(2 << 20);
    let thread = small.spawn(|| {
        let looped = Looped(Rc::default());
        looped.0.borrow_mut().push(looped.clone());
        assert!(written(&looped, 100).is_err());
        looped.0.borrow_mut().clear();
        for make in [Wrapper::Newtype, Wrapper::Optional] {
            let wrapper = Rc::new(make(RefCell::new(None)));
            let (Wrapper::Newtype(inner) | Wrapper::Optional(inner)) = &*wrapper;
            *inner.borrow_mut() = Some(Rc::clone(&wrapper));
            assert!(written(&*wrapper, 100).is_err());
            inner.borrow_mut().take();
        }
        let mut deep = vec![];
        for _ in 0..100_000 {
            deep = vec![Looped(Rc::new(RefCell::new(deep)))];
        }
        assert!(written(&deep, 100).is_err());
        // Its destructor would recurse too deeply.
        core::mem::forget(deep);
    });
    thread.expect("a thread").join().expect("no panic");
}

#[test]
fn a_text_that_contains_itself_is_too_deep_and_one_without_end_too_large() {
    struct Recursing;
    #[expect(clippy::recursive_format_impl, reason = "it is what must not harm")]
    impl fmt::Display for Recursing {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "({self})")
        }
    }
    struct Endless;
    impl fmt::Display for Endless {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            loop {
                f.write_str("again ")?;
            }
        }
    }
    struct Shown<D>(D);
    impl<D: fmt::Display> Serialize for Shown<D> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_str(&self.0)
        }
    }
    assert!(refused(&Shown(Recursing)).contains("too deep"));
    assert_eq!(written(&Shown(Endless), 100), Err(EncodeError::TooLarge));
}
