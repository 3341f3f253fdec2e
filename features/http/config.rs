//! Where telemetry is sent, and with which credentials.

use crate::session::options::enabled_by_environment;
use crate::text::Text;
use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use core::fmt;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::uri::Scheme;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use std::ffi::OsString;

const KEY_VARIABLE: &str = "TINKER_API_KEY";
const URL_VARIABLE: &str = "TINKER_BASE_URL";
const DEFAULT_URL: &str = "https://tinker.thinkingmachines.dev/services/tinker-prod";
pub(super) const PATH: &str = "/api/v1/telemetry";
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Headers that the transport or the HTTP client sets.
const RESERVED: [&str; 9] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "transfer-encoding",
    "x-api-key",
    "x-idempotency-key",
];

/// Shorter values are hardly secrets, and redacting them would hit ordinary text.
const MIN_SECRET_BYTES: usize = 6;

/// Where telemetry is sent, and with what: base URL, API key, additional headers.
///
/// `Debug` shows neither the API key nor any header's value.
///
/// ```
/// use tinkex_telemetry::Config;
///
/// let config = Config::new("http://127.0.0.1:8080", "the key")?
///     .header("cf-access-client-id", "an id")?;
/// # drop(config);
/// # Ok::<_, tinkex_telemetry::http::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Config {
    pub(super) resolved: Result<ResolvedConfig, ConfigError>,
}

/// What all requests share.
#[derive(Clone)]
pub(super) struct ResolvedConfig {
    pub(super) endpoint: Uri,
    /// Without the idempotency key.
    pub(super) headers: HeaderMap,
    /// Redacted wherever a response's text is repeated.
    pub(super) secrets: Vec<Box<[u8]>>,
}

impl Config {
    /// A base URL (`https://` or `http://`, no query) and an API key. Whitespace around them and slashes at the end of
    /// the URL are removed, but a line end in the key is an error.
    ///
    /// # Errors
    /// A [`ConfigError`] about `base_url` or `api_key`.
    pub fn new(base_url: &str, api_key: &str) -> Result<Self, ConfigError> {
        let resolved = ResolvedConfig::new(("base_url", base_url), ("api_key", api_key))?;
        Ok(Self {
            resolved: Ok(resolved),
        })
    }

    /// From the environment: `TINKER_API_KEY`, which is required, and `TINKER_BASE_URL`, by default
    /// `https://tinker.thinkingmachines.dev/services/tinker-prod`. An empty variable counts as not set.
    ///
    /// # Errors
    /// A [`ConfigError`] that names the variable. Where `TINKER_TELEMETRY` switches telemetry off, no variable is
    /// required; if the session is enabled all the same, building it returns the error.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_variables(enabled_by_environment(), |name| std::env::var_os(name))
    }

    fn from_variables(
        is_enabled: bool,
        get: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, ConfigError> {
        match ResolvedConfig::from_variables(get) {
            Err(error) if is_enabled => Err(error),
            resolved => Ok(Self { resolved }),
        }
    }

    /// Adds a header to every request, replacing one with the same name: `user-agent`, or what a proxy in front of the
    /// backend requires. Values are treated as secrets.
    ///
    /// # Errors
    /// A [`ConfigError`] about the header.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, ConfigError> {
        let error = |problem| ConfigError::new(name, problem);
        let parsed = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| error(ConfigProblem::HeaderName))?;
        if RESERVED.contains(&parsed.as_str()) {
            return Err(error(ConfigProblem::Reserved));
        }
        let sensitive = header_value(value).map_err(error)?;
        if let Ok(resolved) = &mut self.resolved {
            resolved.add_secret(value);
            resolved.headers.insert(parsed, sensitive);
        }
        Ok(self)
    }
}

