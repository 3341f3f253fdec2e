//! Tests of the limits.

use super::*;
use alloc::{boxed::Box, format, string::String, vec, vec::Vec};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn limits(depth: usize, string_bytes: usize, fields: usize) -> DataLimits {
    DataLimits {
        depth,
        string_bytes,
        fields,
    }
}

/// What is written, and whether something was left out.
fn limited(value: &(impl Serialize + ?Sized), limits: DataLimits) -> (Value, bool) {
    let is_cut = Cell::new(false);
    let json = serde_json::to_string(&Limited::new(value, &limits, &is_cut));
    let value = serde_json::from_str(&json.expect("encodable")).expect("valid");
    (value, is_cut.get())
}

#[derive(serde::Serialize)]
enum Shape<'a> {
    Unit,
    New(&'a str),
    Tuple(u8, Vec<u8>),
    Struct { a: u8, b: Vec<u8> },
}

#[derive(serde::Serialize)]
struct Everything<'a> {
    option: Option<char>,
    nothing: Option<u8>,
    bytes: &'a [u8],
    tuple: (u8, &'a str),
    shapes: [Shape<'a>; 4],
    large: u128,
    float: f32,
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
fn what_is_within_the_limits_is_written_as_without_them() {
    let is_cut = Cell::new(false);
    let limits = limits(5, 32, 7);
    let text = serde_json::to_string(&Limited::new(&EVERYTHING, &limits, &is_cut));
    assert_eq!(text.ok(), serde_json::to_string(&EVERYTHING).ok());
    assert!(!is_cut.get());
}

#[test]
fn what_lies_too_deep_becomes_a_mark() {
    let data = json!({"a": {"b": {"c": 1}}, "d": [[], 2], "e": []});
    let expected = json!({"a": {"b": MARK}, "d": [MARK, 2], "e": []});
    assert_eq!(limited(&data, limits(2, 32, 9)), (expected, true));
    let shapes = [Shape::Tuple(1, vec![2]), Shape::New("x")];
    let expected = json!([{"Tuple": MARK}, {"New": "x"}]);
    assert_eq!(limited(&shapes, limits(2, 32, 9)), (expected, true));
    let shape = [Shape::Struct { a: 1, b: vec![2] }];
    let expected = json!([{"Struct": {"a": 1, "b": MARK}}]);
    assert_eq!(limited(&shape, limits(3, 32, 9)), (expected, true));
    assert_eq!(limited(&shape, limits(1, 32, 9)), (json!([MARK]), true));
}

#[test]
fn a_value_that_nests_without_end_is_not_followed() {
    struct Deep;
    impl Serialize for Deep {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            // It never ends.
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
    assert_eq!(limited(&value, limits(2, 32, 9)), (json!([[MARK]]), true));
    // Its destructor would follow it.
    core::mem::forget(value);
}

#[test]
fn long_texts_are_cut_at_a_character_and_those_that_fit_are_not() {
    for text in ["x".repeat(40), "é".repeat(20), "😀".repeat(10)] {
        let (whole, is_cut) = limited(&text, limits(1, 40, 1));
        assert_eq!((whole, is_cut), (json!(text), false));
        for limit in 32..40 {
            // As a string, and as something that is displayed.
            let displayed = shown(&text);
            for (cut, is_cut) in [
                limited(&text, limits(1, limit, 1)),
                limited(&displayed, limits(1, limit, 1)),
            ] {
                let cut = String::from(cut.as_str().expect("a text"));
                let kept = cut.strip_suffix(MARK).expect("it says so");
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
fn fields_beyond_the_limit_are_counted_in_their_place() {
    let (value, is_cut) = limited(&[1, 2, 3, 4], limits(1, 32, 2));
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
fn long_keys_are_cut_and_stay_different() {
    let key = |last: char| format!("{}{last}", "k".repeat(50));
    let data: Map<_, _> = [(key('a'), json!(1)), (key('b'), json!(2))]
        .into_iter()
        .collect();
    let (value, is_cut) = limited(&data, limits(1, 32, 9));
    let keys: Vec<_> = value.as_object().expect("an object").keys().collect();
    assert!(is_cut && keys.len() == 2 && keys.iter().all(|key| key.len() <= 32));
}

#[test]
fn json_that_is_written_already_is_held_to_the_limits_too() {
    let raw = |text: String| serde_json::value::RawValue::from_string(text).expect("JSON");
    let data = json!({"deep": [[1]], "n": 1.5});
    let expected = json!({"deep": MARK, "n": 1.5});
    assert_eq!(
        limited(&raw(format!("{data}")), limits(1, 32, 9)),
        (expected, true)
    );
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let deep: Box<serde_json::value::RawValue> = raw(deep);
    assert_eq!(limited(&deep, limits(9, 32, 9)), (json!(MARK), true));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        "[a-zé\"\n😀]{0,60}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::btree_map("[a-c😀]{0,50}", inner, 0..8)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// The depth of a value, its longest text, and the number of fields of its largest part.
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

proptest! {
    #[test]
    fn whatever_is_written_is_within_the_limits_and_whole_if_it_was(
        value in any_json(),
        depth in 1_usize..6,
        string_bytes in 32_usize..60,
        fields in 1_usize..8,
    ) {
        let (written, is_cut) = limited(&value, limits(depth, string_bytes, fields));
        let measured = measure(&value);
        let is_within = measured.0 <= depth && measured.1 <= string_bytes && measured.2 <= fields;
        prop_assert_eq!(is_cut, !is_within);
        if is_within {
            prop_assert_eq!(&written, &value);
        }
        let measured = measure(&written);
        prop_assert!(measured.0 <= depth, "{}", written);
        prop_assert!(measured.1 <= string_bytes, "{}", written);
        // The mark is one more.
        prop_assert!(measured.2 <= fields + 1, "{}", written);
    }
}
