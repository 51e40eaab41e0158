use super::draw::{Paint, lines};
use super::model::{Journal, Model, RECORDS_KEPT, Subject, Usage};
use logd::Entry;
use nexus_abi::{Errno, Operation, Reason};
use nexus_audit::{Judgement, Mac, Record, UnixMillis};
use nexus_quota::Budget;
use nexus_wire::vfs::AreaUsage;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::widgets::Paragraph;
use std::sync::Arc;
use vfsd::VfsdUsage;

fn entry(seq: u64, subject: &str, object: &str) -> Entry {
    Entry {
        seq,
        record: Record {
            mono_ns: 1,
            time: UnixMillis::new(1_795_301_991_000),
            subject: Arc::from(subject),
            session: Arc::from("0123456789ab"),
            op: Operation::Connect,
            object: Arc::from(object),
            verdict: Judgement::Deny(Errno::EPERM),
            reason: Reason::EgressNoRule,
            rule: None,
            at: None,
            policy: Arc::from("ab"),
            suppressed: 0,
        },
        mac: Mac::genesis(),
        file: Arc::from("journal.jsonl"),
        line: seq,
    }
}

fn area(used_bytes: u64, hard_bytes: u64) -> AreaUsage {
    AreaUsage {
        used_bytes,
        used_inodes: 1,
        budget: Budget {
            soft_bytes: Some(hard_bytes / 2),
            hard_bytes,
            hard_inodes: 10,
        },
    }
}

fn model(subjects: usize, records: u64) -> Model {
    let mut model = Model {
        journal: Journal::Read,
        ..Model::default()
    };
    for n in 0..subjects {
        let usage = Usage::Known(VfsdUsage {
            tmp: area(n as u64 * 4096, 16 * 4096),
            state: area(4095, 4096),
            work: None,
        });
        let subject = Subject {
            sessions: n % 3,
            wrong: None,
            usage: Some(usage),
            denies: Some([1, 2, n as u64]),
        };
        model.subjects.insert(format!("s\u{1b}[{n:05}"), subject);
    }
    for seq in 1..=records {
        model.record(entry(seq, "demo", &format!("tcp \u{202e}\n192.0.2.1:{seq}")));
    }
    model
}

