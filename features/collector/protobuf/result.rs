//! Results in protobuf, from their JSON.

use alloc::{string::String, vec::Vec};

use serde_json::{Map, Value};

use super::wire::Message;

/// The numbers of the fields.
mod field {
    /// Of a sample.
    pub(super) const SEQUENCES: u8 = 1;
    pub(super) const PROMPT_LOGPROBS: u8 = 2;
    pub(super) const TOPK_PROMPT_LOGPROBS: u8 = 3;
    pub(super) const PROMPT_CACHE_HIT_TOKENS: u8 = 4;
    /// Of a sequence.
    pub(super) const STOP_REASON: u8 = 1;
    pub(super) const TOKENS: u8 = 2;
    pub(super) const LOGPROBS: u8 = 3;
    /// Of the most probable tokens.
    pub(super) const TOP_TOKENS: u8 = 1;
    pub(super) const TOP_LOGPROBS: u8 = 2;
    pub(super) const TOP_K: u8 = 3;
    pub(super) const TOP_LENGTH: u8 = 4;
    /// Of a pass.
    pub(super) const OUTPUT_TYPE: u8 = 1;
    pub(super) const OUTPUTS: u8 = 2;
    pub(super) const METRICS: u8 = 3;
    pub(super) const KEY: u8 = 1;
    pub(super) const VALUE: u8 = 2;
    /// Of the outputs for some data.
    pub(super) const RECORD_TYPE: u8 = 1;
    pub(super) const RECORD_FIELDS: u8 = 2;
    pub(super) const RECORD_LENGTH: u8 = 3;
    /// Of a tensor for all of them.
    pub(super) const DATA: u8 = 1;
    pub(super) const OFFSETS: u8 = 2;
    pub(super) const DTYPE: u8 = 3;
    pub(super) const TRAILING_SHAPE: u8 = 4;
}

/// What stands in place of a token that there is none of, and its log probability.
const NO_TOKEN: (i32, f32) = (0, -99_999.0);

/// The result of a call in protobuf. `None`, if that has no form for it: for the results of other calls, for failures, and
/// for responses that are not results.
pub(crate) fn from_json(call: &str, result: &Value) -> Option<Vec<u8>> {
    let message = match call {
        "asample" => sample(result),
        "forward" | "forward_backward" => pass(result),
        _ => None,
    };
    message.map(|message| message.0)
}

fn sample(result: &Value) -> Option<Message> {
    let mut message = Message::default();
    for sequence in result.get("sequences")?.as_array()? {
        message.message(field::SEQUENCES, &self::sequence(sequence)?);
    }
    if let Some(logprobs) = present(result, "prompt_logprobs") {
        message.bytes(field::PROMPT_LOGPROBS, &floats(logprobs)?);
    }
    if let Some(tops) = present(result, "topk_prompt_logprobs") {
        message.message(field::TOPK_PROMPT_LOGPROBS, &top_tokens(tops)?);
    }
    if let Some(hits) = present(result, "prompt_cache_hit_tokens") {
        message.number(field::PROMPT_CACHE_HIT_TOKENS, hits.as_u64()?);
    }
    Some(message)
}

/// A member that is not null.
fn present<'a>(object: &'a Value, key: &str) -> Option<&'a Value> {
    object.get(key).filter(|value| !value.is_null())
}

fn sequence(sequence: &Value) -> Option<Message> {
    let mut message = Message::default();
    let reason = match sequence.get("stop_reason")?.as_str()? {
        "stop" => 0,
        "length" => 1,
        _ => return None,
    };
    message.number(field::STOP_REASON, reason);
    let tokens = sequence.get("tokens")?.as_array()?;
    let tokens: Option<Vec<i32>> = tokens.iter().map(token).collect();
    let tokens: Vec<u8> = tokens?.into_iter().flat_map(i32::to_le_bytes).collect();
    message.bytes(field::TOKENS, &tokens);
    if let Some(logprobs) = present(sequence, "logprobs") {
        message.bytes(field::LOGPROBS, &floats(logprobs)?);
    }
    Some(message)
}

fn token(value: &Value) -> Option<i32> {
    i32::try_from(value.as_i64()?).ok()
}

/// As float32; null is not a number.
fn float(value: &Value) -> Option<f32> {
    match value {
        Value::Null => Some(f32::NAN),
        value => Some(value.as_f64()? as f32),
    }
}

