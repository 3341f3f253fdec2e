//! Options in files: serde without its derive macros, which would cost every build a dependency.

use super::Options;
use super::kinds::{Kind, Wrong};
use crate::text::Text;
use crate::text::near::Nearest;
use core::fmt;
use core::marker::PhantomData;
use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, MapAccess, Unexpected, Visitor};
use serde::ser::{Serialize, Serializer};

#[cfg(has_arc)]
use alloc::{string::String, vec::Vec};

/// Durations are texts such as `"10s"`, sizes are numbers of bytes, and `"unlimited"` is the largest number. An option
/// that the environment or another default decides is left out.
impl Serialize for Options {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.write(serializer)
    }
}

/// For formats that describe themselves, such as TOML and JSON. An option that is left out has its default; one that does
/// not exist, or whose value cannot be, is an error that names it. Reads no variable; see [`Options::with_env`].
impl<'de> Deserialize<'de> for Options {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_struct("Options", Self::NAMES, All)
    }
}

struct All;

impl<'de> Visitor<'de> for All {
    type Value = Options;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("options of telemetry by their names")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Options, M::Error> {
        let mut options = Options::default();
        // There are fewer options than bits.
        let mut seen = 0_u64;
        while let Some(at) = map.next_key_seed(Key)? {
            let name = Options::NAMES[at];
            if seen & 1 << at != 0 {
                return Err(de::Error::custom(format_args!(
                    "the option {name} is given twice"
                )));
            }
            seen |= 1 << at;
            options.read(name, &mut map)?;
        }
        options.check_each().map_err(de::Error::custom)?;
        Ok(options)
    }
}

/// The position of an option by its name.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Key {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of an option")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<usize, E> {
        let mut names = Options::NAMES.iter();
        names.position(|name| *name == key).ok_or_else(|| {
            let nearest = Nearest::to(key, Options::NAMES.iter().copied());
            E::custom(format_args!(
                "there is no option \"{}\": {}",
                Text::<64>::new(key.escape_debug()),
                nearest.shown(|name, f| f.write_str(name))
            ))
        })
    }
}

/// Reads the value of an option, whose name errors then have.
pub(super) struct Seed<K> {
    name: &'static str,
    kind: PhantomData<K>,
}

impl<K> Seed<K> {
    pub(super) const fn new(name: &'static str) -> Self {
        let kind = PhantomData;
        Self { name, kind }
    }
}

impl<K: Kind> Seed<K> {
    fn wrong<E: de::Error>(&self, value: impl fmt::Display, wrong: &Wrong<'_>) -> E {
        E::custom(format_args!(
            "the option {} is {}{wrong}; it must be {}",
            self.name,
            Text::<64>::new(value),
            K::MUST_BE
        ))
    }
}

