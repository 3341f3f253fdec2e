//! Where records are sent, in which encoding, and with what.

use super::variables::{Variables, list};
use crate::features::http::config::{RESERVED, header_name, header_value};
use crate::features::http::redact::Secrets;
use crate::features::http::url::{Endpoint, Fault, parse_to, parse_whole};
use crate::features::http::{ConfigError, ConfigProblem};
use crate::session::switch::Switch;
use crate::transport::SendError;
use alloc::borrow::ToOwned as _;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Uri};
use std::ffi::OsString;

const DEFAULT_ENDPOINT: &str = "http://localhost:4318";
const LOGS: &str = "/v1/logs";
const SERVICE_NAME: &str = "service.name";

/// How requests are encoded. gRPC is not among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Protocol {
    /// Binary protobuf: `http/protobuf`.
    #[default]
    HttpProtobuf,
    /// JSON: `http/json`. About twice as large.
    HttpJson,
}

/// Where an OpenTelemetry collector is, and what it is sent.
///
/// `Debug` shows no header's value.
///
/// ```
/// use tinkex_telemetry::otlp::{OtlpConfig, Protocol};
///
/// let config = OtlpConfig::new("http://127.0.0.1:4318")?
///     .protocol(Protocol::HttpJson)
///     .service_name("trainer")
///     .resource_attribute("deployment.environment.name", "staging")
///     .header("authorization", "Bearer a-token")?;
/// # drop(config);
/// # Ok::<_, tinkex_telemetry::http::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct OtlpConfig {
    pub(super) resolved: Result<ResolvedConfig, ConfigError>,
}

/// What all requests share.
#[derive(Clone)]
pub(super) struct ResolvedConfig {
    pub(super) endpoint: Uri,
    pub(super) destination: Box<str>,
    pub(super) warning: Option<Box<str>>,
    pub(super) protocol: Protocol,
    pub(super) headers: HeaderMap,
    pub(super) secrets: Secrets,
    /// Attributes of the resource, the last of each name.
    pub(super) resource: Vec<(String, String)>,
    cleartext_host: Option<Box<str>>,
    is_compressed: bool,
}

impl OtlpConfig {
    /// A collector's base URL (`https://` or `http://`), to which `/v1/logs` is added. Protobuf, not compressed.
    ///
    /// # Errors
    /// A [`ConfigError`] about `endpoint`: see [`Config::new`](crate::Config::new).
    pub fn new(endpoint: &str) -> Result<Self, ConfigError> {
        let endpoint = parse_to(endpoint.trim(), LOGS, &[LOGS]);
        ResolvedConfig::new("endpoint", endpoint).map(Self::of)
    }

    /// From the variables of the OpenTelemetry specification; an empty one counts as not set:
    ///
    /// | variable | meaning | default |
    /// |---|---|---|
    /// | `OTEL_EXPORTER_OTLP_ENDPOINT` | base URL, to which `/v1/logs` is added | `http://localhost:4318` |
    /// | `OTEL_EXPORTER_OTLP_LOGS_ENDPOINT` | the URL itself; goes before the other | |
    /// | `OTEL_EXPORTER_OTLP_HEADERS` | `name=value,name=value`, percent-encoded; values are secrets | none |
    /// | `OTEL_EXPORTER_OTLP_PROTOCOL` | `http/protobuf` or `http/json` | `http/protobuf` |
    /// | `OTEL_EXPORTER_OTLP_COMPRESSION` | `none` or `gzip` (feature `gzip`) | `none` |
    /// | `OTEL_SERVICE_NAME` | `service.name` | `unknown_service:` and the program's name |
    /// | `OTEL_RESOURCE_ATTRIBUTES` | `name=value,name=value`, percent-encoded | none |
    ///
    /// Headers, protocol and compression also have a variable for logs alone, `OTEL_EXPORTER_OTLP_LOGS_…`, which goes
    /// before. The session's own `http_timeout` takes the place of `OTEL_EXPORTER_OTLP_TIMEOUT`.
    ///
    /// # Errors
    /// A [`ConfigError`] that names the variable. Where the [environment](crate::Options::enabled) switches telemetry
    /// off, none is returned; if the session is enabled all the same, building it returns the error.
    pub fn from_env() -> Result<Self, ConfigError> {
        let is_enabled = Switch::in_environment() == Switch::On;
        Self::from_variables(is_enabled, |name| std::env::var_os(name))
    }

