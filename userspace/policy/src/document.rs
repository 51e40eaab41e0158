//! From bytes to a TOML table with spans.
//!
//! What hides or reorders text is refused before the reader sees it, and so is what is nested so deep that walking or
//! dropping the result would recurse without bound.

use std::ops::Range;

use toml::de::DeTable;
use toml_parser::Source;
use toml_parser::lexer::TokenKind;

use crate::diagnostic::{Code, Diagnostic, FileId, Place, Report};
use crate::limits::{LINE_DOTS_MAX, NESTING_MAX, TOKENS_MAX};

/// What is wrong with bytes that are to be a policy file, if something is: where and what.
pub(crate) fn check_bytes(bytes: &[u8]) -> Result<&str, (Range<usize>, Code, String, String)> {
    if bytes.starts_with(&[0xef, 0xbb, 0xbf]) {
        return Err((
            0..3,
            Code::ForbiddenCharacter,
            "the file begins with a byte order mark".into(),
            "save it as UTF-8 without BOM".into(),
        ));
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let at = error.valid_up_to();
            return Err((
                // The file is kept with U+FFFD there, which has three bytes.
                at..at.saturating_add(char::REPLACEMENT_CHARACTER.len_utf8()),
                Code::NotUtf8,
                format!("byte {at} is not UTF-8"),
                "policy files are UTF-8; save it in that encoding".into(),
            ));
        }
    };
    for (at, character) in text.char_indices() {
        let what = match character {
            '\n' | '\t' => continue,
            '\r' => "a carriage return",
            _ if character.is_control() => "a control character",
            _ if is_invisible(character) => "an invisible or direction-changing character",
            _ => continue,
        };
        let help = if character == '\r' {
            "end lines with LF alone, not CR LF"
        } else {
            "take it out: a reader would not see what the policy says"
        };
        return Err((
            at..at.saturating_add(character.len_utf8()),
            Code::ForbiddenCharacter,
            format!("{what}, U+{:04X}", u32::from(character)),
            help.into(),
        ));
    }
    Ok(text)
}

/// Characters that are not seen or that change the order in which others are seen (Unicode TR36, "Trojan Source").
pub(crate) fn is_invisible(character: char) -> bool {
    matches!(u32::from(character),
        0xad | 0x34f | 0x61c | 0x115f..=0x1160 | 0x17b4..=0x17b5 | 0x180b..=0x180f | 0x200b..=0x200f | 0x2028..=0x202e
        | 0x2060..=0x206f | 0x3164 | 0xfe00..=0xfe0f | 0xfeff | 0xffa0 | 0xfff0..=0xfffb | 0xe0000..=0xe0fff)
}

/// Reads a file's text. `None`: an error was reported.
pub(crate) fn parse<'t>(text: &'t str, file: FileId, report: &mut Report) -> Option<DeTable<'t>> {
    if let Some(diagnostic) = check_shape(text, file) {
        report.push(diagnostic);
        return None;
    }
    match DeTable::parse(text) {
        Ok(table) => Some(table.into_inner()),
        Err(error) => {
            let span = error.span().unwrap_or(text.len()..text.len());
            let diagnostic = Diagnostic::new(
                Code::Syntax,
                Place::new(file, span),
                format!("not TOML: {}", error.message()),
            );
            let help = if error.message() == "duplicate key" {
                "it is there already, further up; keep one of the two"
            } else {
                "strings stand in quotes, lists in [ ], tables in { } or under a line such as [subject.NAME]"
            };
            report.push(diagnostic.help(help));
            None
        }
    }
}

/// What is too large or too deep in a text, if something is.
fn check_shape(text: &str, file: FileId) -> Option<Diagnostic> {
    let (mut tokens, mut nesting, mut dots) = (0_usize, 0_usize, 0_usize);
    for token in Source::new(text).lex() {
        tokens = tokens.saturating_add(1);
        let place = || Place::new(file, token.span().start()..token.span().end());
        if tokens > TOKENS_MAX {
            return Some(
                Diagnostic::new(
                    Code::TooManyTokens,
                    place(),
                    format!("more than {TOKENS_MAX} tokens in one file"),
                )
                .help("split the file and include the parts"),
            );
        }
        match token.kind() {
            TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket => nesting = nesting.saturating_add(1),
            TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket => nesting = nesting.saturating_sub(1),
            TokenKind::Dot => dots = dots.saturating_add(1),
            TokenKind::Newline => dots = 0,
            _ => {}
        }
        if nesting > NESTING_MAX {
            return Some(
                Diagnostic::new(
                    Code::TooDeep,
                    place(),
                    format!("brackets nested deeper than {NESTING_MAX}"),
                )
                .help("no policy needs this; is a closing bracket missing further up?"),
            );
        }
        if dots > LINE_DOTS_MAX {
            return Some(
                Diagnostic::new(
                    Code::TooDeep,
                    place(),
                    format!("more than {LINE_DOTS_MAX} dots on one line"),
                )
                .help("no policy needs a key of so many parts"),
            );
        }
    }
    None
}
