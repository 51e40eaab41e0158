//! Counters shared by processes that are killed at any moment, and files that are not ours.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests; the lint knows only functions that are tests themselves"
)]

use nexus_sys::counters::{
    COUNTER_NAME_BYTES_MAX, COUNTER_SLOTS_MAX, COUNTERS_PER_SLOT, CounterReader, CountersError, SharedCounters,
};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Set in a child that this test starts from its own binary: the counter file to step.
const FILE: &str = "NEXUS_TEST_COUNTER_FILE";

/// A writer process, killed and waited for also where a test panics.
struct Writer(Child);

impl Writer {
    fn start(file: &Path, subject: &str, steps: u64) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_steps", "--ignored", "--nocapture"])
            .env(FILE, file)
            .env("NEXUS_TEST_SUBJECT", subject)
            .env("NEXUS_TEST_STEPS", steps.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Not a test of its own: what a child does. Steps once for each line it said, before it says it.
#[test]
#[ignore = "run by other tests as a process of its own"]
fn child_that_steps() {
    let Some(file) = std::env::var_os(FILE) else { return };
    let counters = SharedCounters::open(Path::new(&file)).unwrap();
    let slot = counters.slot(&std::env::var("NEXUS_TEST_SUBJECT").unwrap()).unwrap();
    let steps: u64 = std::env::var("NEXUS_TEST_STEPS").unwrap().parse().unwrap();
    let mut out = std::io::stdout().lock();
    for step in 1..=steps {
        slot.add(0, 1);
        slot.add(1, 2);
        writeln!(out, "\nstep {step}").unwrap();
    }
    out.flush().unwrap();
    // Stays until it is killed or its input ends.
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest).unwrap();
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("counters");
    (dir, file)
}

#[test]
fn what_is_added_is_read_by_another_opener_and_after_everybody_closed() {
    let (_dir, file) = place();
    let counters = SharedCounters::open(&file).unwrap();
    let slot = counters.slot("demo").unwrap();
    slot.add(0, 3);
    slot.add(COUNTERS_PER_SLOT - 1, u64::from(u32::MAX));
    slot.add(COUNTERS_PER_SLOT, 1);
    let other = SharedCounters::open(&file).unwrap();
    other.slot("demo").unwrap().add(0, 4);
    assert_eq!((slot.get(0), slot.get(COUNTERS_PER_SLOT)), (7, 0));
    other.slot("another").unwrap().add(1, 1);
    counters.sync().unwrap();
    drop((counters, slot, other));
    let all = SharedCounters::open(&file).unwrap().read_all().unwrap();
    assert_eq!(all[0], ("another".to_owned(), [0, 1, 0, 0, 0, 0, 0, 0]));
    assert_eq!(all[1], ("demo".to_owned(), [7, 0, 0, 0, 0, 0, 0, u64::from(u32::MAX)]));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
}

#[test]
fn writers_killed_in_the_middle_leave_every_step_that_they_told_of() {
    let (_dir, file) = place();
    let mut told = 0;
    let mut rounds = 0;
    for round in 0..12_u64 {
        let mut writers: Vec<Writer> = (0..3).map(|_| Writer::start(&file, "demo", 1_000_000)).collect();
        for (index, writer) in writers.iter_mut().enumerate() {
            // Stays open until the writer is dead: nothing but the signal ends it.
            let mut out = BufReader::new(writer.0.stdout.take().unwrap()).lines();
            // Reads some steps, then kills: what was said has been counted, at most the pipe's content more.
            let wanted = 10 + (round * 7919 + index as u64 * 104_729) % 500;
            let mut last = 0;
            for line in out.by_ref().map(Result::unwrap) {
                if let Some(step) = line.strip_prefix("step ") {
                    last = step.parse().unwrap();
                    if last >= wanted {
                        break;
                    }
                }
            }
            writer.0.kill().unwrap();
            writer.0.wait().unwrap();
            told += last;
        }
        rounds += 1;
        let row = SharedCounters::open(&file).unwrap().read_all().unwrap()[0].1;
        assert!(row[0] >= told, "{} < {told} after {rounds} rounds", row[0]);
        let killed_between = 3 * rounds;
        assert!(
            row[1] <= row[0] * 2 && row[1] + 2 * killed_between >= row[0] * 2,
            "{row:?}"
        );
    }
}

#[test]
fn several_processes_at_once_count_exactly() {
    let (_dir, file) = place();
    let mut writers: Vec<Writer> = (0..6)
        .map(|index| Writer::start(&file, if index % 2 == 0 { "even" } else { "odd" }, 5_000))
        .collect();
    for writer in &mut writers {
        let mut out = BufReader::new(writer.0.stdout.take().unwrap())
            .lines()
            .map(Result::unwrap);
        assert!(out.any(|line| line == "step 5000"));
        writer.0.kill().unwrap();
    }
    drop(writers);
    let all = SharedCounters::open(&file).unwrap().read_all().unwrap();
    let expected = |name: &str| (name.to_owned(), [15_000, 30_000, 0, 0, 0, 0, 0, 0]);
    assert_eq!(all, [expected("even"), expected("odd")]);
}

#[test]
fn threads_of_one_process_get_one_slot_a_name() {
    let (_dir, file) = place();
    let counters = SharedCounters::open(&file).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for n in 0..50 {
                    counters.slot(&format!("s{n}")).unwrap().add(0, 1);
                }
            });
        }
    });
    let all = counters.read_all().unwrap();
    assert_eq!(all.len(), 50);
    assert!(all.iter().all(|(_, row)| row[0] == 8));
}