impl ResolvedConfig {
    fn from_variables(get: impl Fn(&str) -> Option<OsString>) -> Result<Self, ConfigError> {
        let read = |name| match get(name).map(OsString::into_string) {
            None => Ok(None),
            Some(Ok(value)) if value.trim().is_empty() => Ok(None),
            Some(Ok(value)) => Ok(Some(value)),
            Some(Err(_)) => Err(ConfigError::new(name, ConfigProblem::NotUnicode)),
        };
        let key = read(KEY_VARIABLE)?
            .ok_or_else(|| ConfigError::new(KEY_VARIABLE, ConfigProblem::Missing))?;
        let url = read(URL_VARIABLE)?.unwrap_or_else(|| DEFAULT_URL.to_owned());
        Self::new((URL_VARIABLE, &url), (KEY_VARIABLE, &key))
    }

    /// Each value with the name that errors give it.
    fn new(url: (&str, &str), key: (&str, &str)) -> Result<Self, ConfigError> {
        let endpoint =
            endpoint(url.1.trim()).map_err(|problem| ConfigError::new(url.0, problem))?;
        let key_error = |problem| ConfigError::new(key.0, problem);
        // Line ends stay: they are refused below.
        let secret = key.1.trim_matches([' ', '\t']);
        if secret.is_empty() {
            return Err(key_error(ConfigProblem::Empty));
        }
        let mut headers = HeaderMap::with_capacity(8);
        let json = HeaderValue::from_static("application/json");
        let agent = concat!("tinkex-telemetry/", env!("CARGO_PKG_VERSION"));
        headers.insert(CONTENT_TYPE, json.clone());
        headers.insert(ACCEPT, json);
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        headers.insert(X_API_KEY, header_value(secret).map_err(key_error)?);
        Ok(Self {
            endpoint,
            headers,
            secrets: Vec::from([secret.as_bytes().into()]),
        })
    }

    fn add_secret(&mut self, value: &str) {
        // A response may repeat a part of it: the token without its scheme, a cookie without its name.
        let pieces = value.split([' ', '\t', ';', ',', '=']);
        for piece in core::iter::once(value.trim()).chain(pieces) {
            let secret = piece.as_bytes();
            if secret.len() >= MIN_SECRET_BYTES
                && !self.secrets.iter().any(|known| **known == *secret)
            {
                self.secrets.push(secret.into());
            }
        }
    }
}

fn endpoint(base: &str) -> Result<Uri, ConfigProblem> {
    if base.is_empty() {
        return Err(ConfigProblem::Empty);
    }
    let uri: Uri = base.parse().map_err(|_| ConfigProblem::Url)?;
    match uri.scheme() {
        None => return Err(ConfigProblem::Url),
        Some(scheme) if *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS => {}
        Some(_) => return Err(ConfigProblem::Scheme),
    }
    if uri
        .authority()
        .is_some_and(|host| host.as_str().contains('@'))
    {
        return Err(ConfigProblem::Userinfo);
    }
    if uri.host().is_none_or(str::is_empty) {
        return Err(ConfigProblem::Host);
    }
    // `Uri`'s parser drops a fragment.
    if uri.query().is_some() || base.contains('#') {
        return Err(ConfigProblem::Query);
    }
    let base = base.trim_end_matches('/');
    format!("{base}{PATH}")
        .parse()
        .map_err(|_| ConfigProblem::Url)
}

fn header_value(value: &str) -> Result<HeaderValue, ConfigProblem> {
    if value.contains(['\r', '\n', '\0']) {
        return Err(ConfigProblem::LineEnd);
    }
    let mut value = HeaderValue::from_str(value).map_err(|_| ConfigProblem::HeaderValue)?;
    value.set_sensitive(true);
    Ok(value)
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.resolved {
            Ok(resolved) => resolved.fmt(f),
            Err(error) => f.debug_tuple("Config").field(error).finish(),
        }
    }
}

impl fmt::Debug for ResolvedConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.keys().map(HeaderName::as_str).collect();
        f.debug_struct("Config")
            .field("endpoint", &format_args!("{}", self.endpoint))
            .field("headers", &names)
            .finish_non_exhaustive()
    }
}

