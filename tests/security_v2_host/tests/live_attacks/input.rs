//! What the caller hands in as descriptors.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;

use security_v2_host::{Tree, closed_port, spawn, users, users_with};

use crate::kit::{Answers, Attack, Catcher};

/// Runs with this stdin and returns stdout, stderr and the status.
fn with_stdin(mut command: std::process::Command, stdin: impl Into<Stdio>) -> (String, String, Option<i32>) {
    let child = spawn(command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped())).unwrap();
    let done = child.wait_with_output().unwrap();
    (
        String::from_utf8_lossy(&done.stdout).into_owned(),
        String::from_utf8_lossy(&done.stderr).into_owned(),
        done.status.code(),
    )
}

#[test]
fn a_file_that_was_handed_in_for_reading_stays_as_it_was() {
    for user in users() {
        let attack = Attack::new(user);
        let file = attack.home.home().join("input");
        std::fs::write(&file, "what was there\n").unwrap();
        attack.home.give(&file);
        let before = std::fs::metadata(&file).unwrap();
        let (out, err, _) = with_stdin(attack.prepare(&["reopen"]).command(), File::open(&file).unwrap());
        Answers::of(&out).assert_only(&[], 25);
        let change = [
            "change",
            "chmod:/proc/self/fd/0",
            "times:/dev/stdin",
            "truncate:/dev/fd/0",
            "write:/dev/stdin",
        ];
        let (out, _, _) = with_stdin(attack.prepare(&change).command(), File::open(&file).unwrap());
        Answers::of(&out).assert_only(&[], 4);
        let after = std::fs::metadata(&file).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "what was there\n", "{err}");
        assert_eq!(
            (before.mode(), before.mtime_nsec()),
            (after.mode(), after.mtime_nsec()),
            "{out}"
        );
    }
}

#[test]
fn without_a_session_the_same_file_is_broken() {
    for user in users().into_iter().rev().take(1) {
        let attack = Attack::new(user);
        let file = attack.home.home().join("input");
        std::fs::write(&file, "what was there\n").unwrap();
        attack.home.give(&file);
        with_stdin(attack.bare_command(&["reopen"]), File::open(&file).unwrap());
        assert_ne!(std::fs::read_to_string(&file).unwrap(), "what was there\n");
    }
}

#[test]
fn a_file_on_stdin_is_read_from_where_it_stands_and_left_where_the_program_stopped() {
    use std::io::{Read, Seek, SeekFrom};
    for user in users() {
        let attack = Attack::new(user);
        let path = attack.home.write_work("lines", "one\ntwo\nthree\n");
        let mut file = File::open(path).unwrap();
        file.seek(SeekFrom::Start(4)).unwrap();
        let read = vec!["sh".into(), "-c".into(), "read line; echo got $line".into()];
        let (out, err, _) = with_stdin(attack.prepare_any(read).command(), file.try_clone().unwrap());
        assert_eq!(out, "got two\n", "{err}");
        let mut rest = String::new();
        file.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "three\n");
    }
}

#[test]
fn a_file_that_has_no_name_any_more_is_still_read() {
    for user in users() {
        let attack = Attack::new(user);
        let path = attack.home.write_work("gone", "still here\n");
        let file = File::open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        let (out, err, _) = with_stdin(attack.prepare_any(vec!["cat".into()]).command(), file);
        assert_eq!(out, "still here\n", "{err}");
    }
}