#[test]
fn names_at_the_bound_are_taken_and_longer_or_empty_ones_are_not() {
    let (_dir, file) = place();
    let counters = SharedCounters::open(&file).unwrap();
    let longest = "é".repeat(COUNTER_NAME_BYTES_MAX / 2);
    counters.slot(&longest).unwrap().add(0, 1);
    assert_eq!(counters.read_all().unwrap()[0].0, longest);
    assert!(matches!(
        counters.slot(&format!("{longest}x")),
        Err(CountersError::Name(65))
    ));
    assert!(matches!(counters.slot(""), Err(CountersError::Name(0))));
}

#[test]
fn a_cut_a_longer_a_foreign_and_a_newer_file_are_refused() {
    let (_dir, file) = place();
    drop(SharedCounters::open(&file).unwrap());
    let whole = fs::read(&file).unwrap();
    let refused = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        SharedCounters::open(&file).expect_err("accepted")
    };
    assert!(matches!(refused(&whole[..whole.len() - 1]), CountersError::Size { .. }));
    assert!(matches!(refused(&whole[..8]), CountersError::Size { found: 8 }));
    let mut longer = whole.clone();
    longer.push(0);
    assert!(matches!(refused(&longer), CountersError::Size { .. }));
    assert!(matches!(refused(&vec![0; whole.len() + 1]), CountersError::Header));
    assert!(matches!(refused(b"something else entirely"), CountersError::Header));
    assert!(matches!(refused(b"some"), CountersError::Header));
    let mut newer = whole.clone();
    newer[..8].copy_from_slice(&u64::from_be_bytes(*b"nxcount\x02").to_ne_bytes());
    assert!(matches!(refused(&newer), CountersError::Header));
    fs::write(&file, &whole).unwrap();
    assert!(SharedCounters::open(&file).is_ok());
}

#[test]
fn a_file_that_was_cut_while_open_is_found_before_it_is_read() {
    let (_dir, file) = place();
    let counters = SharedCounters::open(&file).unwrap();
    fs::OpenOptions::new()
        .write(true)
        .open(&file)
        .unwrap()
        .set_len(4096)
        .unwrap();
    assert!(matches!(counters.read_all(), Err(CountersError::Size { found: 4096 })));
    assert!(matches!(
        counters.slot("demo"),
        Err(CountersError::Size { found: 4096 })
    ));
}

#[test]
fn a_file_whose_maker_was_killed_is_made_whole() {
    let (_dir, file) = place();
    for bytes in [0, 1, 7, 8, 4096, 1 << 20] {
        fs::write(&file, vec![0; bytes]).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        SharedCounters::open(&file).unwrap().slot("demo").unwrap().add(0, 1);
        assert_eq!(SharedCounters::open(&file).unwrap().read_all().unwrap()[0].1[0], 1);
        fs::remove_file(&file).unwrap();
    }
}

