//! Supervisors that say nothing, half of it, or something else: told, in bounded time, and never passed over.

use nexus_wire::Bounded;
use nexus_wire::packet::PacketSocket;
use nexus_wire::session::{ANSWER_BYTES_MAX, Answer, Question};
use nx::registry::{ANSWER_WAIT, AskError, Entry, ask_all, publish};
use nx_sec_host::facts;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a peer does once it was asked.
type Reply = dyn Fn(&PacketSocket) + Send + Sync;

/// A session whose supervisor, this process, takes whoever comes, hears what is asked and does this. It holds every connection
/// open that it is not told to close.
fn peer(runtime: &Path, session: &str, closes: bool, reply: Arc<Reply>) -> Entry {
    let (entry, listener) = publish(runtime, &facts(session, "s")).unwrap();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        while let Ok(socket) = rustix::net::accept(&listener) {
            let socket = PacketSocket::from(socket);
            // Who only looks closes without a question.
            if socket.receive().is_ok_and(|packet| !packet.bytes().is_empty()) {
                reply(&socket);
            }
            if !closes {
                held.push(socket);
            }
        }
    });
    entry
}

/// An anonymous file that holds this.
fn file(text: &[u8]) -> OwnedFd {
    let mut file = std::fs::File::from(rustix::fs::memfd_create("answer", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
    file.write_all(text).unwrap();
    file.into()
}

fn says(bytes: u64, text: &'static [u8]) -> Arc<Reply> {
    Arc::new(move |socket| {
        let file = file(text);
        let _ = socket.send(&Answer::File { bytes }.encode(), &[file.as_fd()]);
    })
}

/// Each peer that does not answer as it should, and what is said of it.
fn peers() -> Vec<(&'static str, bool, Arc<Reply>, &'static str)> {
    let packet = |bytes: Vec<u8>| -> Arc<Reply> {
        Arc::new(move |socket| {
            let _ = socket.send(&bytes, &[]);
        })
    };
    let mut half = Answer::File { bytes: 2 }.encode();
    half.truncate(half.len() - 3);
    let mut long = Answer::File {
        bytes: ANSWER_BYTES_MAX,
    }
    .encode();
    let end = long.len() - 8;
    long[end..].copy_from_slice(&(ANSWER_BYTES_MAX + 1).to_le_bytes());
    let pipe: Arc<Reply> = Arc::new(|socket| {
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        let _ = socket.send(&Answer::File { bytes: 2 }.encode(), &[reader.as_fd()]);
    });
    vec![
        (
            "accepts and never answers",
            false,
            Arc::new(|_: &PacketSocket| {}) as Arc<Reply>,
            "does not answer within 2 s",
        ),
        (
            "closes without an answer",
            true,
            Arc::new(|_: &PacketSocket| {}),
            "closed without an answer, and runs on",
        ),
        (
            "half a message",
            false,
            packet(half),
            "answers what this nx does not read",
        ),
        (
            "no message at all",
            false,
            packet(b"\xff\xff\xff\xff".to_vec()),
            "answers what this nx does not read",
        ),
        (
            "a file that is not there",
            false,
            packet(Answer::File { bytes: 2 }.encode()),
            "no file came along",
        ),
        (
            "more than there may be",
            false,
            packet(long),
            "answers what this nx does not read",
        ),
        (
            "half a file",
            false,
            says(400, b"{\"subject\":"),
            "shorter than it says",
        ),
        (
            "half an object",
            false,
            says(11, b"{\"subject\":"),
            "answers what this nx does not read",
        ),
        ("a pipe for a file", false, pipe, "cannot be reached"),
        (
            "a refusal",
            false,
            packet(
                Answer::None {
                    why: Bounded::cut(b"out of order"),
                }
                .encode(),
            ),
            "says: out of order",
        ),
    ]
}

#[test]
fn one_that_accepts_and_never_answers_is_waited_for_two_seconds_and_costs_the_others_nothing() {
    let place = tempfile::tempdir().unwrap();
    let _silent: Vec<Entry> = (0..8)
        .map(|number| peer(place.path(), &format!("silent{number}"), false, Arc::new(|_| {})))
        .collect();
    let answer = says(2, b"{}");
    let _speaks = peer(place.path(), "speaks", false, answer);
    let mut all: Vec<_> = (0..8).map(|number| facts(&format!("silent{number}"), "s")).collect();
    all.push(facts("speaks", "s"));
    let began = Instant::now();
    let answers = ask_all(place.path(), all.iter(), Question::Policy);
    let took = began.elapsed();
    for silent in &answers[..8] {
        assert!(matches!(silent, Err(AskError::Hung)), "{silent:?}");
    }
    assert_eq!(answers[8].as_ref().unwrap(), &serde_json::json!({}));
    // One after the other they would be waited for eight times as long.
    assert!(took >= ANSWER_WAIT && took < Duration::from_secs(15), "{took:?}");
}

#[test]
fn whatever_a_peer_says_instead_is_told_with_the_session_and_never_passed_over() {
    // It may have to be built first.
    let nx = security_v2_host::nx();
    for (what, closes, reply, expected) in peers() {
        let state = tempfile::tempdir().unwrap();
        let runtime = state.path().join("nexus/run");
        let _other = peer(&runtime, "speaks", false, says(2, b"{}"));
        let _peer = peer(&runtime, "aaaaaa", closes, reply);
        let commands: [&[&str]; 5] = [
            &["syscalls"],
            &["sandbox"],
            &["quotas"],
            &["egress"],
            &["policy", "show"],
        ];
        // Side by side: each waits for itself.
        std::thread::scope(|scope| {
            for command in commands {
                let (state, session) = (
                    state.path(),
                    if command == ["policy", "show"] {
                        ""
                    } else {
                        "session      "
                    },
                );
                scope.spawn(move || {
                    let began = Instant::now();
                    let done = Command::new(nx)
                        .arg("sec")
                        .args(command)
                        .args(["--subject", "s"])
                        .env("XDG_STATE_HOME", state)
                        .output()
                        .unwrap();
                    let said = String::from_utf8_lossy(&done.stdout);
                    assert_eq!(done.status.code(), Some(4), "{what}, {command:?}: {said}");
                    assert!(said.contains(expected), "{what}, {command:?}: {said}");
                    assert!(
                        said.contains(&format!("{session}aaaaaa")),
                        "{what}, {command:?}: {said}"
                    );
                    // One that answers is shown beside it.
                    assert!(
                        said.contains(&format!("{session}speaks")),
                        "{what}, {command:?}: {said}"
                    );
                    // Two seconds for the peer; the rest is for a machine that does ten things besides.
                    assert!(
                        began.elapsed() < Duration::from_secs(30),
                        "{what}, {command:?}: {:?}",
                        began.elapsed()
                    );
                });
            }
        });
    }
}

#[test]
fn an_entry_in_doubt_is_told_by_every_command_that_speaks_of_who_runs() {
    let state = tempfile::tempdir().unwrap();
    let runtime = state.path().join("nexus/run");
    let _peer = peer(&runtime, "aaaaaa", false, says(2, b"{}"));
    let nx = |words: &[&str]| {
        let done = Command::new(security_v2_host::nx())
            .arg("sec")
            .args(words)
            .env("XDG_STATE_HOME", state.path())
            .output()
            .unwrap();
        (done.status.code(), String::from_utf8_lossy(&done.stdout).into_owned())
    };
    // Nobody changed it yet.
    assert!(!nx(&["ps"]).1.contains("session aaaaaa:"));
    std::fs::write(runtime.join("sessions/aaaaaa.json"), "{}").unwrap();
    for words in [
        &["ps"][..],
        &["policy", "show"],
        &["policy", "show", "--subject", "demo"],
    ] {
        let (code, said) = nx(words);
        assert_eq!(code, Some(4), "{words:?}: {said}");
        assert!(said.contains("session aaaaaa: "), "{words:?}: {said}");
        assert!(said.contains("runs that can be vouched for"), "{words:?}: {said}");
    }
    // Nor does a subject that the tree lacks say that nobody runs as it: the session may be under another tree.
    for command in [
        &["policy", "show"][..],
        &["syscalls"],
        &["sandbox"],
        &["quotas"],
        &["egress"],
    ] {
        let words = [command, &["--subject", "nobody", "--json"]].concat();
        let (code, said) = nx(&words);
        let value: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!((code, &value["exit"]), (Some(4), &4.into()), "{words:?}: {said}");
        let message = value["message"].as_str().unwrap();
        for part in ["declares no subject `nobody`", "is not known: session aaaaaa: "] {
            assert!(message.contains(part), "{words:?}: {said}");
        }
    }
    let (code, said) = nx(&["policy", "show", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &value["ok"]), (Some(4), &false.into()), "{said}");
    assert_eq!(value["troubles"][0]["session"], "aaaaaa", "{said}");
}
