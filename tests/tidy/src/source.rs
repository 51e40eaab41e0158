//! Rust source without what is not code.

/// The code of a Rust text: comments, strings and characters are replaced by a space, lines stay.
#[must_use]
pub fn code_only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skip = comment(rest)
            .or_else(|| raw_string(rest, &code))
            .or_else(|| quoted(rest));
        if let Some(length) = skip {
            let (gone, more) = rest.split_at_checked(length).unwrap_or((rest, ""));
            code.push(' ');
            code.extend(gone.chars().filter(|c| *c == '\n'));
            rest = more;
        } else {
            code.push(first);
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
        }
    }
    code
}

/// How long the comment is that the text starts with.
fn comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    let mut depth = 0_usize;
    let mut at = 0;
    loop {
        let rest = text.get(at..)?;
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if depth == 0 {
            return None;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return Some(at);
            }
        } else {
            match rest.chars().next() {
                Some(next) => at += next.len_utf8(),
                None => return Some(text.len()),
            }
        }
    }
}

/// How long the raw string is that the text starts with. A name that ends with an r is none.
fn raw_string(text: &str, before: &str) -> Option<usize> {
    let start = text
        .strip_prefix("br")
        .or_else(|| text.strip_prefix("cr"))
        .or_else(|| text.strip_prefix('r'))?;
    if before.chars().next_back().is_some_and(is_word) {
        return None;
    }
    let hashes = start.chars().take_while(|c| *c == '#').count();
    let body = start.get(hashes..)?.strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let length = body.find(&end).map_or(body.len(), |at| at + end.len());
    Some(text.len() - body.len() + length)
}

/// How long the string or character is that the text starts with. A lifetime is none.
fn quoted(text: &str) -> Option<usize> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let body = text.get(1..)?;
    if quote == '\'' && !body.starts_with('\\') {
        // One character and the closing quote, or a lifetime.
        let inner = body.chars().next()?;
        return body
            .get(inner.len_utf8()..)?
            .starts_with('\'')
            .then(|| inner.len_utf8() + 2);
    }
    let mut escaped = false;
    for (at, c) in body.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(at + 2),
            _ => {}
        }
    }
    Some(text.len())
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether a word stands alone in a text.
#[must_use]
pub fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = text.get(..at).and_then(|text| text.chars().next_back());
        let after = text.get(at + word.len()..).and_then(|text| text.chars().next());
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn comments_strings_and_characters_are_not_code() {
        for (text, word) in [
            ("// unsafe\n", false),
            ("/* a /* b */ unsafe */", false),
            ("/* a */ unsafe {}", true),
            ("\"unsafe\"", false),
            ("\"\\\"unsafe\"", false),
            ("\"a\" unsafe", true),
            ("r#\"a\" unsafe\"#", false),
            ("br\"unsafe\"", false),
            ("for\"unsafe\"", false),
            ("'\"' unsafe '\"'", true),
            ("'\\'' unsafe", true),
            ("fn f<'a>(x: &'a str) { unsafe {} }", true),
            ("unsafe_code", false),
        ] {
            assert_eq!(has_word(&code_only(text), "unsafe"), word, "{text}");
        }
    }

    #[test]
    fn lines_stay_where_they_were() {
        assert_eq!(code_only("a /* \n */ b // c\nd"), "a  \n b  \nd");
    }

    proptest! {
        #[test]
        fn arbitrary_text_is_read_without_panic(text in any::<String>()) {
            let _ = code_only(&text);
        }

        #[test]
        fn text_full_of_quotes_is_read_without_panic(text in "[\"'r#/*\\\\ a\n]{0,40}") {
            prop_assert!(code_only(&text).len() <= 2 * text.len());
        }
    }
}