#[test]
fn a_slot_that_holds_no_name_is_an_error_and_not_a_crash() {
    let (_dir, file) = place();
    SharedCounters::open(&file).unwrap().slot("demo").unwrap().add(0, 1);
    let whole = fs::read(&file).unwrap();
    for (at, bytes) in [
        (4096, 65_u64.to_ne_bytes()),
        (4096, u64::MAX.to_ne_bytes()),
        (4104, [0xff; 8]),
    ] {
        let mut wrong = whole.clone();
        wrong[at..at + 8].copy_from_slice(&bytes);
        fs::write(&file, wrong).unwrap();
        let counters = SharedCounters::open(&file).unwrap();
        assert!(matches!(counters.read_all(), Err(CountersError::Slot(0))));
        assert!(matches!(counters.slot("demo"), Err(CountersError::Slot(0))));
    }
}

#[test]
fn a_link_a_directory_and_a_file_open_to_others_are_refused() {
    let (dir, file) = place();
    drop(SharedCounters::open(&file).unwrap());
    let link = dir.path().join("link");
    symlink(&file, &link).unwrap();
    assert!(matches!(SharedCounters::open(&link), Err(CountersError::Io { .. })));
    assert!(matches!(
        SharedCounters::open(dir.path()),
        Err(CountersError::Io { .. })
    ));
    let second = dir.path().join("second");
    fs::hard_link(&file, &second).unwrap();
    assert!(matches!(
        SharedCounters::open(&file),
        Err(CountersError::NotOurs("known under a second name"))
    ));
    fs::remove_file(&second).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(
        SharedCounters::open(&file),
        Err(CountersError::NotOurs("open to other users"))
    ));
    let open = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o666)
        .open(dir.path().join("open"));
    open.unwrap()
        .set_permissions(fs::Permissions::from_mode(0o666))
        .unwrap();
    assert!(SharedCounters::open(&dir.path().join("open")).is_err());
}

#[test]
fn as_many_names_as_the_bound_are_taken_and_one_more_is_not() {
    let (_dir, file) = place();
    let counters = SharedCounters::open(&file).unwrap();
    counters.slot("first").unwrap().add(0, 1);
    drop(counters);
    // Filled by hand: taking each by name would look at all of those before it.
    let mut bytes = fs::read(&file).unwrap();
    for slot in 1..COUNTER_SLOTS_MAX - 1 {
        let at = 4096 + slot * 192;
        let name = format!("s{slot}");
        bytes[at..at + 8].copy_from_slice(&(name.len() as u64).to_ne_bytes());
        bytes[at + 8..at + 8 + name.len()].copy_from_slice(name.as_bytes());
    }
    fs::write(&file, bytes).unwrap();
    let counters = SharedCounters::open(&file).unwrap();
    counters.slot("last").unwrap().add(0, 1);
    assert!(matches!(counters.slot("one more"), Err(CountersError::Full)));
    assert_eq!(counters.read_all().unwrap().len(), COUNTER_SLOTS_MAX);
}

#[test]
fn a_reader_sees_every_step_makes_nothing_and_waits_for_no_lock() {
    let (_dir, path) = place();
    assert!(CounterReader::open(&path).unwrap().is_none());
    assert!(!path.exists(), "a reader makes nothing");
    let counters = SharedCounters::open(&path).unwrap();
    let reader = CounterReader::open(&path).unwrap().unwrap();
    assert!(reader.read_all().unwrap().is_empty());
    let slot = counters.slot("b").unwrap();
    counters.slot("a").unwrap().add(1, 5);
    slot.add(0, 2);
    let lock = std::fs::File::open(&path).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert_eq!(reader.read_all().unwrap(), counters.read_all().unwrap());
    assert_eq!(
        CounterReader::open(&path).unwrap().unwrap().read_all().unwrap()[1].1[0],
        2
    );
}

#[test]
fn a_reader_refuses_what_a_writer_does_and_has_nothing_of_a_file_that_is_being_made() {
    use std::os::unix::fs::PermissionsExt;
    let (_dir, path) = place();
    let set = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    set(&[0; 100]);
    assert!(CounterReader::open(&path).unwrap().is_none());
    set(b"hello, world");
    assert!(matches!(CounterReader::open(&path), Err(CountersError::Header)));
    std::fs::remove_file(&path).unwrap();
    drop(SharedCounters::open(&path).unwrap());
    let reader = CounterReader::open(&path).unwrap().unwrap();
    std::fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(4096)
        .unwrap();
    assert!(matches!(reader.read_all(), Err(CountersError::Size { found: 4096 })));
    assert!(matches!(
        CounterReader::open(&path),
        Err(CountersError::Size { found: 4096 })
    ));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(CounterReader::open(&path), Err(CountersError::NotOurs(_))));
}
