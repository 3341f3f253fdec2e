//! The transport: a batch becomes a request, an answer becomes an outcome.

use super::client::{HttpClient, HttpError};
use super::config::{Config, ConfigError, Parts};
use super::events::OwnRequest;
use crate::text::Text;
use crate::{Batch, Fault, Receipt, RetryAfter, SendError, SetupError, Transport};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use core::error::Error;
use core::fmt::{self, Write as _};
use http::header::RETRY_AFTER;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use uuid::{Uuid, fmt::Hyphenated};

const X_IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("x-idempotency-key");

/// Sends batches over HTTP, through any [`HttpClient`].
///
/// A batch is a `POST` to `{base_url}/api/v1/telemetry`. What its answer means:
///
/// | answer | outcome |
/// |---|---|
/// | 2xx | delivered |
/// | none; 408, 425, 429, 5xx | tried again, after `Retry-After` if there is one |
/// | 413 | too large: the batch is split |
/// | anything else, redirects included | rejected |
///
/// Errors say the status and the beginning of the answer, in which the API key and the configured headers' values are
/// blotted out should they come back.
pub struct HttpTransport<H> {
    parts: Result<Parts, ConfigError>,
    client: H,
}

impl<H> HttpTransport<H> {
    /// A transport to where `config` says, through `client`.
    pub fn new(config: Config, client: H) -> Self {
        Self {
            parts: config.into_parts(),
            client,
        }
    }
}

impl<H: HttpClient> Transport for HttpTransport<H> {
    async fn send(&mut self, mut batch: Batch<'_>) -> Result<Receipt, SendError> {
        let parts = self.parts.as_ref().map_err(SendError::retryable)?;
        let body = Bytes::from(batch.take_body());
        let request = parts.request(batch.idempotency_key(), body.clone());
        let answer = self.client.send(request).await;
        if body.is_unique() {
            batch.give_back(Vec::from(body));
        }
        match answer {
            Ok(answer) => outcome(&answer, &parts.secrets),
            Err(error) => Err(no_answer(&error, &parts.secrets)),
        }
    }

    fn check(&self) -> Result<(), SetupError> {
        match &self.parts {
            Ok(_) => Ok(()),
            Err(error) => Err(SetupError::new(error)),
        }
    }

    fn fault<'a>(error: &'a (dyn Error + 'static)) -> Option<Fault<'a>> {
        H::fault(error)
    }
}

impl<H> fmt::Debug for HttpTransport<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTransport")
            .field("config", &self.parts)
            .finish_non_exhaustive()
    }
}

impl Parts {
    fn request(&self, key: Uuid, body: Bytes) -> Request<Bytes> {
        let mut text = [0; Hyphenated::LENGTH];
        let key = key.hyphenated().encode_lower(&mut text);
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.endpoint.clone();
        *request.headers_mut() = self.headers.clone();
        request.extensions_mut().insert(OwnRequest);
        if let Ok(key) = HeaderValue::from_str(key) {
            request.headers_mut().insert(X_IDEMPOTENCY_KEY, key);
        }
        request
    }
}

fn no_answer(error: &HttpError, secrets: &[Box<[u8]>]) -> SendError {
    SendError::retryable(printable::<160>(error.message().as_bytes(), secrets))
}

/// What an answer means. The whole policy of the wire is here.
fn outcome(answer: &Response<Bytes>, secrets: &[Box<[u8]>]) -> Result<Receipt, SendError> {
    let status = answer.status();
    if status.is_success() {
        return Ok(Receipt::delivered());
    }
    let text = printable::<80>(answer.body(), secrets);
    let gap = if text.as_str().is_empty() { "" } else { ": " };
    let why = format_args!("HTTP {}{gap}{text}", status.as_u16());
    Err(match status {
        StatusCode::PAYLOAD_TOO_LARGE => SendError::too_large(why),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            retryable(answer, why)
        }
        _ if status.is_server_error() => retryable(answer, why),
        _ => SendError::rejected(why),
    })
}

fn retryable(answer: &Response<Bytes>, why: impl fmt::Display) -> SendError {
    let error = SendError::retryable(why);
    match answer.headers().get(RETRY_AFTER).and_then(retry_after) {
        Some(after) => error.retry_after(after),
        None => error,
    }
}

fn retry_after(value: &HeaderValue) -> Option<RetryAfter> {
    let text = value.to_str().ok()?;
    RetryAfter::from_seconds(text).or_else(|| {
        let date = httpdate::parse_http_date(text.trim()).ok()?;
        Some(RetryAfter::At(date.into()))
    })
}

/// The beginning of a text that came from outside: no secrets, no control characters, no runs of white space.
pub(crate) fn printable<const N: usize>(bytes: &[u8], secrets: &[Box<[u8]>]) -> Text<N> {
    let mut text = Text::default();
    let mut has_gap = false;
    for character in blot_out(bytes, secrets, N).trim().chars() {
        let is_plain = character.is_ascii_graphic() || character.is_alphanumeric();
        let result = match (is_plain, has_gap) {
            (true, _) => text.write_char(character),
            (false, false) => text.write_char(' '),
            (false, true) => Ok(()),
        };
        has_gap = !is_plain;
        if result.is_err() {
            break;
        }
    }
    text
}

