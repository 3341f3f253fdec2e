//! A cursor over JSON that this crate has written: it reads a value where it stands, and builds no tree.

use alloc::borrow::Cow;
use alloc::string::String;

/// What is at a cursor is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// A position in JSON text.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a> {
    /// Checked to be UTF-8 once, and not string by string.
    text: &'a str,
    at: usize,
}

/// A string as it stands in the text, without its quotes.
#[derive(Clone, Copy)]
pub(super) struct RawStr<'a> {
    pub(super) text: &'a str,
    has_escapes: bool,
}

/// A number as it stands in the text.
#[derive(Clone, Copy)]
pub(super) struct Number<'a> {
    pub(super) text: &'a str,
    /// Whether it has neither a fraction nor an exponent.
    pub(super) is_integer: bool,
}

/// A value, read no further than its first token.
pub(super) enum Token<'a> {
    Null,
    Bool(bool),
    Number(Number<'a>),
    Str(RawStr<'a>),
    /// The cursor is behind the opening bracket.
    Array,
    /// The cursor is behind the opening brace.
    Object,
}

impl<'a> Cursor<'a> {
    /// At the beginning of this text. One that is not UTF-8 has no values.
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self::over(str::from_utf8(text).unwrap_or_default())
    }

    /// At the beginning of this text.
    pub(super) const fn over(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// What is not read yet.
    #[inline]
    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    /// The byte that is next, white space left out.
    #[inline]
    fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.text.as_bytes().get(self.at)?;
            // Nothing that this crate writes has any, but data may be JSON of the program's.
            if byte > b' ' || !matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    /// Takes this byte, if it is next.
    #[inline]
    fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// Takes this text, if it is next, to the byte.
    #[inline]
    pub(super) fn take_text(&mut self, text: &str) -> bool {
        let is_next = self.rest().starts_with(text.as_bytes());
        self.at += if is_next { text.len() } else { 0 };
        is_next
    }

    /// Goes behind the brace of the object that is next.
    pub(super) fn object(&mut self) -> Result<(), Malformed> {
        if self.take(b'{') {
            Ok(())
        } else {
            Err(Malformed)
        }
    }

    /// Whether null is next.
    pub(super) fn is_null(&mut self) -> bool {
        self.peek() == Some(b'n')
    }

    /// Whether nothing but white space is left.
    #[cfg(test)]
    fn is_at_end(&mut self) -> bool {
        self.peek().is_none()
    }

    /// Reads the first token of the value that is next.
    #[inline]
    pub(super) fn token(&mut self) -> Result<Token<'a>, Malformed> {
        match self.peek().ok_or(Malformed)? {
            b'"' => {
                self.at += 1;
                self.rest_of_string().map(Token::Str)
            }
            b'{' => {
                self.at += 1;
                Ok(Token::Object)
            }
            b'[' => {
                self.at += 1;
                Ok(Token::Array)
            }
            b't' => self.word("true", Token::Bool(true)),
            b'f' => self.word("false", Token::Bool(false)),
            b'n' => self.word("null", Token::Null),
            b'-' | b'0'..=b'9' => self.number(),
            _ => Err(Malformed),
        }
    }

    fn word(&mut self, word: &str, token: Token<'a>) -> Result<Token<'a>, Malformed> {
        if self.take_text(word) {
            Ok(token)
        } else {
            Err(Malformed)
        }
    }

    #[inline]
    fn number(&mut self) -> Result<Token<'a>, Malformed> {
        let mut is_integer = true;
        let mut end = self.at;
        while let Some(byte) = self.text.as_bytes().get(end) {
            match byte {
                b'0'..=b'9' | b'-' => {}
                b'.' | b'e' | b'E' | b'+' => is_integer = false,
                _ => break,
            }
            end += 1;
        }
        let text = self.text.get(self.at..end).ok_or(Malformed)?;
        self.at = end;
        Ok(Token::Number(Number { text, is_integer }))
    }

    /// Reads a whole number without a sign.
    #[inline]
    pub(super) fn digits(&mut self) -> Option<u64> {
        let start = self.at;
        let mut number = 0_u64;
        while let Some(byte @ b'0'..=b'9') = self.text.as_bytes().get(self.at) {
            number = number
                .checked_mul(10)?
                .checked_add(u64::from(byte - b'0'))?;
            self.at += 1;
        }
        (self.at > start).then_some(number)
    }

    /// Reads a string behind its opening quote.
    #[inline]
    pub(super) fn rest_of_string(&mut self) -> Result<RawStr<'a>, Malformed> {
        let rest = self.rest();
        let mut has_escapes = false;
        let mut end = 0;
        loop {
            end += quote_or_backslash(rest.get(end..).unwrap_or_default()).ok_or(Malformed)?;
            if rest.get(end) == Some(&b'"') {
                break;
            }
            has_escapes = true;
            end += 2;
        }
        let text = self.text.get(self.at..self.at + end).ok_or(Malformed)?;
        self.at += end + 1;
        Ok(RawStr { text, has_escapes })
    }

    /// The key of the object's next member, with the cursor before its value; `None` behind the object's end.
    #[inline]
    pub(super) fn key(&mut self, is_first: bool) -> Result<Option<RawStr<'a>>, Malformed> {
        let mut next = self.peek();
        if next == Some(b'}') {
            self.at += 1;
            return Ok(None);
        }
        if !is_first {
            if next != Some(b',') {
                return Err(Malformed);
            }
            self.at += 1;
            next = self.peek();
        }
        if next != Some(b'"') {
            return Err(Malformed);
        }
        self.at += 1;
        let key = self.rest_of_string()?;
        if !self.take(b':') {
            return Err(Malformed);
        }
        Ok(Some(key))
    }

    /// Whether the array has another element, which is next.
    pub(super) fn element(&mut self, is_first: bool) -> Result<bool, Malformed> {
        if self.take(b']') {
            return Ok(false);
        }
        if is_first || self.take(b',') {
            Ok(true)
        } else {
            Err(Malformed)
        }
    }

    /// Passes over the value that is next, and returns it as it stands. What is inside an object or an array is not
    /// checked, but for its brackets and its strings.
    pub(super) fn value(&mut self) -> Result<&'a str, Malformed> {
        self.peek();
        let start = self.at;
        if let Token::Object | Token::Array = self.token()? {
            let mut depth = 1_usize;
            while depth > 0 {
                let byte = *self.text.as_bytes().get(self.at).ok_or(Malformed)?;
                self.at += 1;
                match byte {
                    b'"' => drop(self.rest_of_string()?),
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
            }
        }
        self.text.get(start..self.at).ok_or(Malformed)
    }
}

