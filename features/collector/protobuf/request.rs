//! The pass of a model over data, from protobuf to the JSON that other clients send.

use alloc::{collections::BTreeMap, string::String, vec::Vec};
use core::fmt::{Display, Write as _};

use super::wire::{Field, Fields, Malformed, repeated};

/// The numbers of the fields.
mod field {
    pub(super) const MODEL_ID: u64 = 1;
    pub(super) const SEQ_ID: u64 = 2;
    pub(super) const DATA: u64 = 3;
    pub(super) const LOSS_FN: u64 = 4;
    pub(super) const LOSS_FN_CONFIG: u64 = 5;
    pub(super) const FORWARD_ONLY: u64 = 6;
    pub(super) const LOSS_FN_CONFIG_V2: u64 = 7;
    pub(super) const KEY: u64 = 1;
    pub(super) const VALUE: u64 = 2;
    /// Of a value of the configuration, second version.
    pub(super) const NUMBER: u64 = 1;
    pub(super) const TEXT: u64 = 2;
    /// Of a datum.
    pub(super) const MODEL_INPUT: u64 = 1;
    pub(super) const LOSS_FN_INPUTS: u64 = 2;
    /// Of a chunk: its one field says what it is.
    pub(super) const ENCODED_TEXT: u64 = 1;
    pub(super) const IMAGE: u64 = 2;
    pub(super) const TOKENS: u64 = 1;
    pub(super) const FORMAT: u64 = 2;
    /// Of a tensor.
    pub(super) const DENSE: u64 = 1;
    pub(super) const SPARSE_CSR: u64 = 2;
    pub(super) const DTYPE: u64 = 3;
    pub(super) const SHAPE: u64 = 4;
    /// Of a sparse tensor.
    pub(super) const VALUES: u64 = 1;
    pub(super) const CROW_INDICES: u64 = 2;
    pub(super) const COL_INDICES: u64 = 3;
}

