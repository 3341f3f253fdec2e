//! Text that others wrote, made fit for a terminal: visible, short, on one line.

use super::prelude::*;

/// Bytes of a name that are printed.
const MAX_NAME: usize = 200;
/// Bytes of an event's data or message that are printed.
pub(super) const MAX_DATA: usize = 2_000;
/// Bytes of one text in an event's data that are printed.
const MAX_TEXT: usize = 200;

/// Escapes characters that are not shown as themselves, so that no client can control the terminal or reorder its text.
pub(super) fn visible(text: &str) -> String {
    // Almost all text.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return text.to_owned();
    }
    let mut visible = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            char if char.is_control() || is_invisible(char) => {
                visible.extend(char.escape_default());
            }
            char => visible.push(char),
        }
    }
    visible
}

/// JSON that says the same, with these characters escaped: a parser reads what was sent.
pub(super) fn visible_json(json: &str) -> String {
    let mut visible = String::with_capacity(json.len());
    for char in json.chars() {
        if char.is_control() || is_invisible(char) {
            for unit in char.encode_utf16(&mut [0; 2]) {
                visible.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            visible.push(char);
        }
    }
    visible
}

/// Marks of direction, characters without a width, and others that look like a blank or like nothing.
fn is_invisible(char: char) -> bool {
    matches!(
        char,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}'
    )
}

/// A number of things: `1 event`, `2 events`.
pub(super) fn count(number: u64, noun: &str) -> String {
    match (number, noun.strip_suffix("ss")) {
        (1, _) => format!("1 {noun}"),
        (_, Some(_)) => format!("{number} {noun}es"),
        _ => format!("{number} {noun}s"),
    }
}

/// `is` or `are`, of so many things.
pub(super) const fn is_or_are(number: u64) -> &'static str {
    if number == 1 { "is" } else { "are" }
}

/// `was` or `were`.
pub(super) const fn was_or_were(number: u64) -> &'static str {
    if number == 1 { "was" } else { "were" }
}

/// The beginning of a long text, and its length.
pub(super) fn cut(text: &str, max: usize) -> Cow<'_, str> {
    if text.len() <= max {
        return Cow::Borrowed(text);
    }
    let end = boundary(text, max);
    Cow::Owned(format!("{}… ({} bytes)", &text[..end], text.len()))
}

/// The last place at or before this one where a text can be cut.
fn boundary(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    let places = (0..=at).rev();
    places
        .take(4)
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0)
}

/// A name, such as that of a session: never long.
pub(super) fn name(text: &str, full: bool) -> String {
    visible(&cut(text, if full { usize::MAX } else { MAX_NAME }))
}

/// JSON on one line, in the order in which it was written. Unless `full`, long texts in it are cut, and so is the whole.
pub(super) fn data(json: &str, full: bool) -> String {
    if full || json.len() <= MAX_TEXT {
        return visible(&compact(json));
    }
    let mut short = String::new();
    for token in Tokens(json) {
        if short.len() > MAX_DATA {
            short.push_str(&format!("… ({} bytes)", json.len()));
            break;
        }
        if token.len() > MAX_TEXT && token.starts_with('"') {
            let end = whole_end(token, MAX_TEXT);
            short.push_str(&format!("{}…\" ({} bytes)", &token[..end], token.len() - 2));
        } else {
            short.push_str(&cut(token, MAX_DATA));
        }
    }
    visible(&short)
}

/// JSON without the white space between its parts.
pub(super) fn compact(json: &str) -> String {
    if !json.bytes().any(is_space) {
        return json.to_owned();
    }
    Tokens(json).collect()
}

/// What JSON has between its parts.
const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// The beginning of JSON, without white space between its parts.
pub(super) fn beginning(json: &str, max: usize) -> String {
    let mut beginning = String::new();
    for token in Tokens(json) {
        if beginning.len() + token.len() > max {
            let room = max.saturating_sub(beginning.len());
            beginning.push_str(&token[..boundary(token, room)]);
            beginning.push('…');
            break;
        }
        beginning.push_str(token);
    }
    beginning
}

