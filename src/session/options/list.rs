//! The list of options, for what treats all of them alike: `Debug`, files and variables.

use super::bounded::{BoundedCount, BoundedSize};
use super::file::Seed;
use super::kinds::{Count, Kind, Level, Number, Part, Patience, Size, Switch, Time};
use super::{Later, Options};
use core::fmt;
use serde::de::MapAccess;
use serde::ser::{SerializeStruct, Serializer};

#[cfg(feature = "std")]
use super::kinds::Wrong;
#[cfg(has_arc)]
use super::kinds::{Flag, Name, Names};

macro_rules! options {
    ($($(#[$when:meta])* $name:ident: $kind:ident,)*) => {
        impl Options {
            /// The names of all options, in the order of the struct.
            pub(crate) const NAMES: &'static [&'static str] = &[$($(#[$when])* stringify!($name),)*];

            /// Serializes them, without those that something else decides.
            pub(super) fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut count = 0;
                $($(#[$when])* {
                    count += usize::from($kind::is_written(&self.$name));
                })*
                let mut out = serializer.serialize_struct("Options", count)?;
                $($(#[$when])* if $kind::is_written(&self.$name) {
                    out.serialize_field(stringify!($name), &Field(&self.$name, $kind))?;
                } else {
                    out.skip_field(stringify!($name))?;
                })*
                out.end()
            }

            /// Reads the value of the option of this name, which is one of them, from a map.
            pub(super) fn read<'de, M: MapAccess<'de>>(
                &mut self,
                name: &'static str,
                map: &mut M,
            ) -> Result<(), M::Error> {
                $($(#[$when])* if name == stringify!($name) {
                    self.$name = map.next_value_seed(Seed::<$kind>::new(name))?;
                    return Ok(());
                })*
                Ok(())
            }

            /// Sets the option of this name from text. An error says what is wrong, and what the value must be.
            #[cfg(feature = "std")]
            pub(super) fn set_text<'a>(
                &mut self,
                name: &str,
                text: &'a str,
            ) -> Result<(), (Wrong<'a>, &'static str)> {
                $($(#[$when])* if name == stringify!($name) {
                    self.$name = $kind::of_text(text).map_err(|wrong| (wrong, $kind::MUST_BE))?;
                    return Ok(());
                })*
                Ok(())
            }
        }

        /// All options, as a derived `Debug` would show them, without the field that only keeps the struct open.
        impl fmt::Debug for Options {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // Without `..`: an option that the list lacks does not compile.
                let Self { $($(#[$when])* $name,)* _later: Later(()) } = self;
                let mut shown = f.debug_struct("Options");
                $($(#[$when])* shown.field(stringify!($name), $name);)*
                shown.finish()
            }
        }
    };
}

options! {
    flush_interval: Time,
    flush_threshold: BoundedCount,
    flush_timeout: Time,
    drop_timeout: Time,
    http_timeout: Time,
    give_up: Patience,
    max_retries: Number,
    retry_base_delay: Time,
    retry_max_delay: Time,
    max_queue_size: Count,
    max_queue_bytes: BoundedSize,
    reserve: Part,
    max_batch_size: Count,
    max_batch_bytes: Size,
    min_severity: Level,
    max_event_bytes: BoundedSize,
    max_data_depth: Count,
    max_string_bytes: Size,
    max_fields: Count,
    #[cfg(has_arc)]
    loss_report: Flag,
    #[cfg(has_arc)]
    attach_events: Flag,
    #[cfg(has_arc)]
    events: Names,
    #[cfg(has_arc)]
    handler_id: Name,
    enabled: Switch,
}

/// An option's value, serialized as its kind says.
struct Field<'a, K: Kind>(&'a K::Value, K);

impl<K: Kind> serde::Serialize for Field<'_, K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        K::write(self.0, serializer)
    }
}
