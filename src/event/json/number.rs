//! Numbers.

use super::JsonError;
use super::output::Output;

/// A number that can be written.
pub(super) trait Number {
    fn write(self, out: &mut Output<'_>) -> Result<(), JsonError>;
}

#[cfg(feature = "std")]
macro_rules! numbers {
    ($($type:ty: $method:ident),* $(,)?) => {$(
        impl Number for $type {
            #[inline]
            fn write(self, out: &mut Output<'_>) -> Result<(), JsonError> {
                use serde_json::ser::{CompactFormatter, Formatter};
                CompactFormatter.$method(out, self).map_err(|_| JsonError::Full)
            }
        }
    )*};
}

#[cfg(feature = "std")]
numbers! {
    i8: write_i8, i16: write_i16, i32: write_i32, i64: write_i64, i128: write_i128,
    u8: write_u8, u16: write_u16, u32: write_u32, u64: write_u64, u128: write_u128,
}

/// The shortest text that is read as the same number; JSON has none for NaN and infinities.
#[cfg(feature = "std")]
macro_rules! floats {
    ($($type:ty: $method:ident),* $(,)?) => {$(
        impl Number for $type {
            #[inline]
            fn write(self, out: &mut Output<'_>) -> Result<(), JsonError> {
                use serde_json::ser::{CompactFormatter, Formatter};
                if !self.is_finite() {
                    return out.put(b"null");
                }
                CompactFormatter.$method(out, self).map_err(|_| JsonError::Full)
            }
        }
    )*};
}

#[cfg(feature = "std")]
floats! { f32: write_f32, f64: write_f64 }

#[cfg(not(feature = "std"))]
macro_rules! numbers {
    ($($wide:ty: $most:literal, $digits:ident; $($type:ty),*;)*) => {$(
        /// Writes the digits of a number, after a minus if it is negative.
        fn $digits(out: &mut Output<'_>, is_negative: bool, mut value: $wide) -> Result<(), JsonError> {
            let mut text = [0; $most];
            let mut start = 0;
            for (at, digit) in text.iter_mut().enumerate().rev() {
                *digit = b'0' + (value % 10) as u8;
                value /= 10;
                start = at;
                if value == 0 {
                    break;
                }
            }
            if is_negative {
                out.put(b"-")?;
            }
            out.put(text.get(start..).unwrap_or_default())
        }

        $(
            impl Number for $type {
                fn write(self, out: &mut Output<'_>) -> Result<(), JsonError> {
                    #[allow(unused_comparisons)]
                    let is_negative = self < 0;
                    let magnitude = if is_negative { (0 as $wide).wrapping_sub(self as $wide) } else { self as $wide };
                    $digits(out, is_negative, magnitude)
                }
            }
        )*
    )*};
}

#[cfg(not(feature = "std"))]
numbers! {
    u32: 10, digits_of_32; i8, i16, i32, u8, u16, u32;
    u64: 20, digits_of_64; i64, u64;
    u128: 39, digits_of_128; i128, u128;
}

#[cfg(not(feature = "std"))]
macro_rules! floats {
    ($($type:ty),*) => {$(
        impl Number for $type {
            fn write(self, out: &mut Output<'_>) -> Result<(), JsonError> {
                if !self.is_finite() {
                    return out.put(b"null");
                }
                if self.is_sign_negative() {
                    out.put(b"-")?;
                }
                let mut buffer = ryu_js::Buffer::new();
                let text = buffer.format_finite(self.abs()).as_bytes();
                out.put(text)?;
                // It stays a floating-point number.
                if text.iter().any(|byte| matches!(byte, b'.' | b'e')) {
                    return Ok(());
                }
                out.put(b".0")
            }
        }
    )*};
}

#[cfg(not(feature = "std"))]
floats! { f32, f64 }
