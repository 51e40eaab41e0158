//! `nx man`: the manual pages, made of the very definitions that read the command line.

use crate::cli::Cli;
use crate::run::{Exit, Failure};
use crate::sec::output;
use clap::{Command, CommandFactory};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

/// `nx man`.
#[derive(Debug, clap::Args)]
pub(crate) struct ManArgs {
    /// A page to print, such as `nx-sec-audit` or `sec audit`, or a directory to write all pages into: one that is there, or
    /// anything with a `/` in it. Without it the page `nx` is printed
    #[arg(value_name = "DIR|PAGE", num_args = 0..)]
    wanted: Vec<OsString>,
}

/// Does what the command line says, and gives the status that `nx` ends with.
pub(crate) fn man(args: &ManArgs) -> u8 {
    let pages = pages();
    let done = match args.wanted.as_slice() {
        [one] if is_directory(Path::new(one)) => write_all(Path::new(one), &pages),
        words => print(words, &pages),
    };
    match done {
        Ok(()) => 0,
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "{failure}");
            failure.exit.code()
        }
    }
}

fn is_directory(path: &Path) -> bool {
    path.is_dir() || path.as_os_str().as_encoded_bytes().contains(&b'/')
}

/// A page's name without its section, and its text.
struct Page {
    name: String,
    text: Vec<u8>,
}

/// Every page, a command before its subcommands.
fn pages() -> Vec<Page> {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let mut pages = Vec::new();
    add(&root, &mut pages);
    pages
}

fn add(command: &Command, pages: &mut Vec<Page>) {
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let mut text = Vec::new();
    // No date: the same nx gives the same pages.
    let page = clap_mangen::Man::new(command.clone())
        .title(name.to_uppercase())
        .section("1")
        .source(concat!("nx ", env!("CARGO_PKG_VERSION")))
        .manual("nexus");
    // Writing to memory does not fail.
    if page.render(&mut text).is_ok() {
        let text = tidy(&text);
        pages.push(Page { name, text });
    }
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        add(sub, pages);
    }
}

/// The page as groff and mandoc both take it without a word: the date that it lacks as an empty one, no line break beside
/// a blank line, and what is not ASCII by its number (groff_char(7)).
fn tidy(text: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    let mut out = String::with_capacity(text.len());
    for (index, line) in lines.iter().enumerate() {
        let beside = |at: Option<usize>| {
            at.and_then(|at| lines.get(at))
                .is_some_and(|line| matches!(*line, ".sp" | ""))
        };
        if *line == ".br" && (beside(index.checked_sub(1)) || beside(index.checked_add(1))) {
            continue;
        }
        let line = match line.strip_prefix(".TH ") {
            Some(rest) => format!(".TH {}", rest.replacen(" 1  ", " 1 \"\" ", 1)),
            None => (*line).to_owned(),
        };
        for one in line.chars() {
            if one.is_ascii() {
                out.push(one);
            } else {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\[u{:04X}]", u32::from(one));
            }
        }
        out.push('\n');
    }
    out.into_bytes()
}

/// `sec audit`, `nx-sec-audit` and `nx sec audit` are one page.
fn print(words: &[OsString], pages: &[Page]) -> Result<(), Failure> {
    let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let asked = words.join("-");
    let asked = asked.strip_suffix(".1").unwrap_or(&asked);
    let found = pages
        .iter()
        .find(|page| page.name == asked || page.name.strip_prefix("nx-") == Some(asked))
        .or_else(|| pages.first().filter(|_| words.is_empty()));
    let Some(page) = found else {
        let names: Vec<&str> = pages.iter().map(|page| page.name.as_str()).collect();
        let failure = Failure::usage(format!("there is no page `{}`", asked.escape_debug()));
        return Err(failure.with_help(format!(
            "the pages are {}; `nx man ./DIR` writes them all into a directory",
            names.join(", ")
        )));
    };
    output::written(&page.text)
}

fn write_all(directory: &Path, pages: &[Page]) -> Result<(), Failure> {
    let failed = |path: &Path, error: std::io::Error| {
        Failure::new(Exit::Missing, format!("cannot write `{}`: {error}", path.display()))
            .with_help("name a directory that this user can write, such as `~/.local/share/man/man1`")
    };
    std::fs::create_dir_all(directory).map_err(|error| failed(directory, error))?;
    for page in pages {
        let path = directory.join(format!("{}.1", page.name));
        std::fs::write(&path, &page.text).map_err(|error| failed(&path, error))?;
    }
    Ok(())
}
