//! The caller's terminal.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use security_v2_host::{DEADLINE, spawn, users};

use crate::kit::{Answers, Attack};

/// Starts a command on a terminal of its own, types a line when it is ready, and returns what it printed.
fn on_terminal(command: &Command, user: security_v2_host::User) -> String {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let slave: OwnedFd = std::fs::File::options()
        .read(true)
        .write(true)
        .open(name.to_str().unwrap())
        .unwrap()
        .into();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::fchown(&slave, Some(user.id()), None).unwrap();
    }
    // setsid(1) makes the terminal the controlling one.
    let mut outer = Command::new("setsid");
    outer
        .args(["--ctty", "--wait"])
        .arg(command.get_program())
        .args(command.get_args());
    outer.current_dir(command.get_current_dir().unwrap()).env_clear();
    outer.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    outer
        .stdin(slave.try_clone().unwrap())
        .stdout(slave.try_clone().unwrap())
        .stderr(slave);
    user.starts(&mut outer);
    let mut child = spawn(&mut outer).unwrap();
    drop(outer);
    rustix::io::ioctl_fionbio(&master, true).unwrap();
    let mut terminal = std::fs::File::from(master);
    let (mut said, mut typed) = (Vec::new(), false);
    let until = Instant::now() + DEADLINE;
    let mut bytes = [0; 4096];
    while Instant::now() < until {
        let ended = child.try_wait().unwrap().is_some();
        while let Ok(count @ 1..) = terminal.read(&mut bytes) {
            said.extend_from_slice(&bytes[..count]);
        }
        if ended {
            break;
        }
        if !typed && String::from_utf8_lossy(&said).contains("ready ok") {
            typed = terminal.write_all(b"typed\n").is_ok();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    let _ = child.wait();
    String::from_utf8_lossy(&said).replace('\r', "")
}

#[test]
fn nothing_types_into_the_terminal_or_turns_its_input_into_a_signal() {
    for user in users() {
        let attack = Attack::new(user);
        let command = attack.prepare(&["terminal"]).command();
        let out = on_terminal(&command, user);
        Answers::of(&out).assert_only(&["ready"], 13);
    }
}

#[test]
fn without_a_session_the_terminals_input_becomes_a_signal() {
    let Some(_) = users().first() else { return };
    let user = crate::kit::bare_user();
    let attack = Attack::new(user);
    let mut command = attack.bare_command(&["terminal"]);
    command.process_group(0);
    let out = on_terminal(&command, user);
    Answers::of(&out).assert_ok(&["F_SETSIG", "O_ASYNC", "FIOASYNC"]);
}
