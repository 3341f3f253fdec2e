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

/// A value, read no further than its first token.
pub(super) enum Token<'a> {
    Null,
    Bool(bool),
    Number(&'a str),
    Str(RawStr<'a>),
    /// The cursor is behind the opening bracket.
    Array,
    /// The cursor is behind the opening brace.
    Object,
}

impl<'a> Cursor<'a> {
    /// At the beginning of this text. One that is not UTF-8 has no values.
    pub(super) fn new(text: &'a [u8]) -> Self {
        let text = str::from_utf8(text).unwrap_or_default();
        Self { text, at: 0 }
    }

    /// What is not read yet.
    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    fn skip_space(&mut self) {
        while matches!(
            self.text.as_bytes().get(self.at),
            Some(b' ' | b'\t' | b'\r' | b'\n')
        ) {
            self.at += 1;
        }
    }

    fn peek(&mut self) -> Option<u8> {
        self.skip_space();
        self.text.as_bytes().get(self.at).copied()
    }

    /// Takes this byte, if it is next.
    fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
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
            b't' => self.word(b"true", Token::Bool(true)),
            b'f' => self.word(b"false", Token::Bool(false)),
            b'n' => self.word(b"null", Token::Null),
            b'-' | b'0'..=b'9' => self.number(),
            _ => Err(Malformed),
        }
    }

    fn word(&mut self, word: &[u8], token: Token<'a>) -> Result<Token<'a>, Malformed> {
        if !self.rest().starts_with(word) {
            return Err(Malformed);
        }
        self.at += word.len();
        Ok(token)
    }

    fn number(&mut self) -> Result<Token<'a>, Malformed> {
        let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let rest = self.rest();
        let len = rest.iter().position(|byte| !is_part(byte));
        let end = self.at + len.unwrap_or(rest.len());
        let digits = self.text.get(self.at..end).ok_or(Malformed)?;
        self.at = end;
        Ok(Token::Number(digits))
    }

    fn rest_of_string(&mut self) -> Result<RawStr<'a>, Malformed> {
        let rest = self.rest();
        let mut has_escapes = false;
        let mut end = 0;
        loop {
            let more = rest.get(end..).unwrap_or_default();
            let special = more.iter().position(|byte| matches!(byte, b'"' | b'\\'));
            end += special.ok_or(Malformed)?;
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
    pub(super) fn key(&mut self, is_first: bool) -> Result<Option<RawStr<'a>>, Malformed> {
        if self.take(b'}') {
            return Ok(None);
        }
        if (!is_first && !self.take(b',')) || !self.take(b'"') {
            return Err(Malformed);
        }
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

    /// Passes over the value that is next, and returns it as it stands.
    pub(super) fn value(&mut self) -> Result<&'a [u8], Malformed> {
        self.skip_space();
        let start = self.at;
        let mut depth = 0_usize;
        loop {
            match self.token()? {
                Token::Object | Token::Array => depth += 1,
                _ if depth == 0 => break,
                _ => {}
            }
            // To the next value inside, or out of all that ends here.
            loop {
                match self.peek().ok_or(Malformed)? {
                    b'}' | b']' => {
                        self.at += 1;
                        depth = depth.checked_sub(1).ok_or(Malformed)?;
                        if depth == 0 {
                            return self.text.as_bytes().get(start..self.at).ok_or(Malformed);
                        }
                    }
                    b',' | b':' => self.at += 1,
                    _ => break,
                }
            }
        }
        self.text.as_bytes().get(start..self.at).ok_or(Malformed)
    }
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

    /// Whether both stand for the same string.
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
                assert_eq!(cursor.value(), Ok(value.as_bytes()), "{text}");
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