/// Where the first quote or backslash is. Eight bytes at a time: most strings are short, and have neither.
#[inline]
fn quote_or_backslash(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 0xff;
    /// A word with a high bit where a byte of `word` is zero; above the lowest of these, others may be wrong.
    const fn zeros(word: u64) -> u64 {
        word.wrapping_sub(ONES) & !word & (ONES << 7)
    }
    let (words, rest) = bytes.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let quotes = zeros(word ^ (ONES * b'"' as u64));
        let backslashes = zeros(word ^ (ONES * b'\\' as u64));
        let found = quotes | backslashes;
        if found != 0 {
            return Some(at * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let is_special = |byte: &u8| matches!(byte, b'"' | b'\\');
    let at = rest.iter().position(is_special)?;
    Some(words.len() * 8 + at)
}

impl<'a> RawStr<'a> {
    /// A text in which nothing needs an escape.
    pub(super) const fn plain(text: &'a str) -> Self {
        let has_escapes = false;
        Self { text, has_escapes }
    }

    /// A text as JSON has it between quotes.
    pub(super) fn of_json(text: &'a str) -> Self {
        let has_escapes = text.contains('\\');
        Self { text, has_escapes }
    }

    /// The string, if nothing in it is escaped.
    #[inline]
    pub(super) const fn as_plain(&self) -> Option<&'a str> {
        if self.has_escapes {
            None
        } else {
            Some(self.text)
        }
    }

    /// Whether both stand for the same string.
    #[inline]
    pub(super) fn is_same(&self, other: Self) -> bool {
        if self.has_escapes || other.has_escapes {
            matches!((self.decoded(), other.decoded()), (Ok(one), Ok(other)) if one == other)
        } else {
            self.text == other.text
        }
    }

    /// The string that the text stands for. A lone surrogate becomes U+FFFD.
    pub(super) fn decoded(&self) -> Result<Cow<'a, str>, Malformed> {
        if !self.has_escapes {
            return Ok(Cow::Borrowed(self.text));
        }
        let mut out = String::with_capacity(self.text.len());
        self.decode(|piece| out.push_str(piece))?;
        Ok(Cow::Owned(out))
    }

    /// Hands the string to `write`, in pieces.
    pub(super) fn decode(&self, mut write: impl FnMut(&str)) -> Result<(), Malformed> {
        if !self.has_escapes {
            write(self.text);
            return Ok(());
        }
        let mut rest = self.text;
        while let Some((plain, after)) = rest.split_once('\\') {
            write(plain);
            let (character, used) = escape(after)?;
            write(character.encode_utf8(&mut [0; 4]));
            rest = after.get(used..).ok_or(Malformed)?;
        }
        write(rest);
        Ok(())
    }
}

