//! The lines of the view: the same model and size give the same lines.

use super::model::{Journal, Model, Subject, TROUBLES_TOLD, Usage};
use crate::run::plain;
use logd::Entry;
use nexus_audit::Judgement;
use nexus_wire::vfs::AreaUsage;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

const KEYS: &str = "q quit  j/k move  ^Z stop";

/// How the view is drawn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint {
    /// Whether colours are wanted.
    pub(super) colour: bool,
}

impl Paint {
    fn of(self, colour: Color) -> Style {
        if self.colour {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }
}

const HEAD: Style = Style::new().add_modifier(Modifier::BOLD);

/// Exactly `height` lines of `width` columns at most.
pub(super) fn lines(model: &Model, width: u16, height: u16, paint: Paint) -> Vec<Line<'static>> {
    let (width, height) = (usize::from(width), usize::from(height));
    let running: usize = model.subjects.values().map(|subject| subject.sessions).sum();
    let doubt = match model.in_doubt {
        0 => String::new(),
        some => format!(" and {some} in doubt"),
    };
    let title = if model.sessions_unknown {
        format!("nx sec top  unknown who runs   {KEYS}")
    } else {
        let subjects = count(model.subjects.len(), "subject");
        format!("nx sec top  {}{doubt}, {subjects}   {KEYS}", count(running, "session"))
    };
    let mut out = vec![Line::styled(title, HEAD)];
    for trouble in model.troubles.iter().take(TROUBLES_TOLD) {
        out.push(Line::styled(plain(trouble), paint.of(Color::Red)));
    }
    if let Some(more) = model.troubles.len().checked_sub(TROUBLES_TOLD).filter(|more| *more > 0) {
        let more = format!("and {more} more that cannot be told here; `nx sec ps` does");
        out.push(Line::styled(more, paint.of(Color::Red)));
    }
    // Both lists get a half of what is left; what one does not need is the other's.
    let left = height.saturating_sub(out.len()).saturating_sub(2);
    let wanted = model.subjects.len();
    let for_subjects = wanted.min((left / 2).max(left.saturating_sub(model.records.len())));
    let columns = Columns::of(width);
    out.push(Line::styled(columns.head(), HEAD));
    // Never past the end: the last page stays full.
    let from = model.scroll.min(wanted.saturating_sub(for_subjects));
    for (name, subject) in model.in_order().skip(from).take(for_subjects) {
        out.push(columns.row(name, subject, model.sessions_of(subject), paint));
    }
    let shown = height.saturating_sub(out.len()).saturating_sub(1);
    let (heading, style) = match &model.journal {
        Journal::Reading => ("DENIES (reading the journal …)".to_owned(), HEAD),
        Journal::Absent | Journal::Read if model.records.is_empty() => ("DENIES: none yet".to_owned(), HEAD),
        Journal::Absent | Journal::Read => ("DENIES, the last one at the end".to_owned(), HEAD),
        Journal::Partly(why) => (
            format!("DENIES, not all: {}", plain(why)),
            HEAD.patch(paint.of(Color::Red)),
        ),
        Journal::Unknown(why) => (
            format!("DENIES: unknown: {}", plain(why)),
            HEAD.patch(paint.of(Color::Red)),
        ),
    };
    out.push(Line::styled(heading, style));
    let skip = model.records.len().saturating_sub(shown);
    out.extend(model.records.iter().skip(skip).map(|entry| record(entry, paint)));
    out.resize(height, Line::default());
    out
}

/// What of a subject has room.
struct Columns {
    name: usize,
    bar: usize,
    /// Whether the used bytes and the limit stand beside the bar.
    sizes: bool,
    /// Whether denies are told apart by what refused.
    kinds: bool,
}

impl Columns {
    /// 80 columns hold a name of 14, two bars of 10 with their shares, and all counts; less leaves out what says least.
    const fn of(width: usize) -> Self {
        match width {
            0..50 => Self {
                name: 12,
                bar: 0,
                sizes: false,
                kinds: false,
            },
            50..80 => Self {
                name: 12,
                bar: 4,
                sizes: false,
                kinds: false,
            },
            80..120 => Self {
                name: 14,
                bar: 10,
                sizes: false,
                kinds: true,
            },
            _ => Self {
                name: 24,
                bar: 16,
                sizes: true,
                kinds: true,
            },
        }
    }

    const fn area(&self) -> usize {
        let sizes = if self.sizes { 20 } else { 0 };
        let bar = if self.bar > 0 { self.bar + 3 } else { 0 };
        5 + bar + sizes
    }