fn floats(values: &Value) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for value in values.as_array()? {
        bytes.extend(float(value)?.to_le_bytes());
    }
    Some(bytes)
}

/// Two matrices, with a row for each position.
fn top_tokens(tops: &Value) -> Option<Message> {
    let none = Vec::new();
    let rows: Option<Vec<&Vec<Value>>> = tops
        .as_array()?
        .iter()
        .map(|row| match row {
            Value::Null => Some(&none),
            row => row.as_array(),
        })
        .collect();
    let rows = rows?;
    let width = rows.iter().map(|row| row.len()).max().unwrap_or_default();
    let (mut tokens, mut logprobs) = (Vec::new(), Vec::new());
    for row in &rows {
        for at in 0..width {
            let (one, logprob) = match row.get(at) {
                Some(pair) => (token(pair.get(0)?)?, float(pair.get(1)?)?),
                None => NO_TOKEN,
            };
            tokens.extend(one.to_le_bytes());
            logprobs.extend(logprob.to_le_bytes());
        }
    }
    let mut message = Message::default();
    message.bytes(field::TOP_TOKENS, &tokens);
    message.bytes(field::TOP_LOGPROBS, &logprobs);
    message.number(field::TOP_K, width as u64);
    message.number(field::TOP_LENGTH, rows.len() as u64);
    Some(message)
}

fn pass(result: &Value) -> Option<Message> {
    let outputs = result.get("loss_fn_outputs")?.as_array()?;
    let outputs: Option<Vec<_>> = outputs.iter().map(Value::as_object).collect();
    let outputs = outputs?;
    let output_type = present(result, "loss_fn_output_type").and_then(Value::as_str);
    let output_type = output_type.unwrap_or_default();
    let mut message = Message::default();
    message.text(field::OUTPUT_TYPE, output_type);
    // Neighbours of one form share a record.
    let mut rest = outputs.as_slice();
    while let Some(first) = rest.first() {
        let form = form(first)?;
        let alike = rest
            .iter()
            .take_while(|output| self::form(output).as_ref() == Some(&form));
        let (alike, others) = rest.split_at(alike.count());
        message.message(field::OUTPUTS, &record(output_type, &form, alike)?);
        rest = others;
    }
    if let Some(metrics) = present(result, "metrics") {
        for (name, value) in metrics.as_object()? {
            let mut entry = Message::default();
            entry.text(field::KEY, name);
            entry.double(field::VALUE, value.as_f64()?);
            message.message(field::METRICS, &entry);
        }
    }
    Some(message)
}

/// The tensors of an output: name, type, and shape without the first dimension.
type Form<'a> = Vec<(&'a str, Dtype, Vec<u64>)>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Dtype {
    Float32 = 1,
    Int64 = 2,
}

fn form(output: &Map<String, Value>) -> Option<Form<'_>> {
    let tensors = output.iter().map(|(name, tensor)| {
        let dtype = match tensor.get("dtype")?.as_str()? {
            "float32" => Dtype::Float32,
            "int64" => Dtype::Int64,
            _ => return None,
        };
        let trailing: Option<Vec<u64>> = match present(tensor, "shape") {
            Some(shape) => shape
                .as_array()?
                .iter()
                .skip(1)
                .map(Value::as_u64)
                .collect(),
            None => Some(Vec::new()),
        };
        Some((name.as_str(), dtype, trailing?))
    });
    tensors.collect()
}

fn record(output_type: &str, form: &Form<'_>, outputs: &[&Map<String, Value>]) -> Option<Message> {
    let mut record = Message::default();
    record.text(field::RECORD_TYPE, output_type);
    for (name, dtype, trailing) in form {
        let (mut data, mut offsets) = (Vec::new(), Vec::from(0_i64.to_le_bytes()));
        for output in outputs {
            for value in output.get(*name)?.get("data")?.as_array()? {
                match dtype {
                    Dtype::Float32 => data.extend(float(value)?.to_le_bytes()),
                    Dtype::Int64 => data.extend(value.as_i64()?.to_le_bytes()),
                }
            }
            offsets.extend(i64::try_from(data.len()).ok()?.to_le_bytes());
        }
        let (mut tensor, mut entry) = <(Message, Message)>::default();
        tensor.bytes(field::DATA, &data);
        tensor.bytes(field::OFFSETS, &offsets);
        tensor.number(field::DTYPE, *dtype as u64);
        tensor.packed(field::TRAILING_SHAPE, trailing);
        entry.text(field::KEY, name);
        entry.message(field::VALUE, &tensor);
        record.message(field::RECORD_FIELDS, &entry);
    }
    record.number(field::RECORD_LENGTH, outputs.len() as u64);
    Some(record)
}

