//! What a collector's response means.

use super::config::{Protocol, ResolvedConfig};
use crate::features::http::{after, printable};
use crate::transport::{Receipt, SendError};
use alloc::string::String;
use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::Value;

/// A response's outcome for a batch of `events`.
pub(super) fn outcome(
    response: &Response<Bytes>,
    events: usize,
    config: &ResolvedConfig,
) -> Result<Receipt, SendError> {
    let status = response.status();
    if status.is_success() {
        let rejected = match config.protocol {
            Protocol::HttpProtobuf => rejected_in_protobuf(response.body()),
            Protocol::HttpJson => rejected_in_json(response.body()),
        };
        let rejected = usize::try_from(rejected.unwrap_or(0)).unwrap_or(usize::MAX);
        return Ok(Receipt::handed_over().rejected(rejected.min(events)));
    }
    let message = match config.protocol {
        Protocol::HttpProtobuf => status_message(response.body()),
        Protocol::HttpJson => None,
    };
    let text = printable::<80>(message.unwrap_or(response.body()), &config.secrets);
    let gap = if text.as_str().is_empty() { "" } else { ": " };
    let reason = format_args!("HTTP {}{gap}{text}", status.as_u16());
    Err(match status {
        StatusCode::PAYLOAD_TOO_LARGE => SendError::too_large(reason),
        StatusCode::BAD_REQUEST if says_too_large(response.body()) => SendError::too_large(reason),
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => {
            SendError::invalid_events(reason)
        }
        // The protocol's list; no other status is retried.
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => after(response, SendError::retryable(reason)),
        _ => SendError::rejected(reason),
    })
}

/// Whether a 400 is about the size: some collectors, and proxies before them, answer so instead of with 413.
fn says_too_large(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body).to_ascii_lowercase();
    ["too large", "too big", "larger than", "exceeds the max"]
        .iter()
        .any(|words| text.contains(words))
}

/// `partialSuccess.rejectedLogRecords`, a number or, as protobuf's mapping has it, a text.
fn rejected_in_json(body: &[u8]) -> Option<u64> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let count = value.get("partialSuccess")?.get("rejectedLogRecords")?;
    count.as_u64().or_else(|| count.as_str()?.parse().ok())
}

/// `ExportLogsServiceResponse.partial_success.rejected_log_records`; a negative count is none.
fn rejected_in_protobuf(body: &[u8]) -> Option<u64> {
    let partial = Fields(body).find_map(|(field, value)| match (field, value) {
        (1, Field::Bytes(bytes)) => Some(bytes),
        _ => None,
    })?;
    let count = Fields(partial).find_map(|(field, value)| match (field, value) {
        (1, Field::Varint(count)) => Some(count),
        _ => None,
    })?;
    i64::try_from(count).ok().map(i64::cast_unsigned)
}

/// `google.rpc.Status.message`.
fn status_message(body: &[u8]) -> Option<&[u8]> {
    let mut fields = Fields(body);
    let message = fields.find_map(|(field, value)| match (field, value) {
        (2, Field::Bytes(bytes)) => Some(bytes),
        _ => None,
    });
    // Text that is no message at all may begin like one.
    message.filter(|_| fields.all(|_| true) && fields.0.is_empty())
}

enum Field<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Other,
}

/// The fields of a message, up to the first that is malformed.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.take(1)?.first()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, Field<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let before = self.0;
        let mut read = || {
            let tag = self.varint()?;
            let value = match tag & 7 {
                0 => Field::Varint(self.varint()?),
                1 => self.take(8).map(|_| Field::Other)?,
                2 => {
                    let len = usize::try_from(self.varint()?).ok()?;
                    Field::Bytes(self.take(len)?)
                }
                5 => self.take(4).map(|_| Field::Other)?,
                _ => return None,
            };
            Some((tag >> 3, value))
        };
        let field = read();
        if field.is_none() {
            self.0 = before;
        }
        field
    }
}