fn drawn(model: &Model, width: u16, height: u16) -> Vec<String> {
    lines(model, width, height, Paint { colour: false })
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn every_size_is_drawn_and_none_writes_past_its_edge() {
    let models = [model(0, 0), model(1, 1), model(40, 600)];
    for model in &models {
        for (width, height) in (0..130)
            .step_by(7)
            .flat_map(|width| (0..40).map(move |height| (width, height)))
        {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            terminal
                .draw(|frame| {
                    let lines = lines(model, frame.area().width, frame.area().height, Paint { colour: true });
                    assert_eq!(lines.len(), usize::from(height));
                    frame.render_widget(Paragraph::new(lines), frame.area());
                })
                .unwrap();
        }
    }
}

#[test]
fn the_usual_size_holds_every_column_and_both_lists() {
    let shown = drawn(&model(3, 2), 80, 24);
    assert!(
        shown
            .iter()
            .all(|line| line.chars().count() <= 80 || line.starts_with("22:59:51")),
        "{shown:#?}"
    );
    assert!(shown[0].starts_with("nx sec top  3 sessions, 3 subjects"), "{shown:#?}");
    assert_eq!(
        shown[1],
        "SUBJECT        RUN TMP                STATE                QUOTA  EGRESS     ABI"
    );
    // Those that run come first, each by its name; a full budget is one that is full.
    assert_eq!(
        shown[2],
        "s\\u{1b}[00001    1 [..........]   6%  [#########.]  99%        1       2       1"
    );
    assert!(
        shown[3].starts_with("s\\u{1b}[00002    2 [#.........]  12%"),
        "{shown:#?}"
    );
    assert!(shown[4].starts_with("s\\u{1b}[00000    0 "), "{shown:#?}");
    assert_eq!(shown[5], "DENIES, the last one at the end");
    assert_eq!(
        shown[7],
        "22:59:51 demo         egress.no_rule         connect tcp \\u{202e}\\n192.0.2.1:2"
    );
}

#[test]
fn a_budget_is_full_at_its_limit_and_not_a_byte_before() {
    let mut one = model(2, 0);
    let full = |used| {
        Usage::Known(VfsdUsage {
            tmp: area(used, 40_960),
            state: area(0, 0),
            work: None,
        })
    };
    let mut bar = |used| {
        one.subjects
            .iter_mut()
            .for_each(|(_, subject)| subject.usage = Some(full(used)));
        drawn(&one, 80, 24)[2].clone()
    };
    assert!(bar(40_960).contains("[##########] 100%"), "{}", bar(40_960));
    assert!(bar(40_959).contains("[#########.]  99%"), "{}", bar(40_959));
    assert!(bar(0).contains("[..........]   0%"), "{}", bar(0));
}

#[test]
fn what_is_not_known_is_said_and_never_drawn_as_a_bar() {
    let mut one = model(2, 0);
    let name = one.subjects.keys().nth(1).unwrap().clone();
    one.subjects.get_mut(&name).unwrap().usage = Some(Usage::Unknown("it is stopped".to_owned()));
    assert!(drawn(&one, 80, 24)[2].contains("unsupported: it is stopped"));
    one.subjects.get_mut(&name).unwrap().wrong = Some("unfiltered");
    let shown = drawn(&one, 80, 24)[2].clone();
    assert!(shown.contains("unfiltered") && !shown.contains('#'), "{shown}");
    one.subjects.get_mut(&name).unwrap().wrong = None;
    one.subjects.get_mut(&name).unwrap().usage = None;
    assert!(!drawn(&one, 80, 24)[2].contains('#'));
}

#[test]
fn ten_thousand_subjects_scroll_to_the_last_one_and_not_past_it() {
    let mut many = model(10_000, 0);
    many.scroll_by(1_000_000);
    let shown = drawn(&many, 80, 24);
    assert!(
        shown.iter().any(|line| line.starts_with("s\\u{1b}[09999")),
        "{shown:#?}"
    );
    assert!(
        shown.iter().filter(|line| line.starts_with("s\\u{1b}")).count() > 15,
        "the last page is full"
    );
    many.scroll_by(-2_000_000);
    assert!(drawn(&many, 80, 24)[2].starts_with("s\\u{1b}[00001"));
}

#[test]
fn no_more_records_are_kept_than_any_screen_shows() {
    assert_eq!(model(0, 5000).records.len(), RECORDS_KEPT);
}

#[test]
fn what_was_not_counted_is_a_question_mark_and_never_a_zero() {
    let mut one = model(2, 0);
    assert!(!one.is_partial());
    let name = one.subjects.keys().nth(1).unwrap().clone();
    one.subjects.get_mut(&name).unwrap().denies = None;
    for width in [20, 60, 80, 120] {
        let shown = drawn(&one, width, 24)[2].clone();
        assert!(shown.ends_with('?') && !shown.contains(" 0"), "{shown}");
    }
    assert!(one.is_partial());
    one.sessions_unknown = true;
    let shown = drawn(&one, 80, 24);
    assert!(
        shown[0].starts_with("nx sec top  unknown who runs") && shown[2].contains("    ? ["),
        "{shown:#?}"
    );
}

#[test]
fn none_is_said_to_run_only_where_no_entry_is_in_doubt() {
    let mut one = model(2, 0);
    let shows = |one: &Model, row: &str| drawn(one, 80, 24).iter().any(|line| line.starts_with(row));
    assert!(shows(&one, "s\\u{1b}[00001    1 [") && shows(&one, "s\\u{1b}[00000    0 ["));
    one.in_doubt = 1;
    assert!(shows(&one, "s\\u{1b}[00001    1 [") && shows(&one, "s\\u{1b}[00000    ? ["));
}

#[test]
fn none_yet_is_said_of_a_journal_that_was_read_and_of_no_other() {
    let heading = |journal: Journal| {
        let mut one = model(0, 0);
        one.journal = journal;
        let partial = one.is_partial();
        (drawn(&one, 80, 24)[2].clone(), partial)
    };
    for journal in [Journal::Absent, Journal::Read] {
        assert_eq!(heading(journal), ("DENIES: none yet".to_owned(), false));
    }
    assert_eq!(heading(Journal::Reading).0, "DENIES (reading the journal …)");
    assert_eq!(
        heading(Journal::Unknown("it\nis gone".to_owned())),
        ("DENIES: unknown: it\\nis gone".to_owned(), true)
    );
    assert_eq!(
        heading(Journal::Partly("a gap".to_owned())),
        ("DENIES, not all: a gap".to_owned(), true)
    );
}