    fn from_variables(
        is_enabled: bool,
        get: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, ConfigError> {
        match ResolvedConfig::from_variables(&Variables(get)) {
            Err(error) if is_enabled => Err(error),
            resolved => Ok(Self { resolved }),
        }
    }

    const fn of(resolved: ResolvedConfig) -> Self {
        Self {
            resolved: Ok(resolved),
        }
    }

    fn with(mut self, change: impl FnOnce(&mut ResolvedConfig)) -> Self {
        if let Ok(resolved) = &mut self.resolved {
            change(resolved);
        }
        self
    }

    /// Sets the encoding. Default: [`Protocol::HttpProtobuf`].
    #[must_use]
    pub fn protocol(self, protocol: Protocol) -> Self {
        self.with(|config| config.set_protocol(protocol))
    }

    /// Compresses requests with gzip: about a tenth of the size, for about 10 ns of CPU time a byte.
    #[cfg(feature = "gzip")]
    #[must_use]
    pub fn gzip(self) -> Self {
        self.with(|config| config.set_gzip(true))
    }

    /// Sets the resource's `service.name`. Default: `unknown_service:` and the program's name.
    #[must_use]
    pub fn service_name(self, name: &str) -> Self {
        self.resource_attribute(SERVICE_NAME, name)
    }

    /// Sets an attribute of the resource.
    #[must_use]
    pub fn resource_attribute(self, name: &str, value: &str) -> Self {
        self.with(|config| config.set_resource(name.to_owned(), value.to_owned()))
    }

    /// Adds a header to every request, replacing one with the same name. The value is treated as a secret.
    ///
    /// # Errors
    /// A [`ConfigError`] about the header.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, ConfigError> {
        if let Ok(resolved) = &mut self.resolved {
            resolved.add_header(name, value)?;
        }
        Ok(self)
    }
}

impl ResolvedConfig {
    fn new(setting: &str, endpoint: Result<Endpoint, Fault>) -> Result<Self, ConfigError> {
        let endpoint =
            endpoint.map_err(|(problem, message)| ConfigError::new(setting, problem, message))?;
        let agent = concat!("tinkex-telemetry/", env!("CARGO_PKG_VERSION"));
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        let mut config = Self {
            endpoint: endpoint.uri,
            destination: endpoint.canonical,
            warning: None,
            protocol: Protocol::HttpProtobuf,
            headers,
            secrets: Secrets::default(),
            resource: Vec::new(),
            cleartext_host: endpoint.cleartext_host,
            is_compressed: false,
        };
        config.set_protocol(Protocol::HttpProtobuf);
        config.set_resource(SERVICE_NAME.to_owned(), unknown_service());
        Ok(config)
    }

