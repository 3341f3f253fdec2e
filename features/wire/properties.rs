//! The check of bodies that a stranger writes: any text, JSON of any form, and bodies that are almost right.

use super::check::{Envelope, Mode, check};
use super::json::{self, Object, Raw};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use arbtest::arbitrary::{self, Unstructured};
use arbtest::arbtest;
use serde_json::Value;
use serde_json::value::RawValue;

/// Texts that JSON readers disagree on, or refuse, and some that they take.
const SCALARS: [&str; 24] = [
    "null",
    "true",
    "nul",
    "0",
    "-0",
    "01",
    "1.",
    "-",
    "1e5",
    "1e999",
    "-1e-999",
    "18446744073709551616",
    "NaN",
    "\"\"",
    r#""a\"b\\""#,
    r#""\ud800""#,
    r#""\ud83d\ude00""#,
    r#""\u0061""#,
    r#""\x""#,
    "\"\u{1}\"",
    "\"\u{e9}\"",
    "\"",
    "\u{feff}1",
    "/**/1",
];

const KEYS: [&str; 6] = ["a", "b", "\\u0061", "session_id", "\u{e9}", "\\ud800"];

/// Writes a value, mostly valid, nested at most so deep.
fn write_value(u: &mut Unstructured<'_>, out: &mut String, depth: u32) -> arbitrary::Result<()> {
    match u.int_in_range(0..=if depth == 0 { 5 } else { 9 })? {
        0..=2 => out.push_str(["1", "\"x\"", "null"][u.choose_index(3)?]),
        3..=5 => out.push_str(u.choose::<&str>(&SCALARS)?),
        6..=7 => {
            out.push('[');
            for at in 0..u.int_in_range(0..=3)? {
                out.push_str(if at > 0 { ", " } else { "" });
                write_value(u, out, depth - 1)?;
            }
            out.push(']');
        }
        _ => {
            out.push('{');
            for at in 0..u.int_in_range(0..=4)? {
                let key = u.choose::<&str>(&KEYS)?;
                out.push_str(&format!("{}\"{key}\":", if at > 0 { "," } else { "" }));
                write_value(u, out, depth - 1)?;
            }
            out.push('}');
        }
    }
    Ok(())
}

fn value(u: &mut Unstructured<'_>) -> arbitrary::Result<String> {
    let mut out = String::new();
    write_value(u, &mut out, 4)?;
    // As deep as readers go, and deeper.
    if u.ratio(1, 20)? {
        let deep = u.int_in_range(90..=200)?;
        out = format!("{}{out}{}", "[".repeat(deep), "]".repeat(deep));
    }
    Ok(out)
}

/// A body whose members are as they should be, except for some.
fn body(u: &mut Unstructured<'_>) -> arbitrary::Result<Vec<u8>> {
    let event = |u: &mut Unstructured<'_>, at: u64| {
        let id = format!("\"7f1c2d3e-4b5a-4c7d-8e9f-{at:012}\"");
        let index = format!("{at}");
        members(
            u,
            &[
                ("event", "\"GENERIC_EVENT\""),
                ("event_id", &id),
                ("event_session_index", &index),
                ("severity", "\"INFO\""),
                ("timestamp", "\"2025-11-26T10:30:45.000000Z\""),
                ("event_name", "\"x\""),
                ("event_data", "{}"),
            ],
        )
    };
    let count = u.int_in_range(0..=3)?;
    let events = (0..count).map(|at| event(u, at));
    let events = events.collect::<arbitrary::Result<Vec<_>>>()?.join(",");
    let body = members(
        u,
        &[
            ("session_id", "\"s\""),
            ("platform", "\"unix/linux\""),
            ("sdk_version", "\"1.0.0\""),
            ("process_uuid", "\"6f1c2d3e-4b5a-4c7d-8e9f-0a1b2c3d4e5f\""),
            ("events", &format!("[{events}]")),
        ],
    )?;
    let mut body = body.into_bytes();
    if u.ratio(1, 4)? && !body.is_empty() {
        let at = u.choose_index(body.len())?;
        match u.int_in_range(0..=2)? {
            0 => body.truncate(at),
            1 => body[at] = u.arbitrary()?,
            _ => body.insert(at, u.arbitrary()?),
        }
    }
    Ok(body)
}

