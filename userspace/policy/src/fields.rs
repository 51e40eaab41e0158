//! Typed access to TOML values that reports what is wrong with them.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use crate::diagnostic::{Code, Diagnostic, FileId, Place, Report};

pub(crate) type Value<'t> = Spanned<DeValue<'t>>;

/// What a file's readers share: which file, its text, where errors go.
pub(crate) struct Reader<'r> {
    pub(crate) file: FileId,
    pub(crate) text: &'r str,
    pub(crate) report: &'r mut Report,
}

/// Names the candidate that is most like the word, if one is near.
pub(crate) fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    // What is longer than any key or syscall is no typing error, and comparing it would cost its length squared.
    if word.len() > 64 {
        return None;
    }
    let distance_max = (word.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (strsim::osa_distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= distance_max)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Text that comes from a file, fit for a message: short, and without what a terminal would act on.
pub(crate) fn quote(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 80;
    let mut shown: String = text
        .chars()
        .take(SHOWN_CHARS_MAX)
        .flat_map(|c| {
            let plain = !c.is_control() && !crate::document::is_invisible(c);
            let escaped = (!plain).then(|| c.escape_unicode());
            escaped.into_iter().flatten().chain(plain.then_some(c))
        })
        .collect();
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

impl<'r> Reader<'r> {
    pub(crate) fn place(&self, span: Range<usize>) -> Place {
        Place::new(self.file, span)
    }

    pub(crate) fn error_help(
        &mut self,
        code: Code,
        span: Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let place = self.place(span);
        self.report.push(Diagnostic::new(code, place, message).help(help));
    }

    /// Reports the keys of a table that mean nothing there.
    pub(crate) fn known_keys(&mut self, table: &DeTable<'_>, known: &[&str]) {
        for key in table.keys() {
            if known.contains(&key.get_ref().as_ref()) {
                continue;
            }
            if !self.report.has_room() {
                return;
            }
            let place = self.place(key.span());
            let diagnostic = Diagnostic::new(
                Code::UnknownKey,
                place,
                format!("{} means nothing here", quote(key.get_ref())),
            );
            self.report.push(match nearest(key.get_ref(), known.iter().copied()) {
                Some(near) => diagnostic.label("unknown key").help(format!("did you mean `{near}`?")),
                None => diagnostic
                    .label("unknown key")
                    .help(format!("known here: {}", known.join(", "))),
            });
        }
    }

    pub(crate) fn wrong_type(&mut self, value: &Value<'_>, what: &str, right: &str) {
        let is = value.get_ref().type_str();
        let article = if matches!(is, "integer" | "array") { "an" } else { "a" };
        self.error_help(
            Code::WrongType,
            value.span(),
            format!("{what} is {article} {is}"),
            right,
        );
    }

    pub(crate) fn string<'v>(&mut self, value: &'v Value<'_>, what: &str, example: &str) -> Option<&'v str> {
        let text = value.get_ref().as_str();
        if text.is_none() {
            self.wrong_type(value, what, &format!("write a string, such as {example}"));
        }
        text
    }

    pub(crate) fn table<'v, 't>(&mut self, value: &'v Value<'t>, what: &str, example: &str) -> Option<&'v DeTable<'t>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.wrong_type(value, what, &format!("write a table, such as {example}"));
        }
        table
    }

    /// The entries of a list, of which there may be so many. A longer one is an error and read no further.
    pub(crate) fn list<'v, 't>(
        &mut self,
        value: &'v Value<'t>,
        what: &str,
        example: &str,
        entries_max: usize,
    ) -> Option<&'v [Value<'t>]> {
        let Some(list) = value.get_ref().as_array() else {
            self.wrong_type(value, what, &format!("write a list, such as {example}"));
            return None;
        };
        if list.len() > entries_max {
            self.error_help(
                Code::TooManyEntries,
                value.span(),
                format!("{what} has {} entries, more than {entries_max}", list.len()),
                "say it in fewer and wider entries",
            );
            return None;
        }
        Some(list)
    }

    pub(crate) fn boolean(&mut self, value: &Value<'_>, what: &str) -> Option<bool> {
        let truth = value.get_ref().as_bool();
        if truth.is_none() {
            self.wrong_type(value, what, "write true or false");
        }
        truth
    }

    /// An integer within bounds.
    pub(crate) fn integer(&mut self, value: &Value<'_>, what: &str, first: u64, last: u64) -> Option<u64> {
        let Some(integer) = value.get_ref().as_integer() else {
            self.wrong_type(value, what, &format!("write an integer from {first} to {last}"));
            return None;
        };
        match integer_value(integer).and_then(|number| u64::try_from(number).ok()) {
            Some(number) if (first..=last).contains(&number) => Some(number),
            _ => {
                let shown = quote(self.text.get(value.span()).unwrap_or_default());
                self.error_help(
                    Code::BadValue,
                    value.span(),
                    format!("{what} {shown} is not from {first} to {last}"),
                    format!("write an integer from {first} to {last}"),
                );
                None
            }
        }
    }

    /// One of some words.
    pub(crate) fn word<T: Copy>(&mut self, value: &Value<'_>, what: &str, words: &[(&str, T)]) -> Option<T> {
        let all = words
            .iter()
            .map(|(word, _)| format!("\"{word}\""))
            .collect::<Vec<_>>()
            .join(", ");
        let text = self.string(value, what, &all)?;
        let found = words
            .iter()
            .find(|(word, _)| *word == text)
            .map(|(_, meaning)| *meaning);
        if found.is_none() {
            self.error_help(
                Code::BadValue,
                value.span(),
                format!("{what} {} is not known", quote(text)),
                format!("write one of {all}"),
            );
        }
        found
    }

    /// Whether a string's source is the string between quotes, so that offsets inside it are offsets in the file.
    pub(crate) fn inside(&self, value: &Value<'_>, text: &str, part: Range<usize>) -> Range<usize> {
        let span = value.span();
        let start = span.start.saturating_add(1);
        match self.text.get(start..start.saturating_add(text.len())) {
            Some(source) if source == text && span.len() == text.len().saturating_add(2) => {
                start.saturating_add(part.start)..start.saturating_add(part.end)
            }
            _ => span,
        }
    }
}

/// The value of an integer, whatever base it is written in.
pub(crate) fn integer_value(integer: &DeInteger<'_>) -> Option<i128> {
    i128::from_str_radix(integer.as_str(), integer.radix()).ok()
}
