//! The attributes that semantic conventions give an HTTP request, from the metadata of its events.

use super::form::Form;
use super::json::{Cursor, Malformed, RawStr, Token};
use super::record::attribute;
use crate::bus::{HTTP_REQUEST_EXCEPTION, HTTP_REQUEST_START, HTTP_REQUEST_STOP};

/// What the metadata of a request's event says.
#[derive(Default)]
struct Request<'a> {
    method: Option<RawStr<'a>>,
    path: Option<RawStr<'a>>,
    kind: Option<RawStr<'a>>,
    status: Option<&'a str>,
    retry_count: Option<&'a str>,
}

/// Writes the attributes of a request, if `name` is that of one of its events.
pub(super) fn write_attributes<F: Form>(
    name: &str,
    data: &str,
    out: &mut F,
) -> Result<(), Malformed> {
    if ![
        HTTP_REQUEST_START,
        HTTP_REQUEST_STOP,
        HTTP_REQUEST_EXCEPTION,
    ]
    .contains(&name)
    {
        return Ok(());
    }
    let request = Request::read(data)?;
    for (name, text) in [
        ("http.request.method", request.method),
        ("url.path", request.path),
    ] {
        if let Some(text) = text {
            attribute(out, name, |out| out.str(text))?;
        }
    }
    for (name, digits) in [
        ("http.response.status_code", request.status),
        ("http.request.resend_count", request.retry_count),
    ] {
        // The convention leaves a count of zero out.
        if let Some(number @ 1..) = digits.and_then(|digits| digits.parse().ok()) {
            attribute(out, name, |out| {
                out.int(number);
                Ok(())
            })?;
        }
    }
    let is_failure = |status: &&str| status.parse().is_ok_and(|status: u16| status >= 400);
    let error = request.status.filter(is_failure).map(RawStr::plain);
    match error.or(request.kind) {
        Some(error) => attribute(out, "error.type", |out| out.str(error)),
        None => Ok(()),
    }
}

impl<'a> Request<'a> {
    fn read(data: &'a str) -> Result<Self, Malformed> {
        let mut request = Self::default();
        each_member(data, |key, value| {
            if key == "metadata" {
                each_member(value, |key, value| request.member(key, value))?;
            }
            Ok(())
        })?;
        Ok(request)
    }

    fn member(&mut self, key: &str, value: &'a str) -> Result<(), Malformed> {
        match (key, Cursor::over(value).token()?) {
            ("method", Token::Str(text)) => self.method = Some(text),
            ("path", Token::Str(text)) => self.path = Some(text),
            ("kind", Token::Str(text)) => self.kind = Some(text),
            ("status", Token::Number(number)) => self.status = Some(number.text),
            ("retry_count", Token::Number(number)) => self.retry_count = Some(number.text),
            _ => {}
        }
        Ok(())
    }
}

/// Visits the members of a value, if it is an object.
fn each_member<'a>(
    value: &'a str,
    mut visit: impl FnMut(&'a str, &'a str) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let mut cursor = Cursor::over(value);
    if !matches!(cursor.token()?, Token::Object) {
        return Ok(());
    }
    let mut is_first = true;
    while let Some(key) = cursor.key(is_first)? {
        is_first = false;
        visit(key.text, cursor.value()?)?;
    }
    Ok(())
}
