//! The configuration in files: serde without its derive macros, and without a secret in any message.

use super::config::{AGENT, Config, NOT_SECRET};
use super::url;
use crate::text::Text;
use crate::text::near::Nearest;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString as _};
use core::fmt;
use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde::ser::{Error as _, Serialize, SerializeStruct as _, Serializer};

const NAMES: &[&str] = &["base_url", "api_key", "headers"];

/// Visits that refuse a value without showing it, which serde's own would do.
macro_rules! refuse {
    ($error:ident: $($visit:ident $type:ty),*) => {$(
        fn $visit<E: de::Error>(self, _: $type) -> Result<Self::Value, E> {
            Err(self.$error())
        }
    )*};
}

/// Without the API key, and without the headers whose values may be secrets.
///
/// # Errors
/// A configuration from an environment that switches telemetry off may be incomplete, and then there is nothing to write.
impl Serialize for Config {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let resolved = self.resolved.as_ref().map_err(S::Error::custom)?;
        let endpoint = resolved.endpoint.to_string();
        let base_url = endpoint.strip_suffix(url::PATH).unwrap_or(&endpoint);
        let headers: BTreeMap<&str, &str> = NOT_SECRET
            .iter()
            .filter_map(|name| Some((name.as_str(), resolved.headers.get(name)?.to_str().ok()?)))
            .filter(|(_, value)| ![AGENT, "application/json"].contains(value))
            .collect();
        let mut out =
            serializer.serialize_struct("Config", 1 + usize::from(!headers.is_empty()))?;
        out.serialize_field("base_url", base_url)?;
        if headers.is_empty() {
            out.skip_field("headers")?;
        } else {
            out.serialize_field("headers", &headers)?;
        }
        out.end()
    }
}

/// For formats that describe themselves, such as TOML and JSON.
///
/// # Errors
/// As for [`Config::new`] and [`Config::header`], and for a setting that does not exist, with the nearest that does. None
/// shows a secret; but some formats, TOML among them, quote the line of the file that an error is about.
impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Not as a struct: a format would show what stands there instead, which may be a secret.
        deserializer.deserialize_any(All)
    }
}

struct All;

impl All {
    fn no_settings<E: de::Error>(&self) -> E {
        E::custom("the configuration must be settings with their values")
    }
}

impl<'de> Visitor<'de> for All {
    type Value = Config;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("base_url, api_key and headers")
    }

    refuse! {
        no_settings: visit_bool bool, visit_i64 i64, visit_i128 i128, visit_u64 u64, visit_u128 u128, visit_f64 f64,
        visit_str &str, visit_bytes &[u8]
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Config, M::Error> {
        let (mut base_url, mut api_key, mut headers) = (None, None, None);
        while let Some(name) = map.next_key_seed(Name)? {
            let is_new = match name {
                "base_url" => base_url
                    .replace(map.next_value_seed(Value(name))?)
                    .is_none(),
                "api_key" => api_key.replace(map.next_value_seed(Value(name))?).is_none(),
                _ => headers.replace(map.next_value_seed(Headers)?).is_none(),
            };
            if !is_new {
                return Err(de::Error::custom(format_args!("{name} is given twice")));
            }
        }
        let config = Config::of_file(base_url.as_deref(), api_key.as_deref());
        let config = headers.unwrap_or_default().iter().try_fold(
            config.map_err(de::Error::custom)?,
            |config, (name, value)| config.header(name, value),
        );
        config.map_err(de::Error::custom)
    }
}

/// The name of a setting.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = &'static str;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Name {
    type Value = &'static str;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a setting")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<Self::Value, E> {
        let known = NAMES.iter().copied();
        known.clone().find(|name| *name == key).ok_or_else(|| {
            let nearest = Nearest::to(key, known);
            E::custom(format_args!(
                "there is no setting \"{}\": {}",
                Text::<64>::new(key.escape_debug()),
                nearest.shown(|name, f| f.write_str(name))
            ))
        })
    }
}