impl<'de, K: Kind> DeserializeSeed<'de> for Seed<K> {
    type Value = K::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<K::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, K: Kind> Visitor<'de> for Seed<K> {
    type Value = K::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "for the option {} {}", self.name, K::MUST_BE)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<K::Value, E> {
        K::of_text(text.trim()).map_err(|wrong| {
            let shown = Text::<60>::new(text.escape_debug());
            self.wrong(format_args!("\"{shown}\""), &wrong)
        })
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<K::Value, E> {
        K::of_number(number).map_err(|wrong| self.wrong(number, &wrong))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<K::Value, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => Err(self.wrong(number, &Wrong::Form)),
        }
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<K::Value, E> {
        Err(self.wrong(number, &Wrong::Form))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<K::Value, E> {
        K::of_bool(value).map_err(|wrong| self.wrong(value, &wrong))
    }

    fn visit_unit<E: de::Error>(self) -> Result<K::Value, E> {
        K::of_nothing().map_err(|_| E::invalid_type(Unexpected::Unit, &self))
    }

    fn visit_none<E: de::Error>(self) -> Result<K::Value, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<K::Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    #[cfg(has_arc)]
    fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<K::Value, A::Error> {
        if K::of_list(core::iter::empty()).is_err() {
            return Err(de::Error::invalid_type(Unexpected::Seq, &self));
        }
        let mut list: Vec<String> = Vec::new();
        while let Some(item) = items.next_element_seed(Item(self.name))? {
            list.push(item);
        }
        K::of_list(list.into_iter()).map_err(|wrong| self.wrong("a list", &wrong))
    }
}

/// Reads a text in the list of the option of this name.
#[cfg(has_arc)]
struct Item(&'static str);

#[cfg(has_arc)]
impl<'de> DeserializeSeed<'de> for Item {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

#[cfg(has_arc)]
impl Visitor<'_> for Item {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "texts in the list of the option {}", self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
        Ok(text.into())
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;
    use crate::engine::GiveUp;
    use alloc::borrow::ToOwned as _;
    use alloc::format;
    use alloc::string::ToString as _;
    use core::time::Duration;
    use serde_json::json;

    fn read(json: serde_json::Value) -> Result<Options, String> {
        serde_json::from_value(json).map_err(|error| error.to_string())
    }

    #[test]
    fn all_options_survive_a_file() {
        let defaults = Options::default();
        let changed = Options {
            flush_interval: Duration::from_millis(1_500),
            give_up: GiveUp::WhenFull,
            reserve: Some(4),
            max_queue_bytes: 1 << 20,
            max_string_bytes: 100,
            attach_events: false,
            events: ["app.started"].into_iter().collect(),
            handler_id: Some("mine".into()),
            enabled: Some(false),
            ..Options::default()
        };
        for options in [defaults, changed] {
            let written = serde_json::to_value(&options).expect("it serializes");
            assert_eq!(read(written.clone()), Ok(options), "{written}");
        }
    }

    #[test]
    fn a_file_says_what_a_person_would_write() {
        let written = serde_json::to_value(Options::default()).expect("it serializes");
        assert_eq!(written["flush_interval"], "10s");
        assert_eq!(written["retry_max_delay"], "1m");
        assert_eq!(written["max_queue_bytes"], 8 << 20);
        assert_eq!(written["max_fields"], "unlimited");
        assert_eq!(written["give_up"], "after_retries");
        assert_eq!(written["attach_events"], true);
        let left_out = ["reserve", "handler_id", "enabled"];
        assert!(left_out.iter().all(|name| written.get(name).is_none()));
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        assert_eq!(read(json!({})), Ok(Options::default()));
        let read = read(json!({
            "http_timeout": "250ms",
            "max_batch_bytes": "2 MiB",
            "max_retries": "5",
            "flush_interval": 0,
            "attach_events": "no",
            "reserve": null,
            "enabled": true,
        }));
        let expected = Options {
            http_timeout: Duration::from_millis(250),
            max_batch_bytes: 2 << 20,
            max_retries: 5,
            flush_interval: Duration::ZERO,
            attach_events: false,
            enabled: Some(true),
            ..Options::default()
        };
        assert_eq!(read, Ok(expected));
    }

    #[test]
    fn an_option_that_does_not_exist_is_named_with_the_nearest() {
        for (key, expected) in [
            (
                "flush_intervall",
                "there is no option \"flush_intervall\": the nearest is flush_interval",
            ),
            (
                "timeout",
                "there is no option \"timeout\": the nearest are flush_timeout, drop_timeout and http_timeout",
            ),
            (
                "_later",
                "there is no option \"_later\": the nearest is give_up",
            ),
        ] {
            assert_eq!(read(json!({ key: 1 })), Err(expected.into()));
        }
        let long = read(json!({ "\u{202e}\n".repeat(1_000): 1 })).expect_err("refused");
        assert!(
            long.len() < 160 && !long.contains(['\n', '\u{202e}']),
            "{long}"
        );
    }

    #[test]
    fn no_limit_is_offered_exactly_where_there_may_be_none() {
        let names = Options::NAMES.iter().copied();
        // Two take any text.
        for name in names.filter(|name| !["events", "handler_id"].contains(name)) {
            let mut options = Options::default();
            let is_allowed = options.set(name, "unlimited").is_ok() && options.check(300).is_ok();
            let must_be = read(json!({ name: [] })).map_or_else(|error| error, |_| String::new());
            let is_offered = must_be.contains("unlimited");
            assert_eq!(is_offered, is_allowed, "{name}: {must_be}");
        }
    }

    #[test]
    fn a_value_that_cannot_be_is_shown_with_its_option_and_what_it_must_be() {
        let duration =
            "a duration, such as \"10s\", \"250ms\" or \"1m30s\" (d, h, m, s, ms, us, ns)";
        for (key, value, expected) in [
            (
                "flush_interval",
                json!("10 parsecs"),
                "is \"10 parsecs\", where \"parsecs\" is no unit; it must be ".to_owned()
                    + duration,
            ),
            (
                "flush_interval",
                json!(10),
                "is 10, which has no unit; it must be ".to_owned() + duration,
            ),
            (
                "max_retries",
                json!(-1),
                "is -1; it must be a whole number up to 4294967295".to_owned(),
            ),
            (
                "max_batch_size",
                json!(1.5),
                "is 1.5; it must be a whole number, or \"unlimited\"".to_owned(),
            ),
            (
                "give_up",
                json!("never"),
                "is \"never\"; it must be \"after_retries\" or \"when_full\"".to_owned(),
            ),
            (
                "enabled",
                json!("maybe"),
                "is \"maybe\"; it must be true or false (or 1, yes, on; 0, no, off)".to_owned(),
            ),
            ("flush_threshold", json!(0), "must be above zero".to_owned()),
        ] {
            let error = read(json!({ key: value })).expect_err(key);
            assert_eq!(error, format!("the option {key} {expected}"));
        }
        for (key, value) in [
            ("max_retries", json!(null)),
            ("max_retries", json!([3])),
            ("max_retries", json!({ "a": 3 })),
            ("events", json!(7)),
            ("events", json!([7])),
            ("events", json!(["app.started", true])),
            ("events", json!(["app.started", null])),
            ("events", json!([["app.started"]])),
            ("events", json!([{ "name": "app.started" }])),
        ] {
            let error = read(json!({ key: value })).expect_err(key);
            assert!(error.contains(key), "{error}");
        }
        let twice = serde_json::from_str::<Options>(r#"{"max_retries":1,"max_retries":2}"#);
        let twice = twice.expect_err("refused").to_string();
        assert!(
            twice.starts_with("the option max_retries is given twice"),
            "{twice}"
        );
        let unknown = read(json!({ "events": ["tinkex.what"] })).expect_err("refused");
        assert!(
            unknown.starts_with("the option events names \"tinkex.what\""),
            "{unknown}"
        );
    }
}