#[cfg(test)]
mod tests {
    use super::super::wire::{Field, Fields};
    use super::*;
    use serde_json::json;

    fn fields(bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
        Fields(bytes).map(Result::unwrap).collect()
    }

    #[test]
    fn a_sample_has_its_tokens_and_log_probabilities() {
        let result = json!({
            "sequences": [{ "tokens": [1, -2], "logprobs": [-0.5, -1.5], "stop_reason": "length" }],
            "prompt_logprobs": [null, -0.25],
            "topk_prompt_logprobs": [null, [[7, -0.25], [8, -1.0]]],
            "prompt_cache_hit_tokens": 3,
        });
        let bytes = from_json("asample", &result).unwrap();
        let found = fields(&bytes);
        let sequence = fields(found[0].1.bytes().unwrap());
        assert_eq!(sequence[0], (1, Field::Varint(1)));
        let tokens = [1_i32, -2].map(i32::to_le_bytes).concat();
        assert_eq!(sequence[1], (2, Field::Bytes(&tokens)));
        let logprobs = [-0.5_f32, -1.5].map(f32::to_le_bytes).concat();
        assert_eq!(sequence[2], (3, Field::Bytes(&logprobs)));
        let prompt = [f32::NAN, -0.25].map(f32::to_le_bytes).concat();
        assert_eq!(found[1], (2, Field::Bytes(&prompt)));
        let tops = fields(found[2].1.bytes().unwrap());
        let tokens = [0_i32, 0, 7, 8].map(i32::to_le_bytes).concat();
        assert_eq!(tops[0], (1, Field::Bytes(&tokens)));
        let rest = [(3, Field::Varint(2)), (4, Field::Varint(2))];
        assert_eq!(tops[2..], rest);
        assert_eq!(found[3], (4, Field::Varint(3)));
    }

    #[test]
    fn outputs_of_one_form_share_a_record_and_others_follow() {
        let one = |data: &[f64], shape: Value| json!({ "x": { "data": data, "dtype": "float32", "shape": shape } });
        let result = json!({
            "loss_fn_output_type": "T",
            "loss_fn_outputs": [
                one(&[1.0], json!([1])),
                one(&[2.0, 3.0], json!([2])),
                one(&[4.0, 5.0], json!([1, 2])),
            ],
            "metrics": { "loss": 0.5 },
        });
        let bytes = from_json("forward_backward", &result).unwrap();
        let found = fields(&bytes);
        let numbers: Vec<_> = found.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [1, 2, 2, 3]);
        let record = fields(found[1].1.bytes().unwrap());
        assert_eq!(record[2], (3, Field::Varint(2)));
        let entry = fields(record[1].1.bytes().unwrap());
        let tensor = fields(entry[1].1.bytes().unwrap());
        let offsets = [0_i64, 4, 12].map(i64::to_le_bytes).concat();
        assert_eq!(tensor[1], (2, Field::Bytes(&offsets)));
        assert_eq!(tensor.len(), 3, "no trailing shape");
        let record = fields(found[2].1.bytes().unwrap());
        assert_eq!(record[2], (3, Field::Varint(1)));
    }

    #[test]
    fn what_is_no_result_stays_json() {
        for (call, result) in [
            ("asample", json!({ "type": "try_again" })),
            ("asample", json!({ "error": "no", "category": "user" })),
            (
                "asample",
                json!({ "sequences": [{ "tokens": [], "stop_reason": "of tomorrow" }] }),
            ),
            (
                "asample",
                json!({ "sequences": [{ "tokens": [1e300], "stop_reason": "stop" }] }),
            ),
            (
                "forward",
                json!({ "loss_fn_outputs": [{ "x": { "data": [1] } }] }),
            ),
            ("optim_step", json!({ "metrics": {} })),
            ("asample", json!(null)),
        ] {
            assert_eq!(from_json(call, &result), None, "{call} {result}");
        }
    }
}
