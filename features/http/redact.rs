//! Redaction: blots secrets out of texts from outside, in whatever form those repeat them.
//!
//! A server may echo a part of the key, escape it, or change its case. So every run of eight bytes of a secret is
//! recognized, also escaped as in JSON, URLs or HTML, one over the other, broken by white space, and in base64 or
//! hexadecimal. The time is linear in the length of the text.

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::iter;

/// How many bytes of a secret in a row are recognized. Shorter secrets are recognized as a whole.
const RUN: usize = 8;

/// How often a text is decoded: an escape may be escaped itself.
const DECODINGS: usize = 3;

const MARK: &[u8] = b"[redacted]";

/// What must not be shown.
#[derive(Clone, Default)]
pub(crate) struct Secrets {
    /// The length and the bytes of each recognized run, in lower case. Sorted.
    runs: Vec<(usize, u64)>,
}

impl Secrets {
    /// Adds a secret.
    pub(crate) fn add(&mut self, secret: &[u8]) {
        self.add_runs(secret.iter().copied());
        if secret.len() >= RUN {
            self.add_runs(secret.iter().copied().filter(u8::is_ascii_graphic));
            // As in a form.
            let plus = |&byte: &u8| if byte == b' ' { b'+' } else { byte };
            self.add_runs(secret.iter().map(plus));
            self.add_runs(hexadecimal(secret));
            for skipped in 0..3 {
                for symbols in [b"+/", b"-_"] {
                    self.add_runs(base64(secret, skipped, *symbols));
                }
            }
        }
        self.runs.sort_unstable();
        self.runs.dedup();
    }

    fn add_runs(&mut self, text: impl Iterator<Item = u8> + Clone) {
        let len = text.clone().count().min(RUN);
        let mut window = Window::default();
        for (at, byte) in text.enumerate() {
            window.push(byte);
            if at + 1 >= len {
                self.runs.push((len, window.last(len)));
            }
        }
    }

    /// The text with a mark for each part of it that repeats a secret.
    pub(crate) fn redact<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        let mut is_secret = Vec::new();
        if !self.runs.is_empty() {
            is_secret.resize(text.len(), false);
            let layer: Vec<Piece> = pieces(text).collect();
            self.mark_layers(&layer, DECODINGS, &mut is_secret);
        }
        if !is_secret.contains(&true) {
            return Cow::Borrowed(text);
        }
        let mut out = Vec::with_capacity(text.len());
        let mut was_secret = false;
        for (byte, is_secret) in iter::zip(text, is_secret) {
            match (was_secret, is_secret) {
                (_, false) => out.push(*byte),
                (false, true) => out.extend_from_slice(MARK),
                (true, true) => {}
            }
            was_secret = is_secret;
        }
        Cow::Owned(out)
    }

    /// Marks where a layer repeats a secret, itself or under at most this many escapes. Each kind of escape is undone
    /// by itself: to the others its marks are plain text, which may be a secret's.
    fn mark_layers(&self, layer: &[Piece], decodings: usize, is_secret: &mut [bool]) {
        self.mark(layer.iter(), is_secret);
        let visible = layer.iter().filter(|piece| piece.byte.is_ascii_graphic());
        self.mark(visible, is_secret);
        if decodings == 0 {
            return;
        }
        for (mark, unescape) in ESCAPES {
            let decoded = decode(layer, mark, unescape);
            // Each escape is longer than what it stands for.
            if decoded.len() < layer.len() {
                self.mark_layers(&decoded, decodings - 1, is_secret);
            }
        }
    }

    /// Marks where a layer repeats a secret, in the text.
    fn mark<'a>(&self, layer: impl Iterator<Item = &'a Piece> + Clone, is_secret: &mut [bool]) {
        let mut lens: Vec<usize> = self.runs.iter().map(|(len, _)| *len).collect();
        lens.dedup();
        for len in lens {
            let mut window = Window::default();
            let mut starts = layer.clone();
            // What is before it is marked already, which keeps the time linear.
            let mut marked = 0;
            for (at, piece) in layer.clone().enumerate() {
                window.push(piece.byte);
                if at + 1 < len {
                    continue;
                }
                let start = starts.next().map_or(piece.start, |first| first.start);
                if self.runs.binary_search(&(len, window.last(len))).is_ok() {
                    if let Some(run) = is_secret.get_mut(start.max(marked)..piece.end) {
                        run.fill(true);
                    }
                    marked = piece.end;
                }
            }
        }
    }
}

