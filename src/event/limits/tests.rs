//! Tests of the limits.

use super::*;
use alloc::{boxed::Box, format, string::String, vec, vec::Vec};
use arbtest::arbitrary::{self, Unstructured};
use arbtest::arbtest;
use serde::ser::{SerializeStruct as _, SerializeStructVariant as _, SerializeTupleVariant as _};
use serde_json::{Map, Value, json};

fn limits(depth: usize, string_bytes: usize, fields: usize) -> DataLimits {
    DataLimits {
        depth,
        string_bytes,
        fields,
    }
}

/// The JSON written within the limits, and whether something was omitted.
fn limited(value: &(impl Serialize + ?Sized), limits: DataLimits) -> (Value, bool) {
    let is_cut = Cell::new(false);
    let json = serde_json::to_string(&Limited::new(value, &limits, &is_cut));
    let value = serde_json::from_str(&json.expect("encodable")).expect("valid");
    (value, is_cut.get())
}

enum Shape<'a> {
    Unit,
    New(&'a str),
    Tuple(u8, Vec<u8>),
    Struct { a: u8, b: Vec<u8> },
}

/// Written by hand, like every `Serialize` in these tests: serde's derive would add five crates to a first build.
impl Serialize for Shape<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Unit => serializer.serialize_unit_variant("Shape", 0, "Unit"),
            Self::New(text) => serializer.serialize_newtype_variant("Shape", 1, "New", text),
            Self::Tuple(first, second) => {
                let mut tuple = serializer.serialize_tuple_variant("Shape", 2, "Tuple", 2)?;
                tuple.serialize_field(first)?;
                tuple.serialize_field(second)?;
                tuple.end()
            }
            Self::Struct { a, b } => {
                let mut fields = serializer.serialize_struct_variant("Shape", 3, "Struct", 2)?;
                fields.serialize_field("a", a)?;
                fields.serialize_field("b", b)?;
                fields.end()
            }
        }
    }
}

struct Everything<'a> {
    option: Option<char>,
    nothing: Option<u8>,
    bytes: &'a [u8],
    tuple: (u8, &'a str),
    shapes: [Shape<'a>; 4],
    large: u128,
    float: f32,
}

impl Serialize for Everything<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Everything", 7)?;
        fields.serialize_field("option", &self.option)?;
        fields.serialize_field("nothing", &self.nothing)?;
        fields.serialize_field("bytes", self.bytes)?;
        fields.serialize_field("tuple", &self.tuple)?;
        fields.serialize_field("shapes", &self.shapes)?;
        fields.serialize_field("large", &self.large)?;
        fields.serialize_field("float", &self.float)?;
        fields.end()
    }
}

const EVERYTHING: Everything<'_> = Everything {
    option: Some('x'),
    nothing: None,
    bytes: &[1, 2],
    tuple: (1, "two"),
    shapes: [
        Shape::Unit,
        Shape::New("new"),
        Shape::Tuple(1, Vec::new()),
        Shape::Struct {
            a: 1,
            b: Vec::new(),
        },
    ],
    large: u128::MAX,
    float: 0.1,
};

#[test]
fn data_within_the_limits_is_written_unchanged() {
    let is_cut = Cell::new(false);
    let limits = limits(5, 32, 7);
    let text = serde_json::to_string(&Limited::new(&EVERYTHING, &limits, &is_cut));
    assert_eq!(text.ok(), serde_json::to_string(&EVERYTHING).ok());
    assert!(!is_cut.get());
}

#[test]
fn data_nested_too_deeply_becomes_a_mark() {
    let data = json!({"a": {"b": {"c": 1}}, "d": [[], 2], "e": []});
    let expected = json!({"a": {"b": MARK}, "d": [MARK, 2], "e": []});
    assert_eq!(limited(&data, limits(2, 32, 9)), (expected, true));
    let shapes = [Shape::Tuple(1, vec![2]), Shape::New("x")];
    let expected = json!([{"Tuple": MARK}, {"New": "x"}]);
    assert_eq!(limited(&shapes, limits(3, 32, 9)), (expected, true));
    let shape = [Shape::Struct { a: 1, b: vec![2] }];
    let expected = json!([{"Struct": {"a": 1, "b": MARK}}]);
    assert_eq!(limited(&shape, limits(4, 32, 9)), (expected, true));
    assert_eq!(limited(&shape, limits(2, 32, 9)), (json!([MARK]), true));
}

