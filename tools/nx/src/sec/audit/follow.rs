//! `nx sec audit --follow`: what is written from now on.

use super::args::AuditArgs;
use super::line::{self, Bad, say};
use super::{Ended, journal};
use crate::sec::known;
use logd::{Entry, Followed, Follower};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io::{BufWriter, Write};
use std::os::fd::AsFd;
use std::path::Path;

/// How many records are shown of what was there before.
const SHOWN_BEFORE: usize = 10;

pub(super) fn follow(args: &AuditArgs, directory: &Path) -> Result<u8, Ended> {
    let mut follower = logd::follow(directory, args.filter()).map_err(|error| journal::unreadable(&error))?;
    if follower.is_timed() {
        say(
            "nx: this user follows as many directories already as it may (`sysctl fs.inotify`): the journal is looked at four times a second",
        );
    }
    if let Some(Err(unknown)) = args.subject.as_deref().map(known::without_record) {
        say(&format!(
            "nx: {}: its first record is waited for all the same",
            unknown.message
        ));
    }
    let stdout = std::io::stdout();
    let mut out = BufWriter::new(stdout.lock());
    let mut bad = Bad::default();
    let from_start = args.since.is_some() || args.seq.is_some_and(|range| range.begins());
    if !from_start {
        for entry in before(args, &mut follower)? {
            line::write(&mut out, &entry, args.json)?;
        }
    }
    loop {
        while let Some(followed) = follower.read_next().map_err(|error| journal::unreadable(&error))? {
            match followed {
                Followed::Entry(entry) => {
                    bad.good(args.json);
                    if args.wants(entry.record.reason) {
                        line::write(&mut out, &entry, args.json)?;
                    }
                }
                Followed::Unreadable(unreadable) => bad.one(&mut out, &unreadable, args.json)?,
                Followed::Gap { after, next } => line::gap(&mut out, after, next, args.json)?,
            }
        }
        out.flush()?;
        bad.end(args.json);
        wait(&follower, stdout.as_fd())?;
        follower.look().map_err(|error| journal::unreadable(&error))?;
    }
}

/// The last few of what is there already.
fn before(args: &AuditArgs, follower: &mut Follower) -> Result<VecDeque<Entry>, Ended> {
    let mut last = VecDeque::with_capacity(SHOWN_BEFORE);
    while let Some(followed) = follower.read_next().map_err(|error| journal::unreadable(&error))? {
        if let Followed::Entry(entry) = followed
            && args.wants(entry.record.reason)
        {
            if last.len() == SHOWN_BEFORE {
                last.pop_front();
            }
            last.push_back(*entry);
        }
    }
    Ok(last)
}

/// Until there is something to look at, or nobody reads any more. Without a time: nothing is looked at in vain.
fn wait(follower: &Follower, stdout: std::os::fd::BorrowedFd<'_>) -> Result<(), Ended> {
    loop {
        // No event is asked for: POLLERR comes unasked when a pipe's other end is closed. poll(2).
        let mut both = [
            PollFd::from_borrowed_fd(follower.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(stdout, PollFlags::empty()),
        ];
        match poll(&mut both, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(std::io::Error::from(errno).into()),
        }
        let [notices, reader] = both;
        if reader
            .revents()
            .intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL)
        {
            return Err(Ended::Closed);
        }
        if !notices.revents().is_empty() {
            return Ok(());
        }
    }
}
