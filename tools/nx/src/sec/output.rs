//! How every command here speaks: text in columns or one JSON object on stdout, failures with the next step on stderr.

use crate::run::{Exit, Failure, Places, json_line, plain};
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};

/// The version of every JSON shape of `nx sec`: docs/security/nx-sec.md says what they promise.
pub(crate) const VERSION: u32 = 1;

/// What a command has to say, and with what status `nx` ends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) text: String,
    pub(crate) code: u8,
}

impl Said {
    pub(crate) fn fine(text: String) -> Self {
        Self { text, code: 0 }
    }

    /// One JSON object, one line.
    pub(crate) fn json(value: &Value, code: u8) -> Self {
        let text = format!("{}\n", json_line(value));
        Self { text, code }
    }
}

/// Prints what was said, or what went wrong, and gives the status that `nx` ends with. With `--json` a failure is an object
/// on stdout too.
pub(crate) fn finish(said: Result<Said, Failure>, as_json: bool) -> u8 {
    let Said { text, code } = match said {
        Ok(said) => said,
        Err(failure) if as_json => Said::json(&refusal(&failure), failure.exit.code()),
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "{failure}");
            return failure.exit.code();
        }
    };
    print(text.as_bytes(), code)
}

/// Prints it, and gives the status that `nx` ends with: this one, unless it cannot be written.
pub(crate) fn print(text: &[u8], code: u8) -> u8 {
    match written(text) {
        Ok(()) => code,
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "{failure}");
            failure.exit.code()
        }
    }
}

/// Whether there is a standard output: nothing is found out for nobody, and no success is claimed of what nobody gets.
pub(crate) fn has_stdout() -> Result<(), Failure> {
    if nexus_sys::stdio::stdout_was_closed() {
        let message = "cannot write what was found: standard output is closed".to_owned();
        return Err(Failure::new(Exit::Missing, message).with_help("`>/dev/null` is for whoever wants to see nothing"));
    }
    Ok(())
}

/// Writes all of it to stdout. A reader that has seen enough is no failure; a full disk is one, since what is there then says
/// less than was to be said.
pub(crate) fn written(text: &[u8]) -> Result<(), Failure> {
    if text.is_empty() {
        return Ok(());
    }
    has_stdout()?;
    let mut out = std::io::stdout();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::new(
            Exit::Missing,
            format!("cannot write what was found: {error}"),
        )
        .with_help("see whether the disk is full; what was written is cut short")),
        _ => Ok(()),
    }
}

fn refusal(failure: &Failure) -> Value {
    json!({
        "version": VERSION,
        "ok": false,
        "exit": failure.exit.code(),
        "message": failure.message,
        "help": failure.help,
    })
}

/// Where nexus keeps its things for the caller.
pub(crate) fn places() -> Result<Places, Failure> {
    Places::of_caller(|name| std::env::var(name).ok()).map_err(|why| {
        Failure::new(
            Exit::Missing,
            format!("there is no place where sessions would be known: {why}"),
        )
        .with_help("set `HOME` or `XDG_STATE_HOME` to what the sessions were started with")
    })
}

/// How text is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Paint {
    colour: bool,
}

impl Paint {
    /// Colour only on a terminal, and not where somebody asked for none (no-color.org).
    pub(crate) fn of_stdout() -> Self {
        let asked_for_none = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            colour: std::io::stdout().is_terminal() && !asked_for_none,
        }
    }

    /// Without colour.
    #[cfg(test)]
    pub(crate) const PLAIN: Self = Self { colour: false };

    /// A heading.
    pub(crate) fn head(self, text: &str) -> String {
        self.with("1", text)
    }

    /// What is as it should be.
    pub(crate) fn good(self, text: &str) -> String {
        self.with("32", text)
    }

    /// What is not as it should be.
    pub(crate) fn bad(self, text: &str) -> String {
        self.with("31", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Rows in columns as wide as their widest cell; what would act on a terminal is escaped, the last column is not padded.
pub(crate) fn table(paint: Paint, head: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| plain(cell)).collect())
        .collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
        widest.max(head.get(column).map_or(0, |cell| cell.chars().count()))
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &[String]| {
        let mut out = String::new();
        for (cell, width) in cells.iter().zip(&widths) {
            let pad = width.saturating_sub(cell.chars().count());
            out.push_str(cell);
            out.extend(std::iter::repeat_n(' ', pad.saturating_add(2)));
        }
        out.trim_end().to_owned()
    };
    let names: Vec<String> = head.iter().map(|name| (*name).to_owned()).collect();
    let mut out = paint.head(&line(&names));
    out.push('\n');
    for row in &rows {
        out.push_str(&line(row));
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_escape_what_speaks_to_a_terminal() {
        let rows = [
            vec!["a\u{1b}[2J".to_owned(), "b".to_owned()],
            vec!["c".to_owned(), "d".to_owned()],
        ];
        let text = table(Paint::PLAIN, &["X", "Y"], &rows);
        assert_eq!(
            text,
            "X         Y\na\\u{1b}[2J  b\nc         d\n"
                .replace("X         ", "X           ")
                .replace("c         ", "c           ")
        );
    }
}