#[test]
fn sockets_directories_and_devices_are_not_handed_on() {
    for user in users() {
        let attack = Attack::new(user);
        let run = || attack.prepare_any(vec!["echo".into(), "ran".into()]).command();
        let (socket, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
        let connected = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        for (what, fd) in [
            ("a socket", OwnedFd::from(socket)),
            ("a socket", OwnedFd::from(connected)),
            ("a directory", OwnedFd::from(File::open("/").unwrap())),
            ("a device", OwnedFd::from(File::open("/dev/zero").unwrap())),
        ] {
            let (out, err, code) = with_stdin(run(), fd);
            assert_eq!((out.as_str(), code), ("", Some(3)), "{err}");
            assert!(err.contains(what), "{err}");
        }
        let (out, err, _) = with_stdin(run(), File::open("/dev/null").unwrap());
        assert_eq!(out, "ran\n", "{err}");
    }
}

fn handing_in_sockets(tree: &Tree) -> Tree {
    let fds = "[subject.attack]\nfds = { allow_sockets = true, allow_directories = false, allow_devices = false }\n";
    tree.clone().edit("sandbox.toml", "[subject.attack]\n", fds)
}

#[test]
fn a_policy_that_opens_sockets_hands_them_on() {
    for user in users() {
        let mut attack = Attack::new(user);
        attack.tree = handing_in_sockets(&attack.tree);
        let (socket, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
        let run = attack.prepare_any(vec!["echo".into(), "ran".into()]).command();
        let (out, err, _) = with_stdin(run, OwnedFd::from(socket));
        assert_eq!(out, "ran\n", "{err}");
    }
}

/// What a program does with the socket that is its stdin.
const HANDED: &str = r#"
import errno, os, socket, sys
forbidden = ("127.0.0.1", FORBIDDEN)
def told(name, work):
    try: print(name, work())
    except OSError as error: print(name, errno.errorcode[error.errno])
one = socket.socket(fileno=0)
if one.type == socket.SOCK_DGRAM:
    told("send", lambda: one.send(b"to the peer"))
    told("sendto", lambda: one.sendto(b"sendto", forbidden))
    told("sendmsg", lambda: one.sendmsg([b"sendmsg"], [], 0, forbidden))
    told("connect", lambda: (one.connect(forbidden), one.send(b"connected")))
    told("bind", lambda: one.bind(("127.0.0.1", 0)))
else:
    told("connect", lambda: (one.connect(forbidden), one.send(b"connected")))
    told("listen", lambda: one.listen(5))
    print("port", one.getsockname()[1])
print("end", flush=True)
import time; time.sleep(60)
"#;

#[test]
fn a_socket_on_stdin_reaches_its_peer_and_nobody_else_and_listens_nowhere() {
    use std::io::{BufRead, BufReader};
    for user in users_with(&["/usr/bin/python3"]) {
        let mut attack = Attack::new(user);
        attack.tree = handing_in_sockets(&attack.tree);
        let (peer, forbidden, streams) = (Catcher::udp(), Catcher::udp(), Catcher::tcp("127.0.0.1"));
        let fresh = |kind| rustix::net::socket(rustix::net::AddressFamily::INET, kind, None).unwrap();
        for bare in [false, true] {
            let said = |fd: OwnedFd, port: u16| {
                let script = HANDED.replace("FORBIDDEN", &port.to_string());
                let words = ["/usr/bin/python3", "-c", &script];
                let mut command = if bare {
                    let mut command = std::process::Command::new(words[0]);
                    command.args(&words[1..]);
                    command
                } else {
                    attack.prepare_any(words.map(Into::into).to_vec()).command()
                };
                let mut child = spawn(command.stdin(fd).stdout(Stdio::piped()).stderr(Stdio::piped())).unwrap();
                // What was handed in is the child's alone.
                drop(command);
                let lines = BufReader::new(child.stdout.take().unwrap()).lines();
                let until_end = lines.map_while(Result::ok).take_while(|line| line != "end");
                let out: String = until_end.map(|line| line + "\n").collect();
                let listening = crate::sockets::listening();
                child.kill().unwrap();
                child.wait().unwrap();
                (out, listening)
            };
            let connected = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            connected.connect(("127.0.0.1", peer.port())).unwrap();
            let (out, _) = said(connected.into(), forbidden.port());
            if bare {
                forbidden.assert_something();
            } else {
                // Without a rule the loopback is the session's own.
                let own = "send 11\nsendto ENETUNREACH\nsendmsg ENETUNREACH\nconnect (None, 9)\nbind EINVAL\n";
                assert_eq!(out, own);
                forbidden.assert_nothing();
                peer.flush();
                assert_eq!(peer.caught(), ["to the peer"]);
            }
            let (out, _) = said(fresh(rustix::net::SocketType::STREAM), streams.port());
            if bare {
                streams.assert_something();
            } else {
                assert!(out.starts_with("connect ECONNREFUSED\nlisten None\n"), "{out}");
                streams.assert_nothing();
            }
            let (out, listening) = said(fresh(rustix::net::SocketType::STREAM), closed_port());
            let port = out.lines().find_map(|line| line.strip_prefix("port ")).unwrap();
            assert_eq!(listening.contains(&port.parse().unwrap()), bare, "{out}");
        }
        attack.home.assert_nothing_left();
    }
}

#[test]
fn a_socket_that_was_handed_in_is_no_way_to_the_hosts_names() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};
    for user in users() {
        let name = format!("nexus-test-input-{}-{}", std::process::id(), user.id());
        let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut attack = Attack::new(user);
        attack.tree = handing_in_sockets(&attack.tree);
        // Without a peer yet: made by somebody for whom an abstract name is the host's.
        let socket = || {
            use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
            socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap()
        };
        let (out, err, _) = with_stdin(attack.prepare(&["abstract-stdin", &name]).command(), socket());
        Answers::of(&out).assert_only(&[], 3);
        assert!(listener.accept().is_err(), "{out}{err}");
        assert!(err.contains("ipc.no_rule"), "{err}");
        let (out, err, _) = with_stdin(attack.bare_command(&["abstract-stdin", &name]), socket());
        assert_eq!(Answers::of(&out).get("connect"), "ok", "{out}{err}");
        assert!(listener.accept().is_ok());
    }
}