    fn from_variables(
        variables: &Variables<impl Fn(&str) -> Option<OsString>>,
    ) -> Result<Self, ConfigError> {
        const URL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
        const LOGS_URL: &str = "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT";
        const ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
        let mut config = match variables.text(LOGS_URL)? {
            Some(url) => Self::new(LOGS_URL, parse_whole(&url))?,
            None => {
                let url = variables.text(URL)?;
                let url = url.as_deref().unwrap_or(DEFAULT_ENDPOINT);
                Self::new(URL, parse_to(url, LOGS, &[LOGS]))?
            }
        };
        if let Some((setting, text)) = variables.either("HEADERS")? {
            for (name, value) in list(&setting, &text)? {
                let added = config.add_header(&name, &value);
                added.map_err(|error| {
                    ConfigError::new(&setting, error.problem(), format!("has a header: {error}"))
                })?;
            }
        }
        if let Some((setting, text)) = variables.either("PROTOCOL")? {
            config.set_protocol(match &*text {
                "http/protobuf" => Protocol::HttpProtobuf,
                "http/json" => Protocol::HttpJson,
                "grpc" => {
                    return Err(word(
                        &setting,
                        "is grpc, which this crate does not speak: set http/protobuf, and the endpoint's port for HTTP (4318)",
                    ));
                }
                _ => return Err(word(&setting, "is neither http/protobuf nor http/json")),
            });
        }
        if let Some((setting, text)) = variables.either("COMPRESSION")? {
            match &*text {
                "none" => {}
                "gzip" if cfg!(feature = "gzip") => config.set_gzip(true),
                "gzip" => {
                    let message = "is gzip, which needs this crate's feature `gzip`";
                    return Err(word(&setting, message));
                }
                _ => return Err(word(&setting, "is neither none nor gzip")),
            }
        }
        if let Some(text) = variables.text(ATTRIBUTES)? {
            for (name, value) in list(ATTRIBUTES, &text)? {
                config.set_resource(name, value);
            }
        }
        if let Some(name) = variables.text("OTEL_SERVICE_NAME")? {
            config.set_resource(SERVICE_NAME.to_owned(), name);
        }
        Ok(config)
    }

    fn set_protocol(&mut self, protocol: Protocol) {
        let media_type = HeaderValue::from_static(match protocol {
            Protocol::HttpProtobuf => "application/x-protobuf",
            Protocol::HttpJson => "application/json",
        });
        self.protocol = protocol;
        self.headers.insert(CONTENT_TYPE, media_type.clone());
        self.headers.insert(ACCEPT, media_type);
    }

    fn set_gzip(&mut self, is_compressed: bool) {
        self.is_compressed = is_compressed;
        if is_compressed {
            let gzip = HeaderValue::from_static("gzip");
            self.headers.insert(CONTENT_ENCODING, gzip);
        }
    }

    fn set_resource(&mut self, name: String, value: String) {
        self.resource.retain(|(other, _)| *other != name);
        self.resource.push((name, value));
    }

    fn add_header(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let name = header_name(name)?;
        let error = |(problem, message)| ConfigError::new(name.as_str(), problem, message);
        if RESERVED.contains(&name.as_str()) && name.as_str() != "x-api-key" {
            let message = "is a header that the transport or the client sets: leave it out";
            return Err(error((ConfigProblem::Reserved, message.to_owned())));
        }
        let sensitive = header_value(value).map_err(error)?;
        // A response may repeat the token without its scheme.
        for piece in value
            .split(' ')
            .chain([value])
            .filter(|piece| piece.len() >= 6)
        {
            self.secrets.add(piece.as_bytes());
        }
        if self.headers.try_insert(name, sensitive).is_err() {
            let message = "is one header too many".to_owned();
            return Err(ConfigError::new(
                "header",
                ConfigProblem::TooManyHeaders,
                message,
            ));
        }
        self.warning = self.cleartext_host.as_ref().map(|host| {
            format!("the OTLP endpoint at {host} gets headers over plain http, where others can read them: use https://").into()
        });
        Ok(())
    }

    /// The body as it is sent.
    pub(super) fn compressed(&self, body: Vec<u8>) -> Result<Vec<u8>, SendError> {
        #[cfg(feature = "gzip")]
        if self.is_compressed {
            use flate2::{Compression, write::GzEncoder};
            use std::io::Write as _;
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            let compressed = encoder.write_all(&body).and_then(|()| encoder.finish());
            return compressed.map_err(SendError::retryable);
        }
        Ok(body)
    }
}

fn word(setting: &str, message: &str) -> ConfigError {
    ConfigError::new(setting, ConfigProblem::Word, message)
}

/// What the specification calls a service without a name.
fn unknown_service() -> String {
    let program = std::env::current_exe().ok();
    let name = program.as_deref().and_then(|path| path.file_stem());
    match name {
        Some(name) => format!("unknown_service:{}", name.display()),
        None => "unknown_service".to_owned(),
    }
}

impl fmt::Debug for OtlpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.resolved {
            Ok(resolved) => resolved.fmt(f),
            Err(error) => f.debug_tuple("OtlpConfig").field(error).finish(),
        }
    }
}

