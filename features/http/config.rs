//! Where telemetry is sent, and with which credentials.

use super::config_error::{ConfigError, ConfigProblem};
use super::redact::Secrets;
use super::url::{self, Endpoint};
use crate::session::switch::Switch;
#[cfg(feature = "client")]
use crate::{diagnostic::Observer, session::builder::assembly::report_setting};
use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use http::header::{ACCEPT, ACCEPT_LANGUAGE, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use std::ffi::OsString;

const KEY_VARIABLE: &str = "TINKER_API_KEY";
const URL_VARIABLE: &str = "TINKER_BASE_URL";
pub(crate) const DEFAULT_URL: &str = "https://tinker.thinkingmachines.dev/services/tinker-prod";
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Headers that the transport or the HTTP client sets, and those that concern a single connection.
pub(crate) const RESERVED: [&str; 17] = [
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "te",
    "trailer",
    "trailers",
    "transfer-encoding",
    "upgrade",
    "x-api-key",
    "x-idempotency-key",
];

/// Headers to a proxy on the way, which are between it and the client.
const RESERVED_PREFIX: &str = "proxy-";

/// Headers whose values are ordinary words, which may stand in any message.
pub(super) const NOT_SECRET: [HeaderName; 3] = [ACCEPT, ACCEPT_LANGUAGE, USER_AGENT];

pub(super) const AGENT: &str = concat!("tinkex-telemetry/", env!("CARGO_PKG_VERSION"));

/// Shorter values are hardly secrets, and redacting them would hit ordinary text.
const MIN_SECRET_BYTES: usize = 6;

/// Servers refuse longer ones.
const MAX_VALUE_BYTES: usize = 8 << 10;

/// More than any server accepts.
const MAX_HEADERS: usize = 256;

/// Where telemetry is sent, and with what: base URL, API key, additional headers.
///
/// `Debug` shows neither the API key nor any header's value, and `Serialize` writes neither the key nor any header whose
/// value may be a secret. `Deserialize` reads `base_url`, `api_key` and `headers`, and takes what a file leaves out from
/// the environment, as [`from_env`](Self::from_env) does: the key belongs there rather than in a file.
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
    /// The base URL, the same for every spelling of it.
    pub(super) destination: Box<str>,
    /// What is questionable about it, said once by all clones.
    warning: Option<Arc<Warning>>,
    /// Without the idempotency key.
    pub(super) headers: HeaderMap,
    /// Redacted wherever a response's text is repeated.
    pub(super) secrets: Secrets,
}

struct Warning {
    text: String,
    is_said: AtomicBool,
}

impl Config {
    /// A base URL (`https://` or `http://`, at most 2 048 bytes) and an API key (visible ASCII and spaces, at most
    /// 8 KiB). Whitespace around them and slashes at the end of the URL are removed, but a line end in the key is an
    /// error.
    ///
    /// # Errors
    /// A [`ConfigError`] about `base_url` or `api_key`. The URL must be one that every client reads in the same way:
    /// without user, query, fragment, `.` and `..`, with a valid host and port.
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
    /// A [`ConfigError`] that names the variable. Where the [environment](crate::Options::enabled) switches
    /// telemetry off, no variable is required; if the session is enabled all the same, building it returns the error.
    pub fn from_env() -> Result<Self, ConfigError> {
        let is_enabled = Switch::in_environment() == Switch::On;
        Self::from_variables(is_enabled, |name| std::env::var_os(name))
    }

