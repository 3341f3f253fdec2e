//! Kinds of options that have an upper bound: they read like others, and "unlimited" is not offered.

use super::kinds::{Count, Kind, Size, Wrong};
use serde::ser::Serializer;

/// A kind that reads and writes as another one, and must be something else.
macro_rules! restricted {
    ($(#[$attribute:meta])* $name:ident is $kind:ident: $must_be:literal) => {
        $(#[$attribute])*
        pub(super) struct $name;

        impl Kind for $name {
            type Value = <$kind as Kind>::Value;

            const MUST_BE: &'static str = $must_be;

            fn of_text(text: &str) -> Result<Self::Value, Wrong<'_>> {
                $kind::of_text(text)
            }

            fn of_number(number: u64) -> Result<Self::Value, Wrong<'static>> {
                $kind::of_number(number)
            }

            fn write<S: Serializer>(value: &Self::Value, serializer: S) -> Result<S::Ok, S::Error> {
                $kind::write(value, serializer)
            }
        }
    };
}

restricted! {
    /// A number of things that other options bound.
    BoundedCount is Count: "a whole number"
}

restricted! {
    /// A number of bytes that has an upper bound.
    BoundedSize is Size: "a number of bytes, such as 65536, \"64KiB\" or \"8MiB\""
}
