//! The variables of the OpenTelemetry specification, and the lists in them.

use crate::features::http::{ConfigError, ConfigProblem};
use alloc::borrow::{Cow, ToOwned as _};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use std::ffi::OsString;

/// Reads variables by name.
pub(super) struct Variables<F>(pub(super) F);

impl<F: Fn(&str) -> Option<OsString>> Variables<F> {
    /// A variable's text; `None` if it is not set or empty.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, ConfigError> {
        match (self.0)(name).map(OsString::into_string) {
            None => Ok(None),
            Some(Ok(value)) if value.trim().is_empty() => Ok(None),
            Some(Ok(value)) => Ok(Some(value.trim().to_owned())),
            Some(Err(_)) => Err(ConfigError::new(
                name,
                ConfigProblem::NotUnicode,
                "is not Unicode",
            )),
        }
    }

    /// The variable for logs, or else the one for all signals, with the name of the one that is set.
    pub(super) fn either(
        &self,
        name: &'static str,
    ) -> Result<Option<(Cow<'static, str>, String)>, ConfigError> {
        let general = format!("OTEL_EXPORTER_OTLP_{name}");
        let logs = format!("OTEL_EXPORTER_OTLP_LOGS_{name}");
        for name in [logs, general] {
            if let Some(value) = self.text(&name)? {
                return Ok(Some((name.into(), value)));
            }
        }
        Ok(None)
    }
}

/// Reads `name=value,name=value`, in which names and values may be percent-encoded. Errors do not show it: it may hold
/// secrets.
pub(super) fn list(setting: &str, text: &str) -> Result<Vec<(String, String)>, ConfigError> {
    let mut pairs = Vec::new();
    for (at, pair) in (1..).zip(text.split(',')) {
        if pair.trim().is_empty() {
            continue;
        }
        let error = |what: &str| {
            let message = format!("{what} in its entry {at}: write name=value,name=value");
            ConfigError::new(setting, ConfigProblem::List, message)
        };
        let (name, value) = pair.split_once('=').ok_or_else(|| error("has no \"=\""))?;
        let name = decoded(name.trim()).ok_or_else(|| error("has a \"%\" that is no escape"))?;
        let value = decoded(value.trim()).ok_or_else(|| error("has a \"%\" that is no escape"))?;
        if name.is_empty() {
            return Err(error("has no name"));
        }
        pairs.push((name, value));
    }
    Ok(pairs)
}

/// The text without percent-encoding.
fn decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let value = digit()? << 4 | digit()?;
        out.push(u8::try_from(value).ok()?);
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    #[test]
    fn a_list_is_read_as_the_specification_writes_it() {
        let pairs = list("X", " a=1, b%20c = d%3De=f ,,").expect("a list");
        let expected = [("a", "1"), ("b c", "d=e=f")].map(|(a, b)| (a.into(), b.into()));
        assert_eq!(pairs, expected);
        assert_eq!(list("X", ""), Ok(Vec::new()));
    }

    #[test]
    fn what_is_wrong_with_a_list_is_said_without_showing_it() {
        for (text, expected) in [
            (
                "a=1,secret",
                "X has no \"=\" in its entry 2: write name=value,name=value",
            ),
            (
                "=secret",
                "X has no name in its entry 1: write name=value,name=value",
            ),
            (
                "a=%4",
                "X has a \"%\" that is no escape in its entry 1: write name=value,name=value",
            ),
            (
                "a=%ff",
                "X has a \"%\" that is no escape in its entry 1: write name=value,name=value",
            ),
        ] {
            let error = list("X", text).expect_err(text);
            assert_eq!(error.to_string(), expected);
            assert_eq!(error.problem(), ConfigProblem::List);
        }
    }
}