#[test]
fn a_value_that_nests_forever_is_not_followed() {
    struct Deep;
    impl Serialize for Deep {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut map = serializer.serialize_map(Some(1))?;
            map.serialize_entry("deeper", &[Self])?;
            map.end()
        }
    }
    let (value, is_cut) = limited(&Deep, limits(5, 32, 9));
    let expected = json!({"deeper": [{"deeper": [{"deeper": MARK}]}]});
    assert_eq!((value, is_cut), (expected, true));
    let mut value = json!(1);
    for _ in 0..100_000 {
        value = Value::Array(vec![value]);
    }
    assert_eq!(limited(&value, limits(3, 32, 9)), (json!([[MARK]]), true));
    // Its destructor would recurse too deeply.
    core::mem::forget(value);
}

#[test]
fn long_texts_are_cut_at_a_character_boundary_and_short_ones_stay_whole() {
    for text in ["x".repeat(40), "é".repeat(20), "😀".repeat(10)] {
        let (whole, is_cut) = limited(&text, limits(1, 40, 1));
        assert_eq!((whole, is_cut), (json!(text), false));
        for limit in 32..40 {
            // As a `str`, and through `Display`.
            let displayed = shown(&text);
            for (cut, is_cut) in [
                limited(&text, limits(1, limit, 1)),
                limited(&displayed, limits(1, limit, 1)),
            ] {
                let cut = String::from(cut.as_str().expect("a text"));
                let kept = cut.strip_suffix(MARK).expect("a mark");
                assert!(text.starts_with(kept) && cut.len() <= limit && is_cut);
                assert!(cut.len() + 4 > limit);
            }
        }
    }
}

fn shown<D: fmt::Display>(text: D) -> impl Serialize {
    struct Shown<D>(D);
    impl<D: fmt::Display> Serialize for Shown<D> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_str(&self.0)
        }
    }
    Shown(text)
}

#[test]
fn fields_over_the_limit_are_replaced_by_their_number() {
    let (value, is_cut) = limited(&[1, 2, 3, 4], limits(2, 32, 2));
    assert_eq!((value, is_cut), (json!([1, 2, "… (2 more)"]), true));
    let (value, is_cut) = limited(&json!({"a": 1, "b": 2, "c": 3}), limits(1, 32, 1));
    assert_eq!((value, is_cut), (json!({"a": 1, (MARK): 2}), true));
    let (value, _) = limited(&EVERYTHING, limits(9, 32, 3));
    let expected = json!({"option": "x", "nothing": null, "bytes": [1, 2], (MARK): 4});
    assert_eq!(value, expected);
    let variant = Shape::Struct {
        a: 1,
        b: vec![1, 2, 3],
    };
    let expected = json!({"Struct": {"a": 1, (MARK): 1}});
    assert_eq!(limited(&variant, limits(9, 32, 1)), (expected, true));
}

#[test]
fn long_keys_are_cut_and_stay_distinct() {
    let key = |last: char| format!("{}{last}", "k".repeat(50));
    let data: Map<_, _> = [(key('a'), json!(1)), (key('b'), json!(2))]
        .into_iter()
        .collect();
    let (value, is_cut) = limited(&data, limits(1, 32, 9));
    let keys: Vec<_> = value.as_object().expect("an object").keys().collect();
    assert!(is_cut && keys.len() == 2 && keys.iter().all(|key| key.len() <= 32));
}

#[test]
fn the_limits_apply_to_raw_json_too() {
    let raw = |text: String| serde_json::value::RawValue::from_string(text).expect("JSON");
    let data = json!({"deep": [[1]], "n": 1.5});
    let expected = json!({"deep": MARK, "n": 1.5});
    assert_eq!(
        limited(&raw(format!("{data}")), limits(1, 32, 9)),
        (expected, true)
    );
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let deep: Box<serde_json::value::RawValue> = raw(deep);
    assert_eq!(limited(&deep, limits(3, 32, 9)), (json!([[MARK]]), true));
    let numbers = raw("[-0.0,340282366920938463463374607431768211455,1E2]".into());
    let is_cut = Cell::new(false);
    let limits = limits(3, 32, 9);
    let text = serde_json::to_string(&Limited::new(&numbers, &limits, &is_cut));
    assert_eq!(text.ok().as_deref(), Some(numbers.get()));
}