/// The character that an escape stands for, and how long it is without its backslash.
fn escape(after: &str) -> Result<(char, usize), Malformed> {
    let character = match after.as_bytes().first().ok_or(Malformed)? {
        b'n' => '\n',
        b't' => '\t',
        b'r' => '\r',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'u' => return unicode(after),
        byte @ (b'"' | b'\\' | b'/') => char::from(*byte),
        _ => return Err(Malformed),
    };
    Ok((character, 1))
}

fn unicode(after: &str) -> Result<(char, usize), Malformed> {
    let unit = |at: usize| {
        let digits = after.get(at..at + 4)?;
        let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hex.then(|| u32::from_str_radix(digits, 16).ok())?
    };
    let first = unit(1).ok_or(Malformed)?;
    if let Some(character) = char::from_u32(first) {
        return Ok((character, 5));
    }
    let second = after
        .get(5..7)
        .filter(|mark| *mark == "\\u")
        .and_then(|_| unit(7));
    if let (0xd800..0xdc00, Some(low @ 0xdc00..0xe000)) = (first, second) {
        let both = 0x1_0000 + ((first - 0xd800) << 10) + (low - 0xdc00);
        return char::from_u32(both)
            .map(|character| (character, 11))
            .ok_or(Malformed);
    }
    Ok((char::REPLACEMENT_CHARACTER, 5))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use arbtest::arbtest;

    fn string(text: &str) -> Result<String, Malformed> {
        let mut cursor = Cursor::new(text.as_bytes());
        match cursor.token()? {
            Token::Str(text) if cursor.is_at_end() => Ok(text.decoded()?.into_owned()),
            _ => Err(Malformed),
        }
    }

    #[test]
    fn any_string_is_decoded_as_serde_json_does() {
        arbtest(|u| {
            let text: String = u.arbitrary()?;
            let json = serde_json::to_string(&text).expect("a string");
            assert_eq!(string(&json), Ok(text.clone()));
            let escaped: String = text
                .encode_utf16()
                .map(|unit| format!("\\u{unit:04X}"))
                .collect();
            assert_eq!(string(&format!("\"{escaped}\"")), Ok(text));
            Ok(())
        });
    }

    #[test]
    fn a_lone_surrogate_is_replaced_and_a_broken_escape_is_malformed() {
        assert_eq!(string(r#""a\ud800b""#), Ok("a\u{fffd}b".into()));
        assert_eq!(string(r#""\udc00\ud800""#), Ok("\u{fffd}\u{fffd}".into()));
        assert_eq!(string(r#""\ud800\u0041""#), Ok("\u{fffd}A".into()));
        for broken in [
            r#""\x""#,
            r#""\u00""#,
            r#""\u+0ff""#,
            r#""a"#,
            r#""a\"#,
            r#""\""#,
        ] {
            assert_eq!(string(broken), Err(Malformed), "{broken}");
        }
    }

    #[test]
    fn a_value_ends_where_it_ends() {
        for value in [
            "1",
            "-1.5e-7",
            "null",
            "true",
            r#""}\"]""#,
            "{}",
            "[]",
            r#"{"a":[{"b":"}"},[]]}"#,
            "[ 1 , { \"a\" : [ ] } ]",
        ] {
            for rest in ["", ",2", "}", "]"] {
                let text = format!(" {value}{rest}");
                let mut cursor = Cursor::new(text.as_bytes());
                assert_eq!(cursor.value(), Ok(value), "{text}");
            }
        }
    }

    #[test]
    fn the_end_of_a_string_is_found_wherever_it_is() {
        arbtest(|u| {
            let bytes: &[u8] = u.arbitrary()?;
            let position = bytes.iter().position(|byte| b"\"\\".contains(byte));
            assert_eq!(quote_or_backslash(bytes), position);
            Ok(())
        });
        for len in 0..40 {
            for (special, neighbours) in [(b'"', b"!#"), (b'\\', b"[]")] {
                for neighbour in neighbours {
                    let mut bytes = [*neighbour; 40];
                    bytes[len] = special;
                    assert_eq!(quote_or_backslash(&bytes), Some(len));
                    assert_eq!(quote_or_backslash(&bytes[..len]), None);
                }
            }
        }
    }

    #[test]
    fn no_text_makes_it_panic_or_loop() {
        arbtest(|u| {
            let len = u.arbitrary_len::<u8>()?;
            let bytes = u.bytes(len)?;
            let _ = Cursor::new(bytes).value();
            let mut cursor = Cursor::new(bytes);
            let _ = cursor.token();
            let _ = cursor.key(true).map(|key| key.map(|key| key.decoded()));
            Ok(())
        });
    }
}
