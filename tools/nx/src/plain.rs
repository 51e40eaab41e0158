//! Text that others chose, as it goes to a reader, who may be a terminal: names of files and programs, words of a policy.
//!
//! Whoever chose it must not speak to the terminal, nor begin a line in the place of `nx`, nor look like another name.

use serde_json::Value;
use std::fmt::Write as _;

/// One name, on one line.
pub(crate) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for one in text.chars() {
        if one.is_control() || is_hidden(one) {
            out.extend(one.escape_default());
        } else {
            out.push(one);
        }
    }
    out
}

/// Text of several lines, which keeps them.
pub(crate) fn plain_lines(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for one in text.chars() {
        if (one.is_control() && one != '\n' && one != '\t') || is_hidden(one) {
            out.extend(one.escape_default());
        } else {
            out.push(one);
        }
    }
    out
}

/// The same, and each character takes as many bytes as before: places in it stay where they are.
pub(crate) fn plain_in_place(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for one in text.chars() {
        if (one.is_control() && !matches!(one, '\n' | '\r' | '\t')) || is_hidden(one) {
            out.extend(std::iter::repeat_n('?', one.len_utf8()));
        } else {
            out.push(one);
        }
    }
    out
}

/// A line of JSON: what would speak to a terminal is written by its number, which a JSON reader takes for the same (RFC 8259,
/// 7).
pub(crate) fn json_line(value: &Value) -> String {
    plain_json(&value.to_string())
}

/// The same of JSON that is written already, of any number of lines.
pub(crate) fn plain_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for one in text.chars() {
        if (one.is_control() && one != '\n') || is_hidden(one) {
            for unit in one.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(one);
        }
    }
    out
}

/// Bidirectional and other invisible formatting characters make a reader see another name (Unicode's `Default_Ignorable`
/// and `Bidi_Control`).
const fn is_hidden(one: char) -> bool {
    matches!(
        one,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_speak_to_the_terminal() {
        assert_eq!(
            plain("unix /tmp/é\u{1b}]0;x\u{7}\nnx: fine\u{202e}"),
            "unix /tmp/é\\u{1b}]0;x\\u{7}\\nnx: fine\\u{202e}"
        );
        assert_eq!(
            plain("a\u{61c}b\u{ad}\u{e0041}\u{3164}"),
            "a\\u{61c}b\\u{ad}\\u{e0041}\\u{3164}"
        );
        assert_eq!(plain("tcp 127.0.0.1:22"), "tcp 127.0.0.1:22");
    }

    #[test]
    fn json_says_the_same_and_nothing_to_a_terminal() {
        let value = serde_json::json!({"object": "unix /tmp/\u{1b}]0;x\u{7}\u{9b}31m\u{202e}a\u{61c}\u{e0041}\u{7f}é\n\"\\u202e"});
        let line = json_line(&value);
        assert!(!line.chars().any(|one| one.is_control() || is_hidden(one)), "{line}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap(), value);
    }

    #[test]
    fn lines_stay_lines_and_places_stay_places() {
        let text = "a\u{1b}[2J\n\tb\u{202e}\u{9b}";
        assert_eq!(plain_lines(text), "a\\u{1b}[2J\n\tb\\u{202e}\\u{9b}");
        assert_eq!(plain_in_place(text), "a?[2J\n\tb?????");
        assert_eq!(plain_in_place(text).len(), text.len());
        assert_eq!(plain_json("{\n  \"a\": \"\u{9b}\"\n}"), "{\n  \"a\": \"\\u009b\"\n}");
    }
}