/// An object of these members, of which now and then one is missing, given twice or has another value.
fn members(u: &mut Unstructured<'_>, all: &[(&str, &str)]) -> arbitrary::Result<String> {
    let mut written = Vec::new();
    for &(key, usual) in all {
        match u.int_in_range(0..=40)? {
            0 => {}
            1 => written.extend([format!("\"{key}\":{usual}"), format!("\"{key}\":1")]),
            2 => {
                let mut other = String::new();
                write_value(u, &mut other, 3)?;
                written.push(format!("\"{key}\":{other}"));
            }
            _ => written.push(format!("\"{key}\":{usual}")),
        }
    }
    Ok(format!("{{{}}}", written.join(",")))
}

#[test]
fn the_reader_takes_what_serde_json_takes_and_reads_the_same() {
    arbtest(|u| {
        let text = match u.ratio(1, 4)? {
            true => u.arbitrary()?,
            false => value(u)?,
        };
        let decoded: Result<Value, _> = serde_json::from_str(&text);
        assert_eq!(json::decodes(&text).is_ok(), decoded.is_ok(), "{text}");
        if let Ok(raw) = serde_json::from_str::<&RawValue>(&text) {
            let raw = Raw::from(raw);
            // The quick check may only be wrong by not knowing.
            assert!(!json::clearly_decodes(raw) || decoded.is_ok(), "{text}");
            if let Ok(decoded) = &decoded {
                assert_eq!(json::string(raw).as_deref(), decoded.as_str());
                let items = decoded.as_array().map_or(0, Vec::len);
                assert_eq!(json::array_len(raw), items);
            }
        }
        let object = Object::read(&text);
        if let Ok(Value::Object(map)) = &decoded {
            let object = object.expect("it is one");
            assert!(object.keys().all(|key| map.contains_key(key)));
            assert!(map.keys().all(|key| object.get(key).is_some()));
            let is_twice = object.keys().count() > map.len();
            assert_eq!(object.duplicate_key().is_some(), is_twice);
            // What is known to be valid reads the same.
            let members = |object: Object<'_>| -> Vec<_> {
                let values = object.values().map(|value| String::from(value.get()));
                object.keys().map(String::from).zip(values).collect()
            };
            let known = Object::of(Raw::known(text.trim())).expect("it is one");
            assert_eq!(members(known), members(object));
        } else if decoded.is_ok() {
            assert!(object.is_err());
        }
        Ok(())
    });
}

#[test]
fn a_body_that_passes_the_check_is_what_serde_json_reads() {
    arbtest(|u| {
        let body = match u.ratio(1, 10)? {
            true => u.arbitrary()?,
            false => body(u)?,
        };
        let decoded: Result<Value, _> = serde_json::from_slice(&body);
        let shown = String::from_utf8_lossy(&body);
        let [strict, lenient] = [Mode::Strict, Mode::Lenient].map(|mode| check(&body, mode));
        if let Ok(strict) = &strict {
            let decoded = decoded.as_ref().expect("what passes can be decoded");
            assert_eq!(decoded["session_id"], strict.session_id(), "{shown}");
            assert_eq!(
                decoded["events"].as_array().map(Vec::len),
                Some(strict.events().len())
            );
            assert!(lenient.is_ok(), "{shown}");
        }
        for event in lenient.iter().flat_map(|lenient| lenient.events()) {
            let event: Value = serde_json::from_str(event.json()).expect("an event is JSON");
            assert!(event.is_object());
        }
        if let (Ok(envelope), Ok(decoded)) = (Envelope::read(&body), &decoded) {
            let first = envelope.session_id();
            // Of a key given twice, one is read.
            assert!(
                first.is_none() || decoded.get("session_id").is_some(),
                "{shown}"
            );
        }
        // A violation is short, whatever it quotes.
        if let Err(violation) = &strict {
            assert!(format!("{violation}").len() < 400, "{violation}");
        }
        Ok(())
    });
}

#[test]
fn most_bodies_are_almost_right() {
    let (mut passed, mut all) = (0, 0);
    arbtest(|u| {
        all += 1;
        passed += u32::from(check(&body(u)?, Mode::Lenient).is_ok());
        Ok(())
    })
    .budget_ms(200);
    assert!(passed > 0 && passed < all, "{passed} of {all}");
}