    fn from_variables(
        is_enabled: bool,
        get: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, ConfigError> {
        Self::completed(is_enabled, None, None, get)
    }

    /// What a file has, completed by the environment where it leaves something out.
    pub(super) fn of_file(url: Option<&str>, key: Option<&str>) -> Result<Self, ConfigError> {
        let is_enabled = Switch::in_environment() == Switch::On;
        Self::completed(is_enabled, url, key, |name| std::env::var_os(name))
    }

    fn completed(
        is_enabled: bool,
        url: Option<&str>,
        key: Option<&str>,
        get: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, ConfigError> {
        let is_of_file = |error: &ConfigError| ["base_url", "api_key"].contains(&error.setting());
        match ResolvedConfig::with_variables(url, key, get) {
            Err(error) if is_enabled || is_of_file(&error) => Err(error),
            resolved => Ok(Self { resolved }),
        }
    }

    /// Reports what is questionable, unless a session has done so.
    #[cfg(feature = "client")]
    pub(crate) fn report_warning(&self, session_id: &str) {
        let resolved = self.resolved.as_ref().ok();
        if let Some(warning) = resolved.and_then(ResolvedConfig::warning) {
            report_setting(&Observer::Log, session_id, &warning);
        }
    }

    /// Adds a header to every request, replacing one with the same name: `user-agent`, or what a proxy in front of the
    /// backend requires. Values are treated as secrets.
    ///
    /// # Errors
    /// A [`ConfigError`] about the header.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, ConfigError> {
        let parsed = header_name(name)?;
        let error = |(problem, message)| ConfigError::new(parsed.as_str(), problem, message);
        if RESERVED.contains(&parsed.as_str()) || parsed.as_str().starts_with(RESERVED_PREFIX) {
            let message = "is a header that the transport or the client sets: leave it out";
            return Err(error((ConfigProblem::Reserved, message.to_owned())));
        }
        let sensitive = header_value(value).map_err(error)?;
        if let Ok(resolved) = &mut self.resolved {
            if !NOT_SECRET.contains(&parsed) {
                resolved.add_secret(value);
            }
            let headers = &mut resolved.headers;
            if headers.len() >= MAX_HEADERS
                || headers.try_insert(parsed.clone(), sensitive).is_err()
            {
                let message = format!("is one header too many: there may be {MAX_HEADERS}");
                return Err(error((ConfigProblem::TooManyHeaders, message)));
            }
        }
        Ok(self)
    }
}

impl ResolvedConfig {
    /// What is not given comes from the variables.
    fn with_variables(
        url: Option<&str>,
        key: Option<&str>,
        get: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, ConfigError> {
        let read = |name| match get(name).map(OsString::into_string) {
            None => Ok(None),
            Some(Ok(value)) if value.trim().is_empty() => Ok(None),
            Some(Ok(value)) => Ok(Some(value)),
            Some(Err(_)) => {
                let message = "is not Unicode";
                Err(ConfigError::new(name, ConfigProblem::NotUnicode, message))
            }
        };
        let key_read = match key {
            Some(_) => None,
            None => Some(read(KEY_VARIABLE)?.ok_or_else(|| {
                let message =
                    "is not set: set it, or TINKER_TELEMETRY=off where only telemetry needs it";
                ConfigError::new(KEY_VARIABLE, ConfigProblem::Missing, message)
            })?),
        };
        let url_read = match url {
            Some(_) => None,
            None => read(URL_VARIABLE)?,
        };
        let url = match (url, &url_read) {
            (Some(url), _) => ("base_url", url),
            (None, read) => (URL_VARIABLE, read.as_deref().unwrap_or(DEFAULT_URL)),
        };
        let key = match (key, &key_read) {
            (Some(key), _) => ("api_key", key),
            (None, read) => (KEY_VARIABLE, read.as_deref().unwrap_or_default()),
        };
        Self::new(url, key)
    }

    /// Each value with the name that errors give it.
    fn new(url: (&str, &str), key: (&str, &str)) -> Result<Self, ConfigError> {
        // Line ends stay: they are refused below.
        let secret = key.1.trim_matches([' ', '\t']);
        let key_error = |(problem, message)| ConfigError::new(key.0, problem, message);
        if secret.is_empty() {
            return Err(key_error((ConfigProblem::Empty, "is empty".into())));
        }
        if secret.contains("://") {
            let message = format!("is a URL: are {} and {} exchanged?", key.0, url.0);
            return Err(key_error((ConfigProblem::Exchanged, message)));
        }
        let mut secrets = Secrets::default();
        secrets.add(secret.as_bytes());
        let endpoint: Endpoint = url::parse(url.1.trim()).map_err(|(problem, message)| {
            // The key may stand in the URL by mistake.
            let message = secrets.redact(message.as_bytes());
            ConfigError::new(url.0, problem, String::from_utf8_lossy(&message))
        })?;
        let mut headers = HeaderMap::with_capacity(8);
        let json = HeaderValue::from_static("application/json");
        headers.insert(CONTENT_TYPE, json.clone());
        headers.insert(ACCEPT, json);
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(X_API_KEY, header_value(secret).map_err(key_error)?);
        Ok(Self {
            endpoint: endpoint.uri,
            destination: endpoint.canonical,
            warning: endpoint.cleartext_host.map(|host| {
                Arc::new(Warning {
                    text: format!(
                        "{} sends the API key to {host} over plain http, where others can read it: use https://",
                        url.0
                    ),
                    is_said: AtomicBool::new(false),
                })
            }),
            headers,
            secrets,
        })
    }

    /// What is questionable, the first time.
    pub(super) fn warning(&self) -> Option<&str> {
        let warning = self.warning.as_ref()?;
        let is_said = warning.is_said.swap(true, Ordering::Relaxed);
        (!is_said).then_some(&*warning.text)
    }

    fn add_secret(&mut self, value: &str) {
        // A response may repeat a part of it: the token without its scheme, a cookie without its name.
        let pieces = value.split([' ', '\t', ';', ',', '=']);
        for piece in core::iter::once(value.trim()).chain(pieces) {
            if piece.len() >= MIN_SECRET_BYTES {
                self.secrets.add(piece.as_bytes());
            }
        }
    }
}

/// Errors do not show the name: a value may stand in its place.
pub(crate) fn header_name(name: &str) -> Result<HeaderName, ConfigError> {
    let error =
        |message: String| ConfigError::new("header name", ConfigProblem::HeaderName, message);
    if name.is_empty() {
        return Err(error("is empty".into()));
    }
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        match (1..).zip(name.chars()).find(|(_, c)| !is_token(*c)) {
            Some((at, odd)) => error(format!(
                "contains {} as character {at}, which no name of a header may",
                url::show(odd)
            )),
            None => error("is too long".into()),
        }
    })
}

