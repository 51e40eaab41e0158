//! Canonical JSON: keys sorted by bytes, no spaces, integers only. The same value gives the same bytes on any machine.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A JSON value of the kinds that a policy needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Json {
    Bool(bool),
    Number(u64),
    Text(String),
    Array(Vec<Json>),
    Object(BTreeMap<String, Json>),
}

impl Json {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub(crate) fn texts<T: Into<String>>(texts: impl IntoIterator<Item = T>) -> Self {
        Self::Array(texts.into_iter().map(Self::text).collect())
    }

    pub(crate) fn object<const N: usize>(entries: [(&str, Self); N]) -> Self {
        Self::Object(
            entries
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
        )
    }

    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Array(items) => items.is_empty(),
            Self::Object(entries) => entries.is_empty(),
            _ => false,
        }
    }

    /// Sets a key of an object, unless the value is an empty list or object.
    pub(crate) fn put(&mut self, key: &str, value: Self) {
        if let Self::Object(entries) = self
            && !value.is_empty()
        {
            entries.insert(key.to_owned(), value);
        }
    }

    /// Sets a key of an object, also to what is empty: for lists where none and empty differ.
    pub(crate) fn force(&mut self, key: &str, value: Self) {
        if let Self::Object(entries) = self {
            entries.insert(key.to_owned(), value);
        }
    }

    pub(crate) fn render(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    // Values are as deep as the code that makes them: 7 levels, so the recursion is bounded.
    fn write(&self, out: &mut String) {
        match self {
            Self::Bool(true) => out.push_str("true"),
            Self::Bool(false) => out.push_str("false"),
            Self::Number(number) => out.push_str(&number.to_string()),
            Self::Text(text) => write_text(text, out),
            Self::Array(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    item.write(out);
                }
                out.push(']');
            }
            Self::Object(entries) => {
                out.push('{');
                for (index, (key, value)) in entries.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    write_text(key, out);
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
        }
    }
}

fn write_text(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            _ if character.is_control() => {
                // Writing to a string cannot fail; control characters are below U+00A0.
                let _ = write!(out, "\\u{:04x}", u32::from(character));
            }
            _ => out.push(character),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_and_text_is_escaped() {
        let value = Json::object([
            ("b", Json::Number(u64::MAX)),
            ("a", Json::Array(vec![Json::text("x\"\\\n\u{7f}ü"), Json::Bool(true)])),
        ]);
        assert_eq!(
            value.render(),
            "{\"a\":[\"x\\\"\\\\\\u000a\\u007fü\",true],\"b\":18446744073709551615}"
        );
    }

    #[test]
    fn an_empty_list_says_the_same_as_none() {
        let mut value = Json::object([]);
        value.put("a", Json::Array(Vec::new()));
        assert_eq!(value.render(), "{}");
    }
}
