//! JSON from outside: raw fragments in an event's data, and the data that a scrub hook gets to see.

mod merge;
mod reader;

pub(crate) use merge::Merged;
pub(crate) use reader::{AsIs, Checked, parse, unescape};

/// The struct names by which serde_json recognizes arbitrary-precision numbers and raw JSON.
pub(crate) const NUMBER: &str = "$serde_json::private::Number";
pub(crate) const RAW: &str = "$serde_json::private::RawValue";

/// A raw fragment that every conforming reader understands.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fragment<'a> {
    /// Without whitespace around it.
    pub(crate) json: &'a str,
    /// How deep its objects and arrays nest.
    pub(crate) depth: usize,
}

impl Fragment<'_> {
    pub(crate) fn is_number(&self) -> bool {
        self.json
            .starts_with(['-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9'])
    }
}

const INVALID: &str = "raw JSON in it is not valid JSON";
const SURROGATE: &str = "raw JSON in it has half of a surrogate pair";
const RANGE: &str = "a number in it is beyond the range of 64-bit floating point";

/// What may come next.
enum Expected {
    Value,
    ElementOrEnd,
    Key,
    KeyOrEnd,
    CommaOrEnd,
}

/// Checks that `text` is one JSON value, without recursion.
pub(crate) fn check(text: &str) -> Result<Fragment<'_>, &'static str> {
    let json = text.trim_matches(is_space);
    let mut scan = Scan::new(json);
    let mut open = Brackets::default();
    let mut depth = 0;
    let mut expected = Expected::Value;
    loop {
        scan.skip_spaces();
        expected = match (expected, scan.next().ok_or(INVALID)?) {
            (Expected::Value | Expected::ElementOrEnd, b'{') => {
                open.push(true);
                depth = open.len().max(depth);
                Expected::KeyOrEnd
            }
            (Expected::Value | Expected::ElementOrEnd, b'[') => {
                open.push(false);
                depth = open.len().max(depth);
                Expected::ElementOrEnd
            }
            (Expected::Value | Expected::ElementOrEnd, first @ (b'"' | b'-' | b'0'..=b'9')) => {
                match first {
                    b'"' => scan.string()?,
                    _ => scan.number()?,
                }
                Expected::CommaOrEnd
            }
            (Expected::Value | Expected::ElementOrEnd, b't' | b'f' | b'n') => {
                scan.word()?;
                Expected::CommaOrEnd
            }
            (Expected::Key | Expected::KeyOrEnd, b'"') => {
                scan.string()?;
                scan.skip_spaces();
                if scan.next() != Some(b':') {
                    return Err(INVALID);
                }
                Expected::Value
            }
            (Expected::CommaOrEnd, b',') => match open.is_object() {
                true => Expected::Key,
                false => Expected::Value,
            },
            (Expected::CommaOrEnd | Expected::KeyOrEnd, b'}') if open.is_object() => {
                open.pop();
                Expected::CommaOrEnd
            }
            (Expected::CommaOrEnd | Expected::ElementOrEnd, b']') if !open.is_object() => {
                open.pop();
                Expected::CommaOrEnd
            }
            _ => return Err(INVALID),
        };
        if open.len() == 0 && matches!(expected, Expected::CommaOrEnd) {
            return match scan.next() {
                None => Ok(Fragment { json, depth }),
                Some(_) => Err(INVALID),
            };
        }
    }
}

fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\n' | '\r')
}

/// The open brackets: whether each is that of an object. The innermost 128 without an allocation.
#[derive(Default)]
struct Brackets {
    innermost: u128,
    outer: alloc::vec::Vec<u128>,
    len: usize,
}

impl Brackets {
    fn push(&mut self, is_object: bool) {
        if self.len > 0 && self.len.is_multiple_of(128) {
            self.outer.push(self.innermost);
        }
        self.innermost = self.innermost << 1 | u128::from(is_object);
        self.len += 1;
    }

    fn pop(&mut self) {
        self.len -= 1;
        self.innermost >>= 1;
        if self.len > 0
            && self.len.is_multiple_of(128)
            && let Some(outer) = self.outer.pop()
        {
            self.innermost = outer;
        }
    }

    fn is_object(&self) -> bool {
        self.innermost & 1 == 1
    }

    fn len(&self) -> usize {
        self.len
    }
}

/// A place in a text.
struct Scan<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn skip_while(&mut self, is_part: impl Fn(u8) -> bool) -> usize {
        let start = self.at;
        while self.peek().is_some_and(&is_part) {
            self.at += 1;
        }
        self.at - start
    }

    fn skip_spaces(&mut self) {
        self.skip_while(|byte| is_space(byte.into()));
    }

    /// The rest of `true`, `false` or `null`.
    fn word(&mut self) -> Result<(), &'static str> {
        let start = self.at - 1;
        self.skip_while(|byte| byte.is_ascii_lowercase());
        match &self.text[start..self.at] {
            "true" | "false" | "null" => Ok(()),
            _ => Err(INVALID),
        }
    }

    /// The rest of a number whose first byte has been read.
    fn number(&mut self) -> Result<(), &'static str> {
        let start = self.at - 1;
        self.at = start;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let is_digit = |byte: u8| byte.is_ascii_digit();
        let has_zero = self.peek() == Some(b'0');
        let digits = self.skip_while(is_digit);
        if digits == 0 || (has_zero && digits > 1) {
            return Err(INVALID);
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            if self.skip_while(is_digit) == 0 {
                return Err(INVALID);
            }
        }
        let has_exponent = matches!(self.peek(), Some(b'e' | b'E'));
        if has_exponent {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if self.skip_while(is_digit) == 0 {
                return Err(INVALID);
            }
        }
        // The largest has 309 digits before the point.
        let is_finite = || {
            let value = self.text[start..self.at].parse::<f64>();
            value.is_ok_and(f64::is_finite)
        };
        if (has_exponent || digits > 300) && !is_finite() {
            return Err(RANGE);
        }
        Ok(())
    }

    /// The rest of a string whose first quote has been read.
    fn string(&mut self) -> Result<(), &'static str> {
        loop {
            self.skip_while(|byte| byte >= b' ' && byte != b'"' && byte != b'\\');
            match self.next() {
                Some(b'"') => return Ok(()),
                Some(b'\\') => {}
                _ => return Err(INVALID),
            }
            match self.next() {
                Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {}
                Some(b'u') => match self.hex()? {
                    0xd800..0xdc00 => {
                        let is_pair = (self.next(), self.next()) == (Some(b'\\'), Some(b'u'))
                            && (0xdc00..0xe000).contains(&self.hex()?);
                        if !is_pair {
                            return Err(SURROGATE);
                        }
                    }
                    0xdc00..0xe000 => return Err(SURROGATE),
                    _ => {}
                },
                _ => return Err(INVALID),
            }
        }
    }

    /// The four digits of an escape.
    fn hex(&mut self) -> Result<u32, &'static str> {
        (0..4).try_fold(0, |value, _| {
            let digit = self.next().and_then(|byte| char::from(byte).to_digit(16));
            Ok(value * 16 + digit.ok_or(INVALID)?)
        })
    }
}

#[cfg(test)]
use reader::Parsed;
#[cfg(test)]
mod tests;
