//! Serialization of the ledger, without serde's derive macros, which would cost every build a dependency.

use super::{Drain, Dropped, Refused, Stats};
use core::fmt;
use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde::ser::{Serialize, SerializeStruct, Serializer};

/// One of these names, if the key is one.
struct Key(&'static [&'static str]);

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Option<&'static str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Option<&'static str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().copied().find(|name| *name == key))
    }
}

/// Serializes structs field by field. When one is read, a field that it does not know is ignored, and one that is
/// missing is zero: other versions have others.
macro_rules! serialize_fields {
    ($($name:ident { $($field:ident),+ $(,)? })+) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let fields: &[&str] = &[$(stringify!($field)),+];
                let mut out = serializer.serialize_struct(stringify!($name), fields.len())?;
                $(out.serialize_field(stringify!($field), &self.$field)?;)+
                out.end()
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                const FIELDS: &[&str] = &[$(stringify!($field)),+];
                struct Fields;
                impl<'de> Visitor<'de> for Fields {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str(concat!("the fields of `", stringify!($name), "`"))
                    }

                    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<$name, M::Error> {
                        let mut read = $name::default();
                        while let Some(key) = map.next_key_seed(Key(FIELDS))? {
                            match key {
                                $(Some(key) if key == stringify!($field) => {
                                    read.$field = map.next_value()?;
                                })+
                                _ => {
                                    map.next_value::<IgnoredAny>()?;
                                }
                            }
                        }
                        Ok(read)
                    }

                    fn visit_seq<Q: SeqAccess<'de>>(self, mut seq: Q) -> Result<$name, Q::Error> {
                        Ok($name {
                            $($field: seq.next_element()?.unwrap_or_default(),)+
                        })
                    }
                }
                deserializer.deserialize_struct(stringify!($name), FIELDS, Fields)
            }
        }
    )+};
}

serialize_fields! {
    Stats {
        accepted,
        delivered,
        handed_over,
        dropped,
        refused,
        truncated,
        reports,
        queued,
        queued_bytes,
        session_ended,
        driver_alive,
    }
    Dropped { retries_exhausted, rejected, too_large, shutdown, discarded }
    Refused {
        queue_full,
        event_too_large,
        unencodable,
        session_ended,
        disabled,
        below_min_severity,
        forked,
        scrubbed,
        scrub_panicked,
        own_work,
    }
    Drain { delivered, handed_over, dropped, remaining }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Severity;
    use crate::stats::{DropReason, Refusal};
    use alloc::string::ToString as _;
    use serde_json::json;

    #[test]
    fn a_ledger_survives_json_and_ignores_what_other_versions_have() {
        let mut stats = Stats {
            accepted: 5,
            queued_bytes: 90,
            driver_alive: true,
            ..Stats::default()
        };
        stats.dropped.add(DropReason::TooLarge, 2);
        stats.refused.own_work = 3;
        let mut value = serde_json::to_value(stats).expect("it serializes");
        assert_eq!(value["dropped"]["too_large"], 2);
        assert_eq!(
            serde_json::from_value::<Stats>(value.clone()).ok(),
            Some(stats)
        );
        value["new"] = json!([1, 2]);
        value["refused"] = json!({"own_work": 3});
        assert_eq!(serde_json::from_value::<Stats>(value).ok(), Some(stats));
        let drain = Drain {
            delivered: 1,
            handed_over: 2,
            dropped: 3,
            remaining: 4,
        };
        assert_eq!(
            serde_json::from_value::<Drain>(json!([1, 2, 3, 4])).ok(),
            Some(drain)
        );
    }

    #[test]
    fn a_reason_displays_as_the_name_of_its_count() {
        let dropped = serde_json::to_value(Dropped::default()).expect("it serializes");
        assert_eq!(dropped[DropReason::Shutdown.to_string()], 0);
        let refused = serde_json::to_value(Refused::default()).expect("it serializes");
        assert_eq!(refused[Refusal::ScrubPanicked.to_string()], 0);
    }

    #[test]
    fn a_severity_is_its_name_in_json_and_comes_from_a_level_of_log() {
        assert_eq!(json!(Severity::Warning), "WARNING");
        let read = serde_json::from_value::<Severity>(json!("error"));
        assert_eq!(read.ok(), Some(Severity::Error));
        assert!(serde_json::from_value::<Severity>(json!("loud")).is_err());
        assert_eq!(Severity::from(log::Level::Trace), Severity::Debug);
        assert_eq!(Severity::from(log::Level::Warn), Severity::Warning);
    }
}