/// A text that may be a secret: what stands there instead is not shown.
struct Value(&'static str);

impl Value {
    fn no_text<E: de::Error>(&self) -> E {
        E::custom(format_args!("{} must be a text", self.0))
    }
}

impl<'de> DeserializeSeed<'de> for Value {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Value {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a text for {}", self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
        Ok(text.into())
    }

    refuse! {
        no_text: visit_bool bool, visit_i64 i64, visit_i128 i128, visit_u64 u64, visit_u128 u128, visit_f64 f64,
        visit_bytes &[u8]
    }
}

/// Names of headers with their values.
struct Headers;

impl Headers {
    fn no_map<E: de::Error>(&self) -> E {
        E::custom("headers must be names of headers with their values")
    }
}

impl<'de> DeserializeSeed<'de> for Headers {
    type Value = BTreeMap<String, String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Headers {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("names of headers with their values")
    }

    refuse! {
        no_map: visit_bool bool, visit_i64 i64, visit_i128 i128, visit_u64 u64, visit_u128 u128, visit_f64 f64,
        visit_str &str, visit_bytes &[u8]
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut headers = BTreeMap::new();
        while let Some(name) = map.next_key_seed(Value("the name of a header"))? {
            let value = map.next_value_seed(Value("the value of a header"))?;
            headers.insert(name, value);
        }
        Ok(headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use serde_json::json;

    const KEY: &str = "sk-sentinel-0123456789";

    fn read(json: serde_json::Value) -> Result<Config, String> {
        serde_json::from_value(json).map_err(|error| {
            let error = error.to_string();
            assert!(
                !error.contains("sentinel") && !error.contains("0123456789"),
                "{error}"
            );
            error
        })
    }

    fn written(config: &Config) -> String {
        serde_json::to_string(config).expect("it serializes")
    }

    #[test]
    fn a_file_has_the_url_the_headers_and_perhaps_the_key() {
        let config = read(json!({
            "base_url": "https://telemetry.example/base/",
            "api_key": KEY,
            "headers": { "x-tenant": "7", "user-agent": "mine", "authorization": KEY },
        }))
        .expect("it is valid");
        let headers = &config.resolved.as_ref().expect("it is complete").headers;
        assert_eq!(headers["x-tenant"], "7");
        assert_eq!(headers["x-api-key"], KEY);
        assert_eq!(
            written(&config),
            r#"{"base_url":"https://telemetry.example/base","headers":{"user-agent":"mine"}}"#
        );
    }

    #[test]
    fn the_key_is_never_written() {
        let config = Config::new("http://127.0.0.1:8080", KEY)
            .and_then(|config| config.header("x-second-key", KEY))
            .expect("it is valid");
        assert_eq!(written(&config), r#"{"base_url":"http://127.0.0.1:8080"}"#);
    }

    #[test]
    fn what_is_wrong_is_named_and_no_secret_is_shown() {
        let url = "https://telemetry.example";
        for (file, expected) in [
            (
                json!({ "base_url": url, "apikey": KEY }),
                "there is no setting \"apikey\": the nearest is api_key",
            ),
            (
                json!({ "url": url, "api_key": KEY }),
                "there is no setting \"url\": the nearest is base_url",
            ),
            (
                json!({ "base_url": "ftp://host", "api_key": KEY }),
                "base_url begins with neither https:// nor http:// (\"ftp://\")",
            ),
            (
                json!({ "base_url": url, "api_key": 123_456_789 }),
                "api_key must be a text",
            ),
            (
                json!({ "base_url": url, "api_key": 0.123_456_789 }),
                "api_key must be a text",
            ),
            (
                json!({ "base_url": url, "api_key": "" }),
                "api_key is empty",
            ),
            (
                json!({ "base_url": url, "api_key": format!("{KEY}\n") }),
                "api_key contains CR, LF or NUL",
            ),
            (
                json!({ "base_url": 5, "api_key": KEY }),
                "base_url must be a text",
            ),
            (
                json!({ "base_url": url, "api_key": KEY, "headers": KEY }),
                "headers must be names of headers with their values",
            ),
            (
                json!({ "base_url": url, "api_key": KEY, "headers": { "x-key": 123_456_789 } }),
                "the value of a header must be a text",
            ),
            (
                json!({ "base_url": url, "api_key": KEY, "headers": { "host": "x" } }),
                "host is a header that the transport or the client sets: leave it out",
            ),
        ] {
            assert_eq!(read(file).expect_err(expected), expected);
        }
        for odd in [json!([KEY]), json!({ "a": KEY }), json!(null)] {
            let error = read(json!({ "base_url": url, "api_key": odd })).expect_err("refused");
            assert!(error.contains("a text for api_key"), "{error}");
        }
        let text = read(json!(KEY)).expect_err("refused");
        assert_eq!(text, "the configuration must be settings with their values");
        let twice = format!(r#"{{"api_key":"{KEY}","api_key":"{KEY}"}}"#);
        let twice = serde_json::from_str::<Config>(&twice).expect_err("refused");
        assert!(
            twice.to_string().starts_with("api_key is given twice"),
            "{twice}"
        );
    }
}
