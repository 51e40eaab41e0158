//! Drawing what is wrong with a policy, with its source around it.

use crate::plain::{plain_in_place, plain_lines};
use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteDiagnostic, NamedSource, Report, Severity};
use nexus_policy::{Diagnostic, Diagnostics};
use std::fmt::Write;
use std::io::IsTerminal;

/// The errors of a tree as a person reads them; colour only on a terminal.
pub(crate) fn draw(diagnostics: &Diagnostics) -> String {
    let coloured = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let theme = if coloured {
        GraphicalTheme::unicode()
    } else {
        GraphicalTheme::unicode_nocolor()
    };
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_width(100)
        .with_links(false);
    let mut out = String::new();
    for item in diagnostics.items() {
        let report = report(item, diagnostics);
        if handler.render_report(&mut out, report.as_ref()).is_err() {
            // A String takes everything; were it not so, the plain text would still be told.
            let _ = writeln!(out, "{}", plain_lines(&item.message));
        }
    }
    if diagnostics.left_out() > 0 {
        let _ = writeln!(out, "and {} more", diagnostics.left_out());
    }
    out
}

fn report(item: &Diagnostic, all: &Diagnostics) -> Report {
    let span = |place: &nexus_policy::Place| place.span.start..place.span.end.max(place.span.start);
    let mut labels = vec![LabeledSpan::new_primary_with_span(
        Some(plain_lines(&item.label)),
        span(&item.place),
    )];
    if let Some(related) = item
        .related
        .as_ref()
        .filter(|related| related.place.file == item.place.file)
    {
        labels.push(LabeledSpan::new_with_span(
            Some(plain_lines(&related.label)),
            span(&related.place),
        ));
    }
    let mut diagnostic = MietteDiagnostic::new(plain_lines(&item.message))
        .with_severity(Severity::Error)
        .with_code(item.code.as_str())
        .with_labels(labels);
    let elsewhere = item
        .related
        .as_ref()
        .filter(|related| related.place.file != item.place.file)
        .map(|related| format!("{}: {}", all.sources().at(&related.place), related.label));
    let help = [item.help.clone(), elsewhere]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join("\n");
    if !help.is_empty() {
        diagnostic = diagnostic.with_help(plain_lines(&help));
    }
    match all.sources().get(item.place.file) {
        Some(file) => Report::from(diagnostic).with_source_code(
            NamedSource::new(plain_lines(file.path()), plain_in_place(file.text())).with_language("TOML"),
        ),
        None => Report::from(diagnostic),
    }
}