#[test]
fn only_the_standard_descriptors_are_open_inside() {
    for user in users() {
        let attack = Attack::new(user);
        let secret = attack.home.write_work("inherited", "inherited");
        // A shell opens more and starts `nx` with them.
        let nx = attack.prepare(&["descriptors"]).command();
        let mut words = vec![nx.get_program().to_owned()];
        words.extend(nx.get_args().map(ToOwned::to_owned));
        let mut shell = std::process::Command::new("bash");
        shell
            .arg("-c")
            .arg(format!("exec 5<{0} 9<{0} 200<{0}; exec \"$@\"", secret.display()))
            .arg("bash")
            .args(words);
        shell.current_dir(attack.home.work()).env_clear();
        shell.envs(nx.get_envs().filter_map(|(name, value)| Some((name, value?))));
        user.starts(&mut shell);
        let (out, err, _) = with_stdin(shell, Stdio::null());
        let mut open: Vec<&str> = out.lines().filter_map(|line| line.split(' ').next()).collect();
        open.sort_unstable();
        assert_eq!(open, ["0", "1", "2"], "{out}{err}");
    }
}

#[test]
fn a_log_that_is_appended_to_cannot_be_opened_for_more() {
    for user in users() {
        let attack = Attack::new(user);
        let path = attack.home.home().join("log");
        std::fs::write(&path, "first\n").unwrap();
        attack.home.give(&path);
        let log = File::options().append(true).open(&path).unwrap();
        let mut command = attack.prepare(&["append"]).option("-q").command();
        let child = spawn(command.stdin(Stdio::null()).stdout(log).stderr(Stdio::piped())).unwrap();
        let done = child.wait_with_output().unwrap();
        Answers::of(&String::from_utf8_lossy(&done.stderr)).assert_only(&[], 8);
        assert_eq!(std::fs::read_to_string(path).unwrap(), "first\n");
    }
}

#[test]
fn a_program_on_a_host_path_cannot_be_executed_through_stdin() {
    for user in users() {
        let attack = Attack::new(user);
        let program = attack.home.home().join("program");
        security_v2_host::copy_program(std::path::Path::new("/usr/bin/id"), &program).unwrap();
        attack.home.give(&program);
        let command = attack.prepare(&["execute-inherited"]).command();
        let (out, err, _) = with_stdin(command, File::open(&program).unwrap());
        Answers::of(&out).assert_refused(&["execveat-stdin"]);
        assert!(!out.contains("uid="), "{out}{err}");
        let (out, ..) = with_stdin(
            attack.bare_command(&["execute-inherited"]),
            File::open(&program).unwrap(),
        );
        assert!(out.contains("uid="), "{out}");
    }
}