/// An invalid or missing setting. The message names the setting, never its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    setting: Text<64>,
    problem: ConfigProblem,
}

/// What is wrong with a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConfigProblem {
    /// The variable is not set, or empty.
    Missing,
    /// The value is empty.
    Empty,
    /// The variable is not valid Unicode.
    NotUnicode,
    /// The value contains CR, LF or NUL.
    LineEnd,
    /// Not a valid header name.
    HeaderName,
    /// Not a valid header value: it contains characters other than visible ASCII.
    HeaderValue,
    /// A header that the transport or the client sets.
    Reserved,
    /// Not an absolute URL.
    Url,
    /// A scheme that is neither `http` nor `https`.
    Scheme,
    /// A URL without a host.
    Host,
    /// A URL with a user or a password.
    Userinfo,
    /// A URL with a query or a fragment.
    Query,
}

impl ConfigError {
    fn new(setting: &str, problem: ConfigProblem) -> Self {
        let setting = Text::new(setting.escape_debug());
        Self { setting, problem }
    }

    /// The variable (`TINKER_API_KEY`), the argument (`api_key`, `base_url`) or the header.
    #[must_use]
    pub fn setting(&self) -> &str {
        self.setting.as_str()
    }

    /// What is wrong with it.
    #[must_use]
    pub const fn problem(&self) -> ConfigProblem {
        self.problem
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.problem {
            ConfigProblem::Missing => "is not set: set it, or TINKER_TELEMETRY=off to do without",
            ConfigProblem::Empty => "is empty",
            ConfigProblem::NotUnicode => "is not Unicode",
            ConfigProblem::LineEnd => "contains CR, LF or NUL",
            ConfigProblem::HeaderName => "is not the name of a header",
            ConfigProblem::HeaderValue => "contains characters other than visible ASCII",
            ConfigProblem::Reserved => "is a header that is set for you",
            ConfigProblem::Url => "is not an absolute URL",
            ConfigProblem::Scheme => "is neither http:// nor https://",
            ConfigProblem::Host => "has no host",
            ConfigProblem::Userinfo => "has a user or password: leave it out",
            ConfigProblem::Query => "has a query or fragment: leave it out",
        };
        write!(f, "{} {what}", self.setting)
    }
}

