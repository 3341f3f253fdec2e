//! Tests of contexts as JSON: how they are cut, joined and added to data.

use super::*;
use crate::event::limits::DataLimits;
use crate::event::writer::encode_to_vec;
use crate::fields;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, vec};
use serde::Serializer;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

fn raw(json: &str) -> alloc::boxed::Box<RawValue> {
    RawValue::from_string(json.into()).expect("it is JSON")
}

/// The data with a context, as they are written.
fn with_context(data: impl Serialize, context: &'static str) -> String {
    let context = Context::new(Str::new(context));
    let written = encode_to_vec(4_096, |out| {
        out.output.put_text("before").expect("there is room");
        let start = out.len();
        let is_cut = Cell::new(false);
        encode::object_limited(out, &Limited::new(&data, &DataLimits::NONE, &is_cut))?;
        context.add_to(out, start)
    });
    let written = String::from_utf8(written.expect("it fits")).expect("it is UTF-8");
    written
        .strip_prefix(r#""before""#)
        .expect("it is left")
        .into()
}

/// The data with a context, encoded without limits, as most events are.
fn with_context_directly(data: impl Serialize, context: &'static str) -> String {
    let context = Context::new(Str::new(context));
    let heading = encode::Heading {
        name: "e",
        severity: crate::event::Severity::Info,
        context: Some(&context),
        is_cut: false,
    };
    let at = || crate::time::Timestamp::from_unix_micros(0);
    let written = encode_to_vec(4_096, |out| encode::generic(out, at, heading, &data));
    let written = String::from_utf8(written.expect("it fits")).expect("it is UTF-8");
    let data = written.split_once(r#""event_data":"#).expect("data").1;
    data.rsplit_once(r#","timestamp""#)
        .expect("a time")
        .0
        .into()
}

#[test]
fn a_context_is_a_member_of_data_that_have_none() {
    for (data, expected) in [
        (json!({"n": 1}), r#"{"n":1,"context":{"a":1}}"#),
        (json!(null), r#"{"context":{"a":1}}"#),
        (json!("text"), r#"{"message":"text","context":{"a":1}}"#),
        (json!([1]), r#"{"value":[1],"context":{"a":1}}"#),
        (
            json!({"n": {"context": 1}}),
            r#"{"n":{"context":1},"context":{"a":1}}"#,
        ),
        (
            json!({"n": "context", "m": "\"context\":"}),
            r#"{"m":"\"context\":","n":"context","context":{"a":1}}"#,
        ),
        (
            json!({"contexts": 1, "acontext": 2}),
            r#"{"acontext":2,"contexts":1,"context":{"a":1}}"#,
        ),
    ] {
        assert_eq!(with_context_directly(&data, r#"{"a":1}"#), expected);
        assert_eq!(with_context(&data, r#"{"a":1}"#), expected);
    }
}

#[test]
fn a_context_of_the_datas_own_stays_and_the_handles_has_another_key() {
    for (data, key) in [
        (json!({"context": 1}), "context_"),
        (json!({"context": {"x": [1, {}]}, "z": "}"}), "context_"),
        (json!({"context": 1, "context_": 2}), "context__"),
        (json!({"context": 1, "context__": 2}), "context_"),
        (json!({"context_": 2}), "context"),
        (
            json!({"a": "a long text before it, and a \" \\ }", "context": 0}),
            "context_",
        ),
    ] {
        let written = with_context_directly(&data, r#"{"a":1}"#);
        let value: Value = serde_json::from_str(&written).expect("it is JSON");
        let mut expected = data.clone();
        expected[key] = json!({"a": 1});
        assert_eq!(value, expected);
        assert_eq!(
            members(&written).filter(|member| member.key == key).count(),
            1
        );
    }
}

#[test]
fn the_key_is_found_wherever_it_stands_and_however_raw_json_writes_it() {
    for before in 0..40 {
        for after in 0..40 {
            let (before, after) = ("b".repeat(before), "a".repeat(after));
            let data = fields! { before: before, context: 1, after: after };
            let written = with_context_directly(&data, "{}");
            assert!(written.ends_with(r#","context_":{}}"#), "{written}");
        }
    }
    for (json, expected) in [
        (r#"{"\u0063ontext": 1}"#, "context_"),
        (r#"{"context" : 1 , "context\u005f" : 2}"#, "context__"),
        (r#"{ "conte\u0078t" : {} }"#, "context_"),
        (r#"{"con\u0054ext": 1}"#, "context"),
        ("{ }", "context"),
        ("{\n}", "context"),
        (r#"{"a": "\"}, \"context\": 1"}"#, "context"),
    ] {
        let written = with_context_directly(raw(json), r#"{"a":1}"#);
        let value: Map<String, Value> = serde_json::from_str(&written).expect("it is JSON");
        let before: Map<String, Value> = serde_json::from_str(json).expect("it is JSON");
        assert_eq!(value.len(), before.len() + 1, "{written}");
        assert_eq!(value[expected], json!({"a": 1}), "{written}");
    }
}

fn merged(outer: &str, inner: &str, max_fields: usize, room: usize) -> (String, bool) {
    let mut bytes = vec![0; room];
    let (len, is_cut) = merge(outer, inner, max_fields, &mut bytes);
    bytes.truncate(len);
    (String::from_utf8(bytes).expect("UTF-8"), is_cut)
}

#[test]
fn contexts_add_up_and_of_a_key_given_twice_the_last_value_counts() {
    for (outer, inner, expected) in [
        ("{}", r#"{"a":1}"#, r#"{"a":1}"#),
        (r#"{"a":1}"#, r#"{"b":2}"#, r#"{"a":1,"b":2}"#),
        (r#"{"a":1,"b":2}"#, r#"{"a":3}"#, r#"{"b":2,"a":3}"#),
        ("{}", r#"{"a":1,"b":2,"a":3}"#, r#"{"b":2,"a":3}"#),
        (r#"{"a":{"b":1}}"#, r#"{"a":{"c":2}}"#, r#"{"a":{"c":2}}"#),
        (r#"{"\u0061":1}"#, r#"{"a" : 2 }"#, r#"{"a" : 2}"#),
        (
            r#"{"a\"b":1}"#,
            r#"{"a\"b":[",","}"]}"#,
            r#"{"a\"b":[",","}"]}"#,
        ),
        ("{}", "{}", "{}"),
        ("{ }", r#"{ "a": 1 }"#, r#"{"a": 1}"#),
    ] {
        let expected = (expected.to_string(), false);
        assert_eq!(merged(outer, inner, usize::MAX, 64), expected);
    }
}

#[test]
fn what_has_no_room_is_left_out_and_counted() {
    let outer = r#"{"a":"0123456789","b":"0123456789"}"#;
    let inner = r#"{"c":"0123456789012345678901234567890123456789","d":1}"#;
    let expected = r#"{"a":"0123456789","d":1,"… (cut)":2}"#;
    assert_eq!(
        merged(outer, inner, usize::MAX, 64),
        (expected.into(), true)
    );
    let expected = r#"{"a":"0123456789","b":"0123456789","… (cut)":2}"#;
    assert_eq!(merged(outer, inner, 2, 1_000), (expected.into(), true));
    // Two marks add up.
    let expected = r#"{"a":1,"b":2,"… (cut)":5}"#;
    let twice = merged(r#"{"a":1,"… (cut)":3}"#, r#"{"b":2,"… (cut)":2}"#, 9, 64);
    assert_eq!(twice, (expected.into(), false));
    // A mark stays, and is told once.
    let marked = r#"{"a":1,"… (cut)":2}"#;
    let expected = r#"{"a":1,"b":2,"… (cut)":2}"#;
    assert_eq!(
        merged(marked, r#"{"b":2}"#, 9, 64),
        (expected.into(), false)
    );
    let expected = r#"{"a":1,"… (cut)":3}"#;
    assert_eq!(merged(marked, r#"{"b":2}"#, 1, 64), (expected.into(), true));
}

fn within(data: &impl Serialize, room: usize) -> Result<(Value, bool), EncodeError> {
    let mut is_cut = false;
    let written = encode_to_vec(room, |out| {
        match encode_within(out, data, &DataLimits::NONE, room) {
            Ok(cut) => {
                is_cut = cut;
                Ok(())
            }
            Err(EncodeError::TooLarge) => Err(Failed),
            Err(EncodeError::Unencodable(reason)) => Err(out.fail(reason)),
        }
    })?;
    assert!(written.len() <= room);
    Ok((
        serde_json::from_slice(&written).expect("it is JSON"),
        is_cut,
    ))
}

#[test]
fn a_context_of_any_size_is_cut_to_its_room_and_says_what_is_missing() {
    let long = "x".repeat(100_000);
    let many: Map<_, _> = (0..1_000).map(|n| (format!("k{n:04}"), json!(n))).collect();
    let deep = (0..50).fold(json!(1), |inner, _| json!({ "deeper": inner }));
    let wide = json!({"list": vec![vec!["x".repeat(40); 40]; 40]});
    for room in [64, 100, 128, 500, 4_000] {
        let (value, is_cut) = within(&fields! { text: long, id: 7 }, room).expect("it is cut");
        assert!(is_cut);
        assert!(room < 128 || value["id"] == 7, "{value}");
        for data in [
            json!(many),
            deep.clone(),
            wide.clone(),
            json!([many]),
            json!(long),
        ] {
            let (value, is_cut) = within(&data, room).expect("it is cut");
            assert_eq!(is_cut, value != data, "{value}");
            assert!(value.as_object().is_some_and(|object| !object.is_empty()));
        }
    }
    assert_eq!(within(&json!({"a": 1}), 64), Ok((json!({"a": 1}), false)));
}

#[test]
fn a_value_that_fails_or_panics_is_no_context() {
    struct Fails;
    impl Serialize for Fails {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("out of paper"))
        }
    }
    struct Panics;
    impl Serialize for Panics {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            std::panic::resume_unwind(alloc::boxed::Box::new("no message"))
        }
    }
    let reasons = [within(&fields! { a: Fails }, 64), within(&Panics, 64)].map(|result| {
        let Err(EncodeError::Unencodable(reason)) = result else {
            panic!("it is encodable");
        };
        reason.to_string()
    });
    let panicked = "its Serialize implementation panicked";
    assert_eq!(reasons, ["out of paper", panicked]);
}

#[test]
fn the_members_of_an_object_are_found_in_any_json() {
    let values = [
        json!(1.5),
        json!("}\",{\\"),
        json!([[], {}, ["]"]]),
        json!({"a": {"b": [1, 2]}, "c": null}),
    ];
    arbtest::arbtest(|u| {
        let mut object = Map::new();
        for _ in 0..u.int_in_range(0..=6)? {
            let key: Vec<char> = (0..u.int_in_range(0..=4)?)
                .map(|_| u.choose(&['a', '"', '\\', '{', ',', '😀']).copied())
                .collect::<Result<_, _>>()?;
            let value = u.choose(&values)?.clone();
            object.insert(key.into_iter().collect(), value);
        }
        let spaced = serde_json::to_string_pretty(&object).expect("it is encodable");
        for json in [serde_json::to_string(&object).expect("it is"), spaced] {
            let found: Map<_, _> = members(&json)
                .map(|member| {
                    let value = serde_json::from_str(member.value()).expect("a value");
                    (text_of(member.key).into_owned(), value)
                })
                .collect();
            assert_eq!(found, object);
        }
        Ok(())
    })
    .budget_ms(300);
}