/// A request in JSON, with the same keys as one that was sent in JSON, and `forward_only` where it is set. Of chunks that
/// are no text only the type is kept, and of images the format.
pub(crate) fn to_json(body: &[u8]) -> Result<String, Malformed> {
    let (mut model_id, mut loss_fn, mut seq_id, mut is_forward_only) = ("", "", 0, false);
    let (mut data, mut config) = (Vec::new(), BTreeMap::new());
    for field in Fields(body) {
        let (number, value) = field?;
        match number {
            field::MODEL_ID => model_id = value.text()?,
            // Negative numbers are sign-extended.
            field::SEQ_ID => seq_id = value.varint()?.cast_signed(),
            field::DATA => data.push(value.bytes()?),
            field::LOSS_FN => loss_fn = value.text()?,
            field::LOSS_FN_CONFIG => {
                let (key, value) = entry(value)?;
                let number = value.map_or(Ok(0.0), Field::double)?;
                // The second version, which may hold texts, goes first.
                config.entry(key).or_insert_with(|| number_of(number));
            }
            field::FORWARD_ONLY => is_forward_only = value.varint()? != 0,
            field::LOSS_FN_CONFIG_V2 => {
                let (key, value) = entry(value)?;
                let value = value.map_or(Ok(&[][..]), Field::bytes)?;
                config.insert(key, config_value(value)?);
            }
            _ => {}
        }
    }
    // Numbers of four bytes have up to eleven digits.
    let mut out = String::with_capacity(body.len().saturating_mul(2));
    out.push_str(r#"{"forward_backward_input":{"data":["#);
    list(&mut out, data, datum)?;
    out.push_str(r#"],"loss_fn":"#);
    push_text(&mut out, loss_fn);
    if !config.is_empty() {
        out.push_str(r#","loss_fn_config":{"#);
        list(&mut out, config, |out, (key, value)| {
            push_text(out, key);
            push(out, format_args!(":{value}"));
            Ok(())
        })?;
        out.push('}');
    }
    out.push_str(r#"},"model_id":"#);
    push_text(&mut out, model_id);
    push(&mut out, format_args!(r#","seq_id":{seq_id}"#));
    if is_forward_only {
        out.push_str(r#","forward_only":true"#);
    }
    out.push('}');
    Ok(out)
}

/// The key and the value of a map's entry, which lacks what is empty.
fn entry(field: Field<'_>) -> Result<(&str, Option<Field<'_>>), Malformed> {
    let (mut key, mut value) = ("", None);
    for field in Fields(field.bytes()?) {
        match field? {
            (field::KEY, text) => key = text.text()?,
            (field::VALUE, found) => value = Some(found),
            _ => {}
        }
    }
    Ok((key, value))
}

fn config_value(message: &[u8]) -> Result<serde_json::Value, Malformed> {
    let mut value = serde_json::Value::Null;
    for field in Fields(message) {
        match field? {
            (field::NUMBER, number) => value = number_of(number.double()?),
            (field::TEXT, text) => value = text.text()?.into(),
            _ => {}
        }
    }
    Ok(value)
}

/// Null, if it is not finite.
fn number_of(number: f64) -> serde_json::Value {
    number.into()
}

fn datum(out: &mut String, message: &[u8]) -> Result<(), Malformed> {
    let (mut chunks, mut inputs) = (Vec::new(), BTreeMap::new());
    for field in Fields(message) {
        match field? {
            (field::MODEL_INPUT, one) => chunks.push(one.bytes()?),
            (field::LOSS_FN_INPUTS, one) => {
                let (key, value) = entry(one)?;
                inputs.insert(key, value.map_or(Ok(&[][..]), Field::bytes)?);
            }
            _ => {}
        }
    }
    out.push_str(r#"{"model_input":{"chunks":["#);
    list(out, chunks, chunk)?;
    out.push_str(r#"]},"loss_fn_inputs":{"#);
    list(out, inputs, |out, (name, message)| {
        push_text(out, name);
        out.push(':');
        tensor(out, message)
    })?;
    out.push_str("}}");
    Ok(())
}

fn chunk(out: &mut String, message: &[u8]) -> Result<(), Malformed> {
    // The last one counts, as everywhere.
    let last = Fields(message).last().transpose()?;
    match last {
        Some((field::ENCODED_TEXT, text)) => {
            let mut tokens = &[][..];
            for field in Fields(text.bytes()?) {
                if let (field::TOKENS, bytes) = field? {
                    tokens = bytes.bytes()?;
                }
            }
            out.push_str(r#"{"type":"encoded_text","tokens":["#);
            numbers(out, tokens, i32::from_le_bytes)?;
            out.push_str("]}");
        }
        Some((field::IMAGE, image)) => {
            out.push_str(r#"{"type":"image","format":"#);
            let mut format = "";
            for field in Fields(image.bytes()?) {
                if let (field::FORMAT, text) = field? {
                    format = text.text()?;
                }
            }
            push_text(out, format);
            out.push('}');
        }
        _ => out.push_str(r#"{"type":"unknown"}"#),
    }
    Ok(())
}

fn tensor(out: &mut String, message: &[u8]) -> Result<(), Malformed> {
    let (mut dense, mut sparse, mut dtype, mut shape) = (&[][..], None, 0, Vec::new());
    for field in Fields(message) {
        match field? {
            (field::DENSE, bytes) => dense = bytes.bytes()?,
            (field::SPARSE_CSR, csr) => sparse = Some(csr.bytes()?),
            (field::DTYPE, number) => dtype = number.varint()?,
            (field::SHAPE, items) => repeated(items, &mut shape)?,
            _ => {}
        }
    }
    let (mut rows, mut columns) = (&[][..], &[][..]);
    for field in Fields(sparse.unwrap_or_default()) {
        match field? {
            (field::VALUES, bytes) => dense = bytes.bytes()?,
            (field::CROW_INDICES, bytes) => rows = bytes.bytes()?,
            (field::COL_INDICES, bytes) => columns = bytes.bytes()?,
            _ => {}
        }
    }
    out.push_str(r#"{"data":["#);
    let name = match dtype {
        1 => {
            reals(out, dense, f32::from_le_bytes)?;
            "float32"
        }
        2 => {
            numbers(out, dense, i64::from_le_bytes)?;
            "int64"
        }
        3 => {
            numbers(out, dense, i32::from_le_bytes)?;
            "int64"
        }
        4 => {
            // The upper half of a float32.
            reals(out, dense, |[low, high]: [u8; 2]| {
                f32::from_le_bytes([0, 0, low, high])
            })?;
            "float32"
        }
        _ => return Err(Malformed("a tensor has an unknown dtype")),
    };
    push(out, format_args!(r#"],"dtype":"{name}","shape":["#));
    list(out, shape, |out, size| {
        push(out, size);
        Ok(())
    })?;
    out.push(']');
    if sparse.is_some() {
        out.push_str(r#","sparse_crow_indices":["#);
        numbers(out, rows, i64::from_le_bytes)?;
        out.push_str(r#"],"sparse_col_indices":["#);
        numbers(out, columns, i64::from_le_bytes)?;
        out.push(']');
    }
    out.push('}');
    Ok(())
}

/// The items of an array of `N`-byte numbers.
fn items<const N: usize, T>(
    bytes: &[u8],
    decode: impl Fn([u8; N]) -> T,
) -> Result<impl Iterator<Item = T>, Malformed> {
    let (chunks, []) = bytes.as_chunks::<N>() else {
        return Err(Malformed("a tensor's bytes end within a number"));
    };
    Ok(chunks.iter().map(move |bytes| decode(*bytes)))
}

fn numbers<const N: usize, T: Display>(
    out: &mut String,
    bytes: &[u8],
    decode: impl Fn([u8; N]) -> T,
) -> Result<(), Malformed> {
    list(out, items(bytes, decode)?, |out, number| {
        push(out, number);
        Ok(())
    })
}

fn reals<const N: usize>(
    out: &mut String,
    bytes: &[u8],
    decode: impl Fn([u8; N]) -> f32,
) -> Result<(), Malformed> {
    list(out, items(bytes, decode)?, |out, number| {
        // JSON has no other numbers.
        match number.is_finite() {
            true => push(out, format_args!("{number:?}")),
            false => out.push_str("null"),
        }
        Ok(())
    })
}

/// Items with commas between.
fn list<T>(
    out: &mut String,
    items: impl IntoIterator<Item = T>,
    mut write: impl FnMut(&mut String, T) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    for (at, item) in items.into_iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        write(out, item)?;
    }
    Ok(())
}

fn push(out: &mut String, text: impl Display) {
    // Writing to a `String` does not fail.
    let _ = write!(out, "{text}");
}

fn push_text(out: &mut String, text: &str) {
    push(out, serde_json::Value::from(text));
}

#[cfg(test)]
mod tests {
    use super::super::wire::Message;
    use super::*;
    use serde_json::{Value, json};

    fn map_entry(key: &str, value: &Message) -> Message {
        let mut entry = Message::default();
        entry.text(1, key);
        entry.message(2, value);
        entry
    }

    fn tensor_of(bytes: &[u8], dtype: u64, shape: &[u64]) -> Message {
        let mut tensor = Message::default();
        tensor.bytes(1, bytes);
        tensor.number(3, dtype);
        tensor.packed(4, shape);
        tensor
    }

    fn pass(tensor: &Message) -> Message {
        let (mut text, mut chunk, mut datum) = <(Message, Message, Message)>::default();
        let tokens: Vec<u8> = [7_i32, -1].iter().flat_map(|n| n.to_le_bytes()).collect();
        text.bytes(1, &tokens);
        chunk.message(1, &text);
        datum.message(1, &chunk);
        datum.message(2, &map_entry("weights", tensor));
        let mut pass = Message::default();
        pass.text(1, "model-\"1\"");
        pass.number(2, 3);
        pass.message(3, &datum);
        pass.text(4, "ppo");
        let (mut number, mut text) = <(Message, Message)>::default();
        number.double(1, 0.5);
        text.text(2, "fast");
        pass.message(7, &map_entry("clip", &number));
        pass.message(7, &map_entry("mode", &text));
        pass.number(6, 1);
        // Of tomorrow.
        pass.number(15, 1);
        pass
    }

    fn json(message: &Message) -> Value {
        serde_json::from_str(&to_json(&message.0).unwrap()).unwrap()
    }

    #[test]
    fn a_pass_is_the_same_in_json() {
        let bytes: Vec<u8> = [0.5_f32, f32::NAN].map(f32::to_le_bytes).concat();
        let expected = json!({
            "forward_backward_input": {
                "data": [{
                    "model_input": { "chunks": [{ "type": "encoded_text", "tokens": [7, -1] }] },
                    "loss_fn_inputs": {
                        "weights": { "data": [0.5, null], "dtype": "float32", "shape": [1, 2] },
                    },
                }],
                "loss_fn": "ppo",
                "loss_fn_config": { "clip": 0.5, "mode": "fast" },
            },
            "model_id": "model-\"1\"",
            "seq_id": 3,
            "forward_only": true,
        });
        assert_eq!(json(&pass(&tensor_of(&bytes, 1, &[1, 2]))), expected);
    }

    #[test]
    fn each_type_of_number_is_read() {
        for (bytes, dtype, name, data) in [
            (&(-2_i64).to_le_bytes()[..], 2, "int64", json!([-2])),
            (&(-2_i32).to_le_bytes(), 3, "int64", json!([-2])),
            (&[0x80, 0x3f], 4, "float32", json!([1.0])),
        ] {
            let form = json(&pass(&tensor_of(bytes, dtype, &[])));
            let tensor = &form["forward_backward_input"]["data"][0]["loss_fn_inputs"]["weights"];
            let expected = json!({ "data": data, "dtype": name, "shape": [] });
            assert_eq!(tensor, &expected);
        }
    }

    #[test]
    fn whatever_is_cut_short_is_refused_or_valid_json() {
        let whole = pass(&tensor_of(&[0; 8], 1, &[2])).0;
        for len in 0..whole.len() {
            if let Ok(text) = to_json(&whole[..len]) {
                assert!(serde_json::from_str::<Value>(&text).is_ok(), "{text}");
            }
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[len] ^= 1 << bit;
                if let Ok(text) = to_json(&flipped) {
                    assert!(serde_json::from_str::<Value>(&text).is_ok(), "{text}");
                }
            }
        }
        for odd in [&[0; 7][..], &[0; 1]] {
            let odd = pass(&tensor_of(odd, 1, &[]));
            assert!(to_json(&odd.0).is_err());
        }
        assert!(to_json(&pass(&tensor_of(&[], 9, &[])).0).is_err());
    }
}