impl core::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::{String, ToString};

    const SENTINEL: &str = "sk-sentinel-0123456789";

    fn problem(url: &str) -> Option<ConfigProblem> {
        Config::new(url, SENTINEL)
            .err()
            .map(|error| error.problem())
    }

    fn from(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        from_switched(true, variables)
    }

    fn from_switched(is_enabled: bool, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::from_variables(is_enabled, |name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| value.into())
        })
    }

    fn endpoint_of(config: Config) -> String {
        let resolved = config.resolved.expect("a complete config");
        resolved.endpoint.to_string()
    }

    #[test]
    fn each_invalid_url_is_refused_with_its_problem() {
        for (url, expected) in [
            ("", ConfigProblem::Empty),
            ("  ", ConfigProblem::Empty),
            ("nonsense", ConfigProblem::Url),
            ("/path/alone", ConfigProblem::Url),
            ("http://", ConfigProblem::Url),
            ("http://a b", ConfigProblem::Url),
            ("http://:80", ConfigProblem::Host),
            ("ftp://host", ConfigProblem::Scheme),
            ("https://me:secret@host", ConfigProblem::Userinfo),
            ("https://me@host", ConfigProblem::Userinfo),
            ("https://host/?a=b", ConfigProblem::Query),
            ("https://host/#part", ConfigProblem::Query),
            ("https://host\r\nx: y", ConfigProblem::Url),
        ] {
            assert_eq!(problem(url), Some(expected), "{url:?}");
        }
    }

    #[test]
    fn slashes_at_the_end_of_a_url_are_removed() {
        for (url, expected) in [
            ("http://127.0.0.1:1", "http://127.0.0.1:1/api/v1/telemetry"),
            ("https://host/", "https://host/api/v1/telemetry"),
            (" https://host/a/b// ", "https://host/a/b/api/v1/telemetry"),
            (
                "HTTPS://[::1]:8443/x",
                "https://[::1]:8443/x/api/v1/telemetry",
            ),
        ] {
            let config = Config::new(url, SENTINEL).expect(url);
            assert_eq!(endpoint_of(config), expected);
        }
    }

    #[test]
    fn an_error_names_the_variable_and_never_its_value() {
        let refused = |variables: &[_]| from(variables).expect_err("refused").to_string();
        assert_eq!(
            refused(&[]),
            "TINKER_API_KEY is not set: set it, or TINKER_TELEMETRY=off to do without"
        );
        assert_eq!(refused(&[(KEY_VARIABLE, "")]), refused(&[]));
        let split = format!("{SENTINEL}\r\nx-evil: 1");
        assert_eq!(
            refused(&[(KEY_VARIABLE, &split)]),
            "TINKER_API_KEY contains CR, LF or NUL"
        );
        assert_eq!(
            refused(&[
                (KEY_VARIABLE, SENTINEL),
                (URL_VARIABLE, "https://me:secret@host")
            ]),
            "TINKER_BASE_URL has a user or password: leave it out"
        );
    }

    #[test]
    fn the_url_has_a_default_and_an_empty_variable_counts_as_not_set() {
        let default = format!("{DEFAULT_URL}{PATH}");
        let key = (KEY_VARIABLE, SENTINEL);
        assert_eq!(endpoint_of(from(&[key]).expect("a key")), default);
        let empty = from(&[key, (URL_VARIABLE, " ")]).expect("a key");
        assert_eq!(endpoint_of(empty), default);
        let other = from(&[key, (URL_VARIABLE, "http://host/")]).expect("a key");
        assert_eq!(endpoint_of(other), "http://host/api/v1/telemetry");
    }

    #[test]
    fn with_telemetry_switched_off_a_missing_key_is_an_error_only_when_used() {
        let config = from_switched(false, &[]).expect("no variable is required");
        let config = config.header("x-a", "b").expect("a header");
        let error = config.resolved.err().map(|error| error.problem());
        assert_eq!(error, Some(ConfigProblem::Missing));
    }

    #[test]
    fn invalid_headers_are_refused_by_name() {
        let refused = |name, value| {
            let config = Config::new("http://host", SENTINEL).expect("a config");
            config.header(name, value).expect_err("refused").to_string()
        };
        assert_eq!(refused("x-a", "b\r\nc: d"), "x-a contains CR, LF or NUL");
        assert_eq!(refused("x-a", "b\0"), "x-a contains CR, LF or NUL");
        assert_eq!(
            refused("x-a", "\u{7f}"),
            "x-a contains characters other than visible ASCII"
        );
        assert_eq!(refused("", "b"), " is not the name of a header");
        assert_eq!(refused("x\na", "b"), "x\\na is not the name of a header");
        assert_eq!(
            refused("X-API-Key", "b"),
            "X-API-Key is a header that is set for you"
        );
        assert_eq!(refused("Host", "b"), "Host is a header that is set for you");
    }

    #[test]
    fn debug_shows_no_secret() {
        let config = Config::new("http://host", SENTINEL)
            .and_then(|config| config.header("cf-access-client-secret", "hush-hush"))
            .expect("a config");
        let shown = format!("{config:?} {config:#?}");
        assert!(
            !shown.contains(SENTINEL) && !shown.contains("hush"),
            "{shown}"
        );
        assert!(shown.contains("cf-access-client-secret"), "{shown}");
        let resolved = config.resolved.expect("a complete config");
        let shown = format!("{resolved:?} {:?}", resolved.headers);
        assert!(
            !shown.contains(SENTINEL) && !shown.contains("hush"),
            "{shown}"
        );
    }
}