pub(crate) fn header_value(value: &str) -> Result<HeaderValue, (ConfigProblem, String)> {
    let value = value.trim_matches([' ', '\t']);
    if value.contains(['\r', '\n', '\0']) {
        return Err((ConfigProblem::LineEnd, "contains CR, LF or NUL".into()));
    }
    let is_visible = |c: char| c.is_ascii_graphic() || c == ' ';
    if let Some((at, odd)) = (1..).zip(value.chars()).find(|(_, c)| !is_visible(*c)) {
        let message = format!(
            "contains {} as character {at}: only visible ASCII can be sent",
            url::show(odd)
        );
        return Err((ConfigProblem::HeaderValue, message));
    }
    if value.len() > MAX_VALUE_BYTES {
        let message = format!("is longer than {MAX_VALUE_BYTES} bytes");
        return Err((ConfigProblem::TooLong, message));
    }
    let parsed = HeaderValue::from_str(value);
    let mut value = parsed.map_err(|_| (ConfigProblem::HeaderValue, "cannot be sent".into()))?;
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
            .field("destination", &self.destination)
            .field("headers", &names)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

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
    fn an_invalid_url_is_refused_with_its_problem_and_shown_without_the_key() {
        for (url, expected) in [
            ("", ConfigProblem::Empty),
            (" \n", ConfigProblem::Empty),
            ("nonsense", ConfigProblem::Url),
            ("http://a b", ConfigProblem::Character),
            ("http://:80", ConfigProblem::Host),
            ("http://host:8O80", ConfigProblem::Port),
            ("ftp://host", ConfigProblem::Scheme),
            ("https://me:secret@host", ConfigProblem::Userinfo),
            ("https://host/?a=b", ConfigProblem::Query),
            ("https://host/api/v1/telemetry", ConfigProblem::Path),
        ] {
            assert_eq!(problem(url), Some(expected), "{url:?}");
        }
        for url in [
            "http://sk-sentinel-0123456789..x",
            "http://SK-SENTINEL-0123456789-",
        ] {
            let error = Config::new(url, SENTINEL).expect_err("refused").to_string();
            assert!(error.contains("[redacted]"), "{error}");
            assert!(!error.to_ascii_lowercase().contains("sentinel"), "{error}");
        }
        let swapped = Config::new(SENTINEL, "http://host").expect_err("refused");
        assert_eq!(swapped.problem(), ConfigProblem::Exchanged);
        assert_eq!(
            swapped.to_string(),
            "api_key is a URL: are api_key and base_url exchanged?"
        );
        let missing = Config::new(SENTINEL, " ").expect_err("refused");
        assert_eq!(missing.to_string(), "api_key is empty");
    }

    #[test]
    fn a_key_that_cannot_be_sent_is_refused_and_not_shown() {
        let refused = |key: &str| {
            let error = Config::new("http://host", key).expect_err("refused");
            let variables = [(KEY_VARIABLE, key), (URL_VARIABLE, "http://host")];
            let shown = from(&variables).expect_err("refused").to_string();
            let name = |text: String| text.replace("api_key", KEY_VARIABLE);
            assert_eq!(name(error.to_string()), shown);
            assert!(!shown.contains("0123"), "{shown}");
            error.problem()
        };
        for odd in [
            "\u{e9}", "\u{200b}", "\u{feff}", "\u{7f}", "\t", "\u{1}", "\u{201c}",
        ] {
            for key in [format!("sk-0123{odd}4567"), format!("sk-0123{odd}x")] {
                assert_eq!(refused(&key), ConfigProblem::HeaderValue, "{key:?}");
            }
        }
        assert_eq!(refused("sk-0123\n"), ConfigProblem::LineEnd);
        assert_eq!(refused("sk-0123\0"), ConfigProblem::LineEnd);
        assert_eq!(refused(&"0123".repeat(2049)), ConfigProblem::TooLong);
        assert!(Config::new("http://host", " any key\t").is_ok());
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
            "TINKER_API_KEY is not set: set it, or TINKER_TELEMETRY=off where only telemetry needs it"
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
            "TINKER_BASE_URL has a user or password (the part before \"@\"): leave it out"
        );
    }

    #[test]
    fn the_url_has_a_default_and_an_empty_variable_counts_as_not_set() {
        let default = format!("{DEFAULT_URL}{}", url::PATH);
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
            "x-a contains U+007F as character 1: only visible ASCII can be sent"
        );
        assert_eq!(
            refused("x-a", "d\u{e9}"),
            "x-a contains U+00E9 as character 2: only visible ASCII can be sent"
        );
        assert_eq!(refused("", "b"), "header name is empty");
        assert_eq!(
            refused("Bearer sk-0123456789", "authorization"),
            "header name contains a space as character 7, which no name of a header may"
        );
        assert_eq!(
            refused("x\na", "b"),
            "header name contains U+000A as character 2, which no name of a header may"
        );
    }

    #[test]
    fn headers_that_the_client_sets_or_that_concern_a_connection_are_refused() {
        let refused = |name: &str| {
            let config = Config::new("http://host", SENTINEL).expect("a config");
            config.header(name, "b").err().map(|error| error.problem())
        };
        for name in RESERVED {
            assert_eq!(refused(name), Some(ConfigProblem::Reserved), "{name}");
            assert_eq!(refused(&name.to_ascii_uppercase()), refused(name));
        }
        for name in [
            "Proxy-Authorization",
            "proxy-connection",
            "Proxy-Authenticate",
        ] {
            assert_eq!(refused(name), Some(ConfigProblem::Reserved), "{name}");
        }
        for name in [
            "user-agent",
            "authorization",
            "cookie",
            "x-tenant",
            "forwarded",
        ] {
            assert_eq!(refused(name), None, "{name}");
        }
    }

    #[test]
    fn more_headers_than_a_request_may_have_are_refused() {
        let mut config = Config::new("http://host", SENTINEL).expect("a config");
        let error = (0..).find_map(|number| {
            let result = config.clone().header(&format!("x-{number}"), "b");
            match result {
                Ok(more) => {
                    config = more;
                    None
                }
                Err(error) => Some(error.problem()),
            }
        });
        assert_eq!(error, Some(ConfigProblem::TooManyHeaders));
    }

    #[test]
    fn the_words_of_a_user_agent_are_no_secrets() {
        let config = Config::new("http://host", SENTINEL)
            .and_then(|config| config.header("user-agent", "application/1.0"))
            .expect("a config");
        let resolved = config.resolved.expect("a complete config");
        let text = b"content-type must be application/json";
        assert_eq!(&*resolved.secrets.redact(text), text);
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
