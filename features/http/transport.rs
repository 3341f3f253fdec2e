//! The HTTP transport: turns a batch into a request, and a response into an outcome.

use super::client::{HttpClient, HttpError, ResponseBounds};
use super::config::{Config, ResolvedConfig};
use super::config_error::ConfigError;
use super::events::OwnRequest;
use super::redact::Secrets;
use crate::engine::retry::RetryAfter;
use crate::event::{Blame, Classify};
use crate::text::Text;
use crate::transport::{Batch, Receipt, SendError, SetupError, Transport};
use alloc::vec::Vec;
use alloc::{format, string::String};
use bytes::Bytes;
use core::error::Error;
use core::fmt::{self, Write as _};
use core::time::Duration;
use http::header::{DATE, EXPECT, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use uuid::{Uuid, fmt::Hyphenated};

const X_IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("x-idempotency-key");

/// How long the body of a response may take once its head is there, at most. Only the reason that a refusal gives and
/// the reuse of the connection depend on it.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_millis(500);

/// Sends batches over HTTP, through any [`HttpClient`].
///
/// A batch is a `POST` to `{base_url}/api/v1/telemetry`. What its response means:
///
/// | response | outcome |
/// |---|---|
/// | 2xx | delivered |
/// | none; 408, 425, 429, 503 | retried, after `Retry-After` if present |
/// | any other 5xx | the same; may tell of an event on which the server fails ([`SendError::failed`]) |
/// | 413 | too large: the batch is halved |
/// | 400, 422 | an event is invalid: the batch is halved until the events at fault stand alone |
/// | 401, 403, 404, redirects | rejected: the sender's fault, not the events' ([`SendError::unauthorized`]) |
/// | anything else | rejected |
///
/// The status decides as soon as the head of the response is complete: a body that is cut off, badly framed or stalls
/// costs the connection, not the batch. A date in `Retry-After` is read against the response's own `Date`, if it has
/// one. After a connection that broke while the request was being sent, the next attempt asks first, with
/// `expect: 100-continue`, where the client can: so an early answer is heard.
///
/// Errors contain the status and the beginning of the response, in which the API key and the configured headers' values
/// are redacted.
pub struct HttpTransport<H> {
    config: Result<ResolvedConfig, ConfigError>,
    client: H,
    /// The server does not understand `expect`.
    refuses_expect: bool,
}

impl<H> HttpTransport<H> {
    /// A transport that sends to `config`'s URL through `client`.
    pub fn new(config: Config, client: H) -> Self {
        Self {
            config: config.resolved,
            client,
            refuses_expect: false,
        }
    }
}

impl<H: HttpClient> Transport for HttpTransport<H> {
    async fn send(&mut self, mut batch: Batch<'_>) -> Result<Receipt, SendError> {
        let config = self.config.as_ref().map_err(SendError::retryable)?;
        let body = Bytes::from(batch.take_body());
        let mut request = config.request(batch.idempotency_key(), body.clone());
        let asks_first = batch.broke_while_sending() && !self.refuses_expect;
        if asks_first {
            let value = HeaderValue::from_static("100-continue");
            request.headers_mut().insert(EXPECT, value);
        }
        let mut bounds = ResponseBounds::of(&request);
        bounds.give_up_after = Some(batch.time_left());
        bounds.body_timeout = Some((batch.time_left() / 4).min(BODY_TIMEOUT));
        request.extensions_mut().insert(bounds);
        let result = self.client.send(request).await;
        if body.is_unique() {
            batch.return_body(Vec::from(body));
        }
        let response = match result {
            Ok(response) => response,
            Err(error) => match error.response().filter(|_| error.is_retryable()) {
                Some(response) => response,
                None => return Err(no_response(&error, &config.endpoint, &config.secrets)),
            },
        };
        if asks_first && response.status() == StatusCode::EXPECTATION_FAILED {
            self.refuses_expect = true;
            return Err(SendError::broke_while_sending("HTTP 417"));
        }
        outcome(&response, &config.secrets)
    }

    fn check(&self) -> Result<(), SetupError> {
        let config = self.config.as_ref().map_err(SetupError::new)?;
        let checked = self.client.check(&config.endpoint);
        checked.map_err(|error| {
            SetupError::new(printable::<160>(
                error.message().as_bytes(),
                &config.secrets,
            ))
        })
    }

    fn destination(&self) -> Option<&str> {
        let config = self.config.as_ref().ok()?;
        Some(&config.destination)
    }

    fn warning(&self) -> Option<SetupError> {
        let warning = self.config.as_ref().ok()?.warning()?;
        Some(SetupError::new(warning))
    }

    fn blame<'a>(error: &'a (dyn Error + 'static)) -> Option<Blame<'a>> {
        H::blame(error)
    }

    fn classifier(&self) -> Classify {
        self.client.classifier()
    }
}

impl<H> fmt::Debug for HttpTransport<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTransport")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl ResolvedConfig {
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

/// An error without a response, which names the server unless its own message does.
pub(crate) fn no_response(error: &HttpError, server: &Uri, secrets: &Secrets) -> SendError {
    let message = error.message();
    let address = address(server).filter(|address| !message.contains(address.as_str()));
    let named = address.map(|address| format!("{address}: {message}"));
    let message = named.as_deref().unwrap_or(message);
    let reason = printable::<160>(message.as_bytes(), secrets);
    if error.has_broken_while_sending() {
        SendError::broke_while_sending(reason)
    } else if error.is_retryable() {
        SendError::retryable(reason)
    } else {
        SendError::rejected(reason)
    }
}

/// Host and port of a URL. `None` if they are too long to leave room for what happened.
fn address(server: &Uri) -> Option<String> {
    let host = server.host().filter(|host| host.len() <= 80)?;
    let port = server.port_u16().unwrap_or(match server.scheme_str() {
        Some("http") => 80,
        _ => 443,
    });
    Some(format!("{host}:{port}"))
}

/// What a response means: the whole policy of the wire protocol.
fn outcome(response: &Response<Bytes>, secrets: &Secrets) -> Result<Receipt, SendError> {
    let status = response.status();
    if status.is_success() {
        return Ok(Receipt::delivered());
    }
    let text = printable::<80>(response.body(), secrets);
    let gap = if text.as_str().is_empty() { "" } else { ": " };
    let reason = format_args!("HTTP {}{gap}{text}", status.as_u16());
    Err(match status {
        StatusCode::PAYLOAD_TOO_LARGE => SendError::too_large(reason),
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => {
            SendError::invalid_events(reason)
        }
        StatusCode::REQUEST_TIMEOUT
        | StatusCode::TOO_EARLY
        | StatusCode::TOO_MANY_REQUESTS
        | StatusCode::SERVICE_UNAVAILABLE => after(response, SendError::retryable(reason)),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
            SendError::unauthorized(reason)
        }
        _ if status.is_redirection() => SendError::unauthorized(reason),
        _ if status.is_server_error() => after(response, SendError::failed(reason)),
        _ => SendError::rejected(reason),
    })
}

/// The error with what the response's `Retry-After` says.
pub(crate) fn after(response: &Response<Bytes>, error: SendError) -> SendError {
    match retry_after(response.headers()) {
        Some(after) => error.retry_after(after),
        None => error,
    }
}

/// A date counts from the server's own clock, if the response says what that shows: this machine's may be wrong.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<RetryAfter> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    RetryAfter::from_seconds(text).or_else(|| {
        let at = httpdate::parse_http_date(text.trim()).ok()?;
        let now = headers.get(DATE).and_then(|date| {
            let date = date.to_str().ok()?;
            httpdate::parse_http_date(date.trim()).ok()
        });
        Some(match now {
            Some(now) => RetryAfter::Delay(at.duration_since(now).unwrap_or_default()),
            None => RetryAfter::At(at.into()),
        })
    })
}