/// The parts of a JSON text, which is valid: texts whole, what is between them without white space.
struct Tokens<'a>(&'a str);

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let begin = self.0.bytes().position(|byte| !is_space(byte))?;
        let rest = self.0.get(begin..)?;
        let length = match rest.as_bytes().first()? {
            b'"' => end_of_text(rest),
            _ => rest
                .bytes()
                .position(|byte| is_space(byte) || byte == b'"')
                .unwrap_or(rest.len()),
        };
        let (token, rest) = rest.split_at(length);
        self.0 = rest;
        Some(token)
    }
}

/// Where to cut a text, at most at `max`: not within an escape or a character.
fn whole_end(text: &str, max: usize) -> usize {
    let bytes = text.as_bytes();
    let (mut at, mut whole) = (0, 0);
    while at <= max {
        if text.is_char_boundary(at) {
            whole = at;
        }
        at += match (bytes.get(at), bytes.get(at + 1)) {
            (Some(b'\\'), Some(b'u')) => 6,
            (Some(b'\\'), _) => 2,
            (Some(_), _) => 1,
            (None, _) => break,
        };
    }
    whole
}

/// The length of the text at the beginning, with its quotes.
fn end_of_text(json: &str) -> usize {
    let bytes = json.as_bytes();
    let mut at = 1;
    while let Some(found) = bytes.get(at) {
        match found {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    json.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular() {
        assert_eq!(count(1, "event"), "1 event");
        assert_eq!(count(0, "event"), "0 events");
        assert_eq!(count(1, "process"), "1 process");
        assert_eq!(count(2, "process"), "2 processes");
    }

    #[test]
    fn only_characters_that_are_not_shown_are_escaped() {
        assert_eq!(visible("é\u{1b}[2J\u{9b}\n"), "é\\u{1b}[2J\\u{9b}\\n");
        assert_eq!(visible("a\u{202e}b\u{feff}"), "a\\u{202e}b\\u{feff}");
        assert_eq!(visible("日本 👍"), "日本 👍");
    }

    #[test]
    fn json_with_escaped_characters_says_the_same() {
        let json = "{\"a\u{9b}\u{202e}\":\"\u{e0001}\u{7f}é👍\\n\"}";
        let visible = visible_json(json);
        assert_eq!(visible, r#"{"a\u009b\u202e":"\udb40\udc01\u007fé👍\n"}"#);
        let parsed = |text| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(parsed(json), parsed(&visible));
    }

    #[test]
    fn data_keep_their_order_and_lose_white_space_only_outside_of_texts() {
        let json = "{ \"z\" : [ 1 , 2.50 ],\n\t\"a b\\\" c\" : \"d  e\\\\\" , \"n\":null}";
        assert_eq!(
            data(json, true),
            r#"{"z":[1,2.50],"a b\" c":"d  e\\","n":null}"#
        );
        assert_eq!(data(json, false), data(json, true));
    }

    #[test]
    fn a_long_text_does_not_hide_what_follows_it() {
        let long = "x".repeat(3_000_000);
        let json = format!(r#"{{"z":1,"long":"{long}","after":2}}"#);
        let shown = data(&json, false);
        assert!(shown.len() < 400, "{}", shown.len());
        assert!(
            shown.ends_with(r#"x…" (3000000 bytes),"after":2}"#),
            "{shown}"
        );
    }

    #[test]
    fn no_text_is_cut_within_an_escape_or_a_character() {
        for before in 190..=202 {
            for long in ["\\u00e9", "\\\\", "é", "\\n", "👍"] {
                let json = format!(r#"["{}{}"]"#, "x".repeat(before), long.repeat(40));
                let shown = data(&json, false);
                let text = shown.split('…').next().unwrap();
                let whole = format!("{}\"]", text);
                assert!(
                    serde_json::from_str::<serde_json::Value>(&whole).is_ok(),
                    "{shown}"
                );
            }
        }
    }

    #[test]
    fn many_members_are_cut_as_a_whole() {
        let json = format!("[{}1]", "1,".repeat(100_000));
        let shown = data(&json, false);
        assert!(
            shown.len() < 3_000 && shown.ends_with("(200003 bytes)"),
            "{shown}"
        );
    }
}