    fn head(&self) -> String {
        let (name, area) = (self.name, self.area());
        let denies = if self.kinds {
            "  QUOTA  EGRESS     ABI"
        } else {
            "DENIES"
        };
        format!(
            "{:name$} {:>3} {:area$} {:area$} {denies}",
            "SUBJECT", "RUN", "TMP", "STATE"
        )
    }

    fn row(&self, name: &str, subject: &Subject, sessions: Option<usize>, paint: Paint) -> Line<'static> {
        let (width, area) = (self.name, self.area());
        let sessions = sessions.map_or_else(|| "?".to_owned(), |sessions| sessions.to_string());
        let mut spans = vec![Span::raw(format!("{:width$} {sessions:>3} ", cut(&plain(name), width)))];
        match (&subject.usage, subject.wrong) {
            (_, Some(wrong)) => spans.push(Span::styled(
                format!("{:both$} ", cut(wrong, area * 2 + 1), both = area * 2 + 1),
                paint.of(Color::Red),
            )),
            (Some(Usage::Known(usage)), None) => {
                spans.push(self.bar(&usage.tmp, paint));
                spans.push(self.bar(&usage.state, paint));
            }
            (Some(Usage::Unknown(why)), None) => {
                let text = format!("unsupported: {}", plain(why));
                spans.push(Span::raw(format!(
                    "{:both$} ",
                    cut(&text, area * 2 + 1),
                    both = area * 2 + 1
                )));
            }
            (None, None) => spans.push(Span::raw(format!("{:area$} {:area$} ", "-", "-"))),
        }
        spans.push(Span::raw(match (subject.denies, self.kinds) {
            (Some([quota, egress, abi]), true) => format!("{quota:>7} {egress:>7} {abi:>7}"),
            (Some([quota, egress, abi]), false) => format!("{:>6}", quota.saturating_add(egress).saturating_add(abi)),
            // Never a zero where nobody counted.
            (None, true) => format!("{:>7} {:>7} {:>7}", "?", "?", "?"),
            (None, false) => format!("{:>6}", "?"),
        }));
        Line::from(spans)
    }

    /// How much of a budget is used: the share is rounded down, so that 100% is the limit itself.
    fn bar(&self, usage: &AreaUsage, paint: Paint) -> Span<'static> {
        let share = |of: u64| -> u64 {
            let (used, hard) = (u128::from(usage.used_bytes), u128::from(usage.budget.hard_bytes));
            let part = used.saturating_mul(u128::from(of)).checked_div(hard);
            // Without a byte allowed, what is used is all there is.
            u64::try_from(part.unwrap_or(u128::from(of))).unwrap_or(of).min(of)
        };
        let percent = share(100);
        let mut text = String::new();
        if self.bar > 0 {
            let full = usize::try_from(share(self.bar as u64)).unwrap_or(0);
            text.push('[');
            text.extend(std::iter::repeat_n('#', full));
            text.extend(std::iter::repeat_n('.', self.bar.saturating_sub(full)));
            text.push_str("] ");
        }
        text.push_str(&format!("{percent:>3}% "));
        if self.sizes {
            let sizes = format!("{} of {}", bytes(usage.used_bytes), bytes(usage.budget.hard_bytes));
            text.push_str(&format!("{:<19} ", cut(&sizes, 19)));
        }
        let style = match percent {
            100 => paint.of(Color::Red),
            _ if usage.budget.soft_bytes.is_some_and(|soft| usage.used_bytes >= soft) => paint.of(Color::Yellow),
            _ => paint.of(Color::Green),
        };
        Span::styled(format!("{:1$} ", text.trim_end(), self.area()), style)
    }
}

fn record(entry: &Entry, paint: Paint) -> Line<'static> {
    let record = &entry.record;
    let time = record.time.to_string();
    let clock = time.get(11..19).unwrap_or("").to_owned();
    let style = match record.verdict {
        Judgement::Deny(_) => paint.of(Color::Red),
        Judgement::Warn => paint.of(Color::Yellow),
        Judgement::Note => Style::new(),
    };
    let held = if record.suppressed > 0 {
        format!(" +{}", record.suppressed)
    } else {
        String::new()
    };
    Line::from(vec![
        Span::raw(format!("{clock} {:<12} ", cut(&plain(&record.subject), 12))),
        Span::styled(format!("{:<22} ", record.reason.as_str()), style),
        Span::raw(format!("{} {}{held}", record.op, plain(&record.object))),
    ])
}

fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut out: String = text.chars().take(width.saturating_sub(1)).collect();
    out.push('~');
    out
}

/// Cut and never rounded up, so that no limit looks reached that was not.
fn bytes(count: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    for (unit, name) in UNITS {
        if let Some(whole) = count.checked_div(unit).filter(|whole| *whole > 0) {
            return format!("{whole} {name}");
        }
    }
    format!("{count} B")
}