/// The first `N` bytes of text from outside, without secrets, control characters or runs of white space.
pub(crate) fn printable<const N: usize>(bytes: &[u8], secrets: &Secrets) -> Text<N> {
    // Some of it will be left out, so this is more than `N`.
    let bytes = bytes.trim_ascii_start();
    let bytes = bytes.get(..16 * N).unwrap_or(bytes);
    let redacted = secrets.redact(bytes);
    let mut text = Text::default();
    let mut has_gap = false;
    for character in String::from_utf8_lossy(&redacted).trim().chars() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;
    use alloc::string::ToString;

    fn response(status: u16, body: &'static str) -> Response<Bytes> {
        let mut response = Response::new(Bytes::from_static(body.as_bytes()));
        *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        response
    }

    fn outcome_of(status: u16) -> Result<Receipt, SendError> {
        outcome(&response(status, ""), &Secrets::default())
    }

    #[test]
    fn every_status_has_its_outcome() {
        for status in 100..1000 {
            let result = outcome_of(status);
            let expected = match status {
                200..300 => Ok(Receipt::delivered()),
                413 => Err(SendError::too_large("HTTP 413")),
                400 | 422 => Err(SendError::invalid_events(format!("HTTP {status}"))),
                500..=502 | 504..600 => Err(SendError::failed(format!("HTTP {status}"))),
                401 | 403 | 404 | 300..400 => {
                    Err(SendError::unauthorized(format!("HTTP {status}")))
                }
                408 | 425 | 429 | 503 => Err(SendError::retryable(format!("HTTP {status}"))),
                _ => Err(SendError::rejected(format!("HTTP {status}"))),
            };
            assert_eq!(result, expected);
        }
    }

    #[test]
    fn a_retry_after_is_seconds_or_a_date_and_anything_else_is_ignored() {
        let read = |text| retry_after(&headers([(RETRY_AFTER, text)]));
        let seconds = |n| Some(RetryAfter::Delay(Duration::from_secs(n)));
        assert_eq!(read("7"), seconds(7));
        assert_eq!(read("0"), seconds(0));
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

    fn headers<const N: usize>(headers: [(HeaderName, &'static str); N]) -> HeaderMap {
        let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
        HeaderMap::from_iter(headers)
    }

    #[test]
    fn a_date_to_retry_after_is_read_against_the_clock_of_the_server() {
        let at = "Sun, 06 Nov 1994 08:49:37 GMT";
        for (date, seconds) in [
            ("Sun, 06 Nov 1994 08:49:30 GMT", 7),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 0),
            ("Sun, 06 Nov 1994 08:50:37 GMT", 0),
            ("Sun, 06 Nov 1994 07:49:37 GMT", 3600),
        ] {
            let read = retry_after(&headers([(RETRY_AFTER, at), (DATE, date)]));
            let delay = RetryAfter::Delay(Duration::from_secs(seconds));
            assert_eq!(read, Some(delay), "{date}");
        }
        let read = retry_after(&headers([(RETRY_AFTER, at), (DATE, "now")]));
        assert!(matches!(read, Some(RetryAfter::At(_))));
        let read = retry_after(&headers([(RETRY_AFTER, "7"), (DATE, at)]));
        assert_eq!(read, Some(RetryAfter::Delay(Duration::from_secs(7))));
    }

    #[test]
    fn a_retry_after_counts_only_for_retryable_statuses() {
        for (status, is_honored) in [(429, true), (503, true), (401, false), (413, false)] {
            let mut with_header = response(status, "");
            let seconds = HeaderValue::from_static("7");
            with_header.headers_mut().insert(RETRY_AFTER, seconds);
            let differs = outcome(&with_header, &Secrets::default()) != outcome_of(status);
            assert_eq!(differs, is_honored, "{status}");
        }
    }

    #[test]
    fn an_error_quotes_the_beginning_of_the_response_on_one_line() {
        let error = outcome(
            &response(400, " {\"error\":\r\n\t\"no\u{1b}[2J\u{202e}\"}\n"),
            &Secrets::default(),
        );
        assert_eq!(
            error.map_err(|error| error.to_string()),
            Err("HTTP 400: {\"error\": \"no [2J \"}".into())
        );
        let long = "x".repeat(1000);
        let text = printable::<80>(long.as_bytes(), &Secrets::default());
        assert_eq!(text.as_str().len(), 80);
    }

    #[test]
    fn a_secret_is_redacted_wherever_the_response_repeats_it() {
        let secret = "sk-0123456789";
        let mut secrets = Secrets::default();
        secrets.add(secret.as_bytes());
        for before in 0..100 {
            let body = format!("{}{secret}{secret} {secret}", "x".repeat(before));
            let text = printable::<80>(body.as_bytes(), &secrets);
            assert!(!text.as_str().contains("sk-0"), "{text}");
        }
        for len in 8..secret.len() {
            let text = printable::<80>(format!("cut: {}", &secret[..len]).as_bytes(), &secrets);
            assert_eq!(text.as_str(), "cut: [redacted]");
        }
        secrets.add(b"sk-0123456789-and-more");
        let text = printable::<80>(b"sk-0123456789-and-more", &secrets);
        assert_eq!(text.as_str(), "[redacted]");
        let server = Uri::from_static("http://backend.test/api");
        let error = HttpError::new(format!("bad header {secret}"));
        let error = no_response(&error, &server, &secrets);
        assert_eq!(error.to_string(), "backend.test:80: bad header [redacted]");
    }

    #[test]
    fn an_error_without_a_response_names_the_server_once() {
        let text = |server: &'static str, message: &str| {
            let error = HttpError::new(message);
            no_response(&error, &Uri::from_static(server), &Secrets::default()).to_string()
        };
        let refused = "connection refused";
        let with_a_port = "http://127.0.0.1:8787/api/v1/telemetry";
        assert_eq!(
            text(with_a_port, refused),
            "127.0.0.1:8787: connection refused"
        );
        assert_eq!(
            text("https://a.test/", refused),
            "a.test:443: connection refused"
        );
        assert_eq!(
            text("http://[::1]:9/", refused),
            "[::1]:9: connection refused"
        );
        let named = "error sending request for url (http://127.0.0.1:8787/)";
        assert_eq!(text(with_a_port, named), named);
    }
}