impl fmt::Debug for ResolvedConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.keys().map(http::HeaderName::as_str).collect();
        f.debug_struct("OtlpConfig")
            .field("endpoint", &format_args!("{}", self.endpoint))
            .field("protocol", &self.protocol)
            .field("headers", &names)
            .field("resource", &self.resource)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    fn from(variables: &[(&str, &str)]) -> Result<ResolvedConfig, ConfigError> {
        let get = |name: &str| {
            let found = variables.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| OsString::from(value))
        };
        OtlpConfig::from_variables(true, get).and_then(|config| config.resolved)
    }

    fn error(variables: &[(&str, &str)]) -> String {
        from(variables).expect_err("a setting is wrong").to_string()
    }

    #[test]
    fn the_endpoint_for_logs_is_taken_as_it_is_and_the_general_one_gets_a_path() {
        let endpoint =
            |variables: &[(&str, &str)]| from(variables).expect("valid").endpoint.to_string();
        assert_eq!(endpoint(&[]), "http://localhost:4318/v1/logs");
        let general = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://otel.example/base/");
        assert_eq!(endpoint(&[general]), "https://otel.example/base/v1/logs");
        let logs = ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://127.0.0.1:9/in");
        assert_eq!(endpoint(&[general, logs]), "http://127.0.0.1:9/in");
        for whole in ["http://127.0.0.1:9/in/", "http://127.0.0.1:9/a?b=c/"] {
            let logs = ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", whole);
            assert_eq!(endpoint(&[general, logs]), whole);
        }
        let logs = ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://127.0.0.1:9/a#b");
        assert!(error(&[logs]).contains("has a fragment"));
        assert_eq!(
            error(&[(
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                "http://127.0.0.1:4318/v1/logs"
            )]),
            "OTEL_EXPORTER_OTLP_ENDPOINT ends in /v1/logs, which is added to it: leave that out"
        );
    }

    #[test]
    fn a_wrong_variable_is_named_and_a_secret_is_not_shown() {
        let message = error(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]);
        assert!(
            message.starts_with("OTEL_EXPORTER_OTLP_PROTOCOL is grpc"),
            "{message}"
        );
        let message = error(&[("OTEL_EXPORTER_OTLP_LOGS_COMPRESSION", "zstd")]);
        assert_eq!(
            message,
            "OTEL_EXPORTER_OTLP_LOGS_COMPRESSION is neither none nor gzip"
        );
        for headers in [
            "authorization",
            "sec ret=1",
            "a=sk-secret%0a",
            "host=sk-secret",
        ] {
            let message = error(&[("OTEL_EXPORTER_OTLP_HEADERS", headers)]);
            assert!(
                message.starts_with("OTEL_EXPORTER_OTLP_HEADERS has"),
                "{message}"
            );
            assert!(!message.contains("secret"), "{message}");
        }
        let config = from(&[(
            "OTEL_EXPORTER_OTLP_HEADERS",
            "authorization=Bearer%20sk-secret",
        )]);
        let config = config.expect("valid");
        assert_eq!(config.headers["authorization"], "Bearer sk-secret");
        assert!(!format!("{config:?}").contains("secret"));
    }

    #[test]
    fn the_name_of_the_service_goes_before_the_attribute() {
        let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,team=b%2Cc");
        let config = from(&[attributes]).expect("valid");
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            config.resource,
            [pair("service.name", "a"), pair("team", "b,c")]
        );
        let config = from(&[attributes, ("OTEL_SERVICE_NAME", "d")]).expect("valid");
        assert_eq!(
            config.resource,
            [pair("team", "b,c"), pair("service.name", "d")]
        );
    }

    #[test]
    fn headers_over_plain_http_to_another_host_are_warned_about() {
        let headers = ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=sk-secret");
        let url = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel.example");
        assert!(from(&[url, headers]).expect("valid").warning.is_some());
        assert!(from(&[url]).expect("valid").warning.is_none());
        assert!(from(&[headers]).expect("valid").warning.is_none());
    }
}