/// At least the first `len` bytes of what remains when the secrets are replaced.
fn blot_out(mut bytes: &[u8], secrets: &[Box<[u8]>], len: usize) -> String {
    let mut out = Vec::new();
    // White space may still be dropped, so some more is looked at.
    while out.len() < 4 * len
        && let Some((first, rest)) = bytes.split_first()
    {
        match longest_secret(bytes, secrets) {
            Some(len) => {
                out.extend_from_slice(b"[redacted]");
                bytes = &bytes[len..];
            }
            None => {
                out.push(*first);
                bytes = rest;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The length of the longest secret that `bytes` begin with, or of what is left of one at the end of a text that was
/// cut.
fn longest_secret(bytes: &[u8], secrets: &[Box<[u8]>]) -> Option<usize> {
    const LEAST_PIECE: usize = 4;
    let mut secrets = secrets.iter().map(|secret| &**secret);
    let longest = secrets
        .clone()
        .filter(|secret| bytes.starts_with(secret))
        .map(<[u8]>::len)
        .max();
    if bytes.len() >= LEAST_PIECE && secrets.any(|secret| secret.starts_with(bytes)) {
        return Some(bytes.len());
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timestamp;
    use alloc::format;
    use alloc::string::ToString;
    use core::time::Duration;

    fn answer(status: u16, body: &'static str) -> Response<Bytes> {
        let mut answer = Response::new(Bytes::from_static(body.as_bytes()));
        *answer.status_mut() = StatusCode::from_u16(status).expect("a status");
        answer
    }

    fn judge(status: u16) -> Result<Receipt, SendError> {
        outcome(&answer(status, ""), &[])
    }

    #[test]
    fn every_status_has_its_outcome() {
        for status in 100..1000 {
            let result = judge(status);
            let expected = match status {
                200..300 => Ok(Receipt::delivered()),
                413 => Err(SendError::too_large("HTTP 413")),
                408 | 425 | 429 | 500..600 => Err(SendError::retryable(format!("HTTP {status}"))),
                _ => Err(SendError::rejected(format!("HTTP {status}"))),
            };
            assert_eq!(result, expected);
        }
    }

    #[test]
    fn a_retry_after_is_a_number_of_seconds_or_a_date_and_anything_else_is_none() {
        let read = |text| retry_after(&HeaderValue::from_static(text));
        assert_eq!(read("7"), Some(RetryAfter::Delay(Duration::from_secs(7))));
        let date = RetryAfter::At(Timestamp::from_unix_micros(784_111_777_000_000));
        for form in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(read(form), Some(date), "{form}");
        }
        for garbage in ["", "soon", "-1", "1.5", "Sun, 99 Nov 1994 08:49:37 GMT"] {
            assert_eq!(read(garbage), None, "{garbage}");
        }
    }

    #[test]
    fn a_retry_after_is_heard_only_where_trying_again_is_allowed() {
        for (status, is_heard) in [(429, true), (503, true), (401, false), (413, false)] {
            let mut answer = answer(status, "");
            let seconds = HeaderValue::from_static("7");
            answer.headers_mut().insert(RETRY_AFTER, seconds);
            let heard = outcome(&answer, &[]) != outcome(&self::answer(status, ""), &[]);
            assert_eq!(heard, is_heard, "{status}");
        }
    }

    #[test]
    fn an_error_repeats_the_beginning_of_the_answer_in_one_line() {
        let error = outcome(
            &answer(400, " {\"error\":\r\n\t\"no\u{1b}[2J\u{202e}\"}\n"),
            &[],
        );
        assert_eq!(
            error.map_err(|error| error.to_string()),
            Err("HTTP 400: {\"error\": \"no [2J \"}".into())
        );
        let long = "x".repeat(1000);
        let text = printable::<80>(long.as_bytes(), &[]);
        assert_eq!(text.as_str().len(), 80);
    }

    #[test]
    fn a_secret_is_blotted_out_wherever_the_answer_repeats_it() {
        let secret = "sk-0123456789";
        let secrets: [Box<[u8]>; 1] = [secret.as_bytes().into()];
        for before in 0..100 {
            let body = format!("{}{secret}{secret} {secret}", "x".repeat(before));
            let text = printable::<80>(body.as_bytes(), &secrets);
            assert!(!text.as_str().contains("sk-0"), "{text}");
        }
        for len in 4..secret.len() {
            let text = printable::<80>(format!("cut: {}", &secret[..len]).as_bytes(), &secrets);
            assert_eq!(text.as_str(), "cut: [redacted]");
        }
        let longer: Box<[u8]> = format!("{secret}-and-more").into_bytes().into();
        let both = [secrets[0].clone(), longer.clone()];
        assert_eq!(printable::<80>(&longer, &both).as_str(), "[redacted]");
        let error = no_answer(&HttpError::new(format!("bad header {secret}")), &secrets);
        assert_eq!(error.to_string(), "bad header [redacted]");
    }
}