#[test]
fn wrappers_that_write_nothing_are_counted() {
    struct Chain(u32);
    impl Serialize for Chain {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            match self.0 {
                0 => serializer.serialize_str("end"),
                n if n % 2 == 0 => serializer.serialize_some(&Self(n - 1)),
                n => serializer.serialize_newtype_struct("N", &Self(n - 1)),
            }
        }
    }
    assert_eq!(
        limited(&Chain(256), limits(4, 32, 9)),
        (json!("end"), false)
    );
    assert_eq!(limited(&Chain(257), limits(4, 32, 9)), (json!(MARK), true));
    assert_eq!(
        limited(&Chain(u32::MAX), limits(99, 32, 9)),
        (json!(MARK), true)
    );
}

fn any_text(u: &mut Unstructured<'_>, letters: &[char], most: usize) -> arbitrary::Result<String> {
    let letter = |u: &mut Unstructured<'_>| u.choose(letters).copied();
    (0..u.int_in_range(0..=most)?).map(|_| letter(u)).collect()
}

/// A value that nests no deeper than this.
fn any_json(u: &mut Unstructured<'_>, depth: usize) -> arbitrary::Result<Value> {
    Ok(match u.int_in_range(0..=if depth == 0 { 4 } else { 8 })? {
        0 => Value::Null,
        1 => Value::from(u.arbitrary::<bool>()?),
        2 => Value::from(u.arbitrary::<i64>()?),
        3 => Value::from(u.arbitrary::<u64>()?),
        4 => Value::from(any_text(u, &['a', 'm', 'z', 'é', '"', '\n', '😀'], 60)?),
        5..=6 => {
            let inside = (0..u.int_in_range(0..=7)?).map(|_| any_json(u, depth - 1));
            Value::Array(inside.collect::<Result<_, _>>()?)
        }
        _ => {
            let entry = |u: &mut Unstructured<'_>| {
                Ok((
                    any_text(u, &['a', 'b', 'c', '😀'], 50)?,
                    any_json(u, depth - 1)?,
                ))
            };
            let inside = (0..u.int_in_range(0..=7)?).map(|_| entry(u));
            Value::Object(inside.collect::<Result<_, _>>()?)
        }
    })
}

/// The depth of a value, its longest text, and the most fields of any object or array in it.
fn measure(value: &Value) -> (usize, usize, usize) {
    let parts: Vec<&Value> = match value {
        Value::String(text) => return (0, text.len(), 0),
        Value::Array(array) => array.iter().collect(),
        Value::Object(object) => object.values().collect(),
        _ => return (0, 0, 0),
    };
    let keys = value.as_object().into_iter().flatten();
    let longest_key = keys.map(|(key, _)| key.len()).max().unwrap_or(0);
    let inside = parts.iter().map(|part| measure(part));
    let whole = inside.fold((0, longest_key, parts.len()), |whole, part| {
        (
            whole.0.max(part.0),
            whole.1.max(part.1),
            whole.2.max(part.2),
        )
    });
    (whole.0 + 1, whole.1, whole.2)
}

#[test]
fn output_is_within_the_limits_and_unchanged_if_the_input_was() {
    arbtest(|u| {
        let depth = u.int_in_range(1..=5)?;
        let string_bytes = u.int_in_range(32..=59)?;
        let fields = u.int_in_range(1..=7)?;
        let value = any_json(u, 6)?;
        let (written, is_cut) = limited(&value, limits(depth, string_bytes, fields));
        // An array becomes the value of an object.
        let around = usize::from(value.is_array());
        let measured = measure(&value);
        let is_within =
            measured.0 + around <= depth && measured.1 <= string_bytes && measured.2 <= fields;
        assert_eq!(is_cut, !is_within);
        if is_within {
            assert_eq!(written, value);
        }
        let measured = measure(&written);
        assert!(measured.0 + around <= depth.max(1 + around), "{written}");
        assert!(measured.1 <= string_bytes, "{written}");
        // The mark adds one.
        assert!(measured.2 <= fields + 1, "{written}");
        Ok(())
    })
    .size_max(4_000)
    .budget_ms(500);
}