/// The last eight bytes of a text, in lower case.
#[derive(Default)]
struct Window(u64);

impl Window {
    fn push(&mut self, byte: u8) {
        self.0 = self.0 << 8 | u64::from(byte.to_ascii_lowercase());
    }

    fn last(&self, len: usize) -> u64 {
        if len < RUN {
            self.0 & ((1 << (8 * len)) - 1)
        } else {
            self.0
        }
    }
}

/// A byte of a layer, and which part of the text stands for it.
#[derive(Clone, Copy)]
struct Piece {
    byte: u8,
    start: usize,
    end: usize,
}

fn pieces(text: &[u8]) -> impl Iterator<Item = Piece> {
    text.iter().enumerate().map(|(at, &byte)| Piece {
        byte,
        start: at,
        end: at + 1,
    })
}

/// Reads one escape after its mark.
type Unescape = fn(&[Piece]) -> Escape;

/// The kinds of escapes: what each begins with, and how it goes on.
const ESCAPES: [(u8, Unescape); 3] = [(b'\\', backslash), (b'%', percent), (b'&', entity)];

/// A layer without one level of one kind of escapes.
fn decode(layer: &[Piece], mark: u8, unescape: Unescape) -> Vec<Piece> {
    let mut out = Vec::with_capacity(layer.len());
    let mut rest = layer;
    while let Some((first, after)) = rest.split_first() {
        let escape = (first.byte == mark).then(|| unescape(after)).flatten();
        match escape {
            Some((character, used)) => {
                let end = rest.get(used).map_or(first.end, |last| last.end);
                let mut bytes = [0; 4];
                for &byte in character.encode_utf8(&mut bytes).as_bytes() {
                    out.push(Piece {
                        byte,
                        start: first.start,
                        end,
                    });
                }
                rest = after.get(used..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

/// The character that an escape stands for, and how many pieces it takes after its first.
type Escape = Option<(char, usize)>;

fn backslash(after: &[Piece]) -> Escape {
    let character = match after.first()?.byte {
        b'u' if after.get(1).is_some_and(|piece| piece.byte == b'{') => {
            return braced(after, 2, 16, b'}');
        }
        b'u' => return number(after, 1..5, 16),
        b'x' => return number(after, 1..3, 16),
        b'0'..=b'7' => return number(after, 0..3, 8),
        b'n' | b'r' | b't' | b'b' | b'f' => '\n',
        byte if byte.is_ascii_punctuation() => char::from(byte),
        _ => return None,
    };
    Some((character, 1))
}

fn percent(after: &[Piece]) -> Escape {
    match after.first()?.byte {
        b'u' => number(after, 1..5, 16),
        // Bytes above ASCII are no part of a secret.
        _ => number(after, 0..2, 16),
    }
}

fn entity(after: &[Piece]) -> Escape {
    if after.first()?.byte == b'#' {
        return match after.get(1)?.byte {
            b'x' | b'X' => braced(after, 2, 16, b';'),
            _ => braced(after, 1, 10, b';'),
        };
    }
    let names: [(&[u8], char); 5] = [
        (b"amp;", '&'),
        (b"apos;", '\''),
        (b"gt;", '>'),
        (b"lt;", '<'),
        (b"quot;", '"'),
    ];
    let begins = |name: &[u8]| {
        let start = after.get(..name.len());
        start.is_some_and(|start| {
            start
                .iter()
                .map(|piece| piece.byte)
                .eq(name.iter().copied())
        })
    };
    let (name, character) = names.into_iter().find(|(name, _)| begins(name))?;
    Some((character, name.len()))
}

/// A character by its number in digits that end at `close`: at most eight, and zeros in front of them.
fn braced(after: &[Piece], from: usize, radix: u32, close: u8) -> Escape {
    let digits = after.get(from..)?;
    let end = digits
        .iter()
        .take(9)
        .position(|piece| piece.byte == close)?;
    let (character, used) = number(after, from..from + end, radix)?;
    Some((character, used + 1))
}

/// A character by its number in these digits.
fn number(after: &[Piece], range: core::ops::Range<usize>, radix: u32) -> Escape {
    let end = range.end;
    let mut number = 0_u32;
    for piece in after.get(range)? {
        let digit = char::from(piece.byte).to_digit(radix)?;
        number = number.checked_mul(radix)?.checked_add(digit)?;
    }
    Some((char::from_u32(number)?, end))
}

fn hexadecimal(secret: &[u8]) -> impl Iterator<Item = u8> + Clone {
    let digit = |value: u8| b"0123456789abcdef"[usize::from(value & 15)];
    let bytes = secret.iter();
    bytes.flat_map(move |&byte| [digit(byte >> 4), digit(byte)])
}

/// The secret in base64 behind `skipped` unknown bytes: those digits that do not depend on its neighbours.
fn base64(secret: &[u8], skipped: usize, symbols: [u8; 2]) -> impl Iterator<Item = u8> + Clone {
    let (first, end) = (8 * skipped, 8 * (skipped + secret.len()));
    let bit = move |at: usize| {
        let byte = secret.get((at - first) / 8).copied().unwrap_or(0);
        byte >> (7 - at % 8) & 1
    };
    let digits = first.div_ceil(6)..end / 6;
    digits.map(move |digit| {
        let value = (0..6).fold(0, |value, at| value << 1 | bit(6 * digit + at));
        match value {
            0..26 => b'A' + value,
            26..52 => b'a' + value - 26,
            52..62 => b'0' + value - 52,
            _ => symbols[usize::from(value & 1)],
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::borrow::ToOwned;
    use alloc::format;
    use alloc::string::String;
    use arbtest::arbitrary::{Result, Unstructured};
    use arbtest::arbtest;

    const KEY: &str = "tml-0/1+2\"3 4\\5=6%7&8<9";

    fn redacted(secrets: &[&str], text: &str) -> String {
        let mut known = Secrets::default();
        for secret in secrets {
            known.add(secret.as_bytes());
        }
        String::from_utf8_lossy(&known.redact(text.as_bytes())).into_owned()
    }

    /// The forms that a text may be repeated in, escaped where `at` says so.
    fn forms(text: &str, mut is_escaped: impl FnMut() -> bool) -> [String; 11] {
        let mut each = |escape: &dyn Fn(char) -> String, always: &str| {
            let mut form = String::new();
            for character in text.chars() {
                if is_escaped() || always.contains(character) {
                    form.push_str(&escape(character));
                } else {
                    form.push(character);
                }
            }
            form.trim_end().to_owned()
        };
        [
            each(&|c| format!("\\u{:04x}", u32::from(c)), "\"\\"),
            each(&|c| format!("\\u{:04X}", u32::from(c)), "\"\\"),
            each(&|c| format!("\\u{{{:x}}}", u32::from(c)), "\\"),
            each(&|c| format!("\\x{:02x}", u32::from(c)), "\\"),
            each(&|c| format!("\\{:03o}", u32::from(c)), "\\"),
            each(&|c| format!("%{:02X}", u32::from(c)), "%"),
            each(&|c| format!("%{:02x}", u32::from(c)), "%"),
            each(&|c| format!("&#{};", u32::from(c)), "&"),
            each(&|c| format!("&#x{:X};", u32::from(c)), "&"),
            each(&|c| c.to_uppercase().collect(), ""),
            each(&|c| format!("{c}\n  "), ""),
        ]
    }

    fn encoded(text: &str, before: usize, symbols: [u8; 2]) -> String {
        let text = format!("{}{text}", "x".repeat(before));
        let digits = base64(text.as_bytes(), 0, symbols).collect();
        String::from_utf8(digits).unwrap()
    }

    #[test]
    fn twenty_characters_of_a_key_are_blotted_out_in_every_form() {
        let part = &KEY[..20];
        for form in forms(part, || true)
            .into_iter()
            .chain(forms(part, || false))
        {
            assert_eq!(
                redacted(&[KEY], &format!("<{form}>")),
                "<[redacted]>",
                "{form}"
            );
        }
        let quoted = serde_json::to_string(part).unwrap();
        let twice = serde_json::to_string(&quoted).unwrap();
        assert_eq!(redacted(&[KEY], &quoted), "\"[redacted]\"");
        assert_eq!(redacted(&[KEY], &twice), r#""\"[redacted]\"""#);
        let html = part
            .replace('&', "&amp;")
            .replace('"', "&quot;")
            .replace('<', "&lt;");
        assert_eq!(redacted(&[KEY], &html), "[redacted]");
        assert_eq!(
            redacted(&[KEY], &part.replace('/', "\\/").replace('\\', "\\\\")),
            "[redacted]"
        );
        assert_eq!(
            redacted(&["the long key"], "a=the+long+key&"),
            "a=[redacted]&"
        );
        for before in 0..4 {
            for symbols in [*b"+/", *b"-_"] {
                let form = encoded(part, before, symbols);
                let left = redacted(&[KEY], &form).replace("[redacted]", "");
                assert!(left.len() <= before + 4, "{left} of {form}");
            }
        }
        let hex: String = part.bytes().map(|byte| format!("{byte:02X}")).collect();
        assert_eq!(redacted(&[KEY], &hex), "[redacted]");
    }

    #[test]
    fn seven_bytes_of_a_key_are_not_recognized_and_a_short_key_is_only_as_a_whole() {
        assert_eq!(redacted(&["sk-0123456789"], "sk-0123 456789"), "[redacted]");
        assert_eq!(redacted(&["sk-0123456789"], "sk-0123"), "sk-0123");
        assert_eq!(
            redacted(&["sk-0123456789"], "sk-01234, 23456789."),
            "[redacted], [redacted]."
        );
        assert_eq!(
            redacted(&["hush"], "hush, hus, HUSH hush"),
            "[redacted], hus, [redacted] [redacted]"
        );
        assert_eq!(redacted(&[], "hush"), "hush");
        assert_eq!(redacted(&[""], "hush"), "hush");
    }

    fn secret(u: &mut Unstructured<'_>) -> Result<String> {
        let len = u.int_in_range(8..=40)?;
        (0..len)
            .map(|_| Ok(char::from(u.int_in_range(b'!'..=b'~')?)))
            .collect()
    }

    #[test]
    fn no_run_of_a_secret_is_left_whatever_its_form_and_its_surroundings() {
        arbtest(|u| {
            let secret = secret(u)?;
            let start = u.int_in_range(0..=secret.len() - 8)?;
            let end = u.int_in_range(start + 8..=secret.len())?;
            let part = &secret[start..end];
            let mut form = part.to_owned();
            let mut before = 0;
            match u.int_in_range(0..=3)? {
                0 => {
                    before = u.int_in_range(0..=5)?;
                    form = encoded(part, before, *u.choose(&[*b"+/", *b"-_"])?);
                }
                1 => form = hexadecimal(part.as_bytes()).map(char::from).collect(),
                // Up to two escapes over each other.
                layers => {
                    for layer in 1..layers {
                        // What is escaped keeps its case and is not broken.
                        let at = u.choose_index(if layer == 1 { 11 } else { 9 })?;
                        let mut bits = u.bytes(form.len().min(u.len()))?.iter();
                        let mut is_escaped = || bits.next().is_some_and(|byte| byte & 1 == 1);
                        form = forms(&form, &mut is_escaped)[at].clone();
                    }
                }
            }
            let around: String = u.arbitrary()?;
            let text = format!("{around}<{form}>{around}");
            let result = redacted(&[&secret], &text);
            assert!(result.contains("[redacted]"), "{part} in {text}: {result}");
            // What is left between the marks around it is at most an edge of its base64.
            let inner = result.split('<').nth(around.matches('<').count() + 1);
            let inner = inner
                .unwrap_or_default()
                .split('>')
                .next()
                .unwrap_or_default();
            // A bracket beside the part may be the secret's own, and then the mark covers it.
            if secret.contains(['<', '>']) || around.contains('[') {
                return Ok(());
            }
            let left = inner.replace("[redacted]", "");
            assert!(left.len() <= 4 + 2 * before, "{left} of {part} as {form}");
            Ok(())
        });
    }

    #[test]
    fn a_text_without_a_secret_is_unchanged() {
        arbtest(|u| {
            let secret = secret(u)?;
            let text: String = u.arbitrary()?;
            let graphic: Vec<u8> = text.bytes().filter(u8::is_ascii_graphic).collect();
            let repeats = |text: &[u8]| {
                let mut runs = text.windows(RUN);
                let secret = secret.as_bytes();
                runs.any(|run| {
                    secret
                        .windows(RUN)
                        .any(|known| known.eq_ignore_ascii_case(run))
                })
            };
            if !text.contains(['\\', '%', '&']) && !repeats(text.as_bytes()) && !repeats(&graphic) {
                assert_eq!(redacted(&[&secret], &text), text);
            }
            Ok(())
        });
        let innocent =
            r#"{"error":"the model \"llama\" is unknown","path":"a%20b","hint":"R&amp;D"}"#;
        assert_eq!(redacted(&[KEY, "sk-0123456789"], innocent), innocent);
    }
}
