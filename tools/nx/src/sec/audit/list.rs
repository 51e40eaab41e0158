//! `nx sec audit`: what is there now.

use super::args::AuditArgs;
use super::line::{self, Bad, say};
use super::{Ended, journal};
use crate::run::Exit;
use logd::{Problem, Unreadable};
use std::io::{BufWriter, Write};
use std::path::Path;

pub(super) fn list(args: &AuditArgs, directory: &Path) -> Result<u8, Ended> {
    let records = match logd::read(directory, args.filter()) {
        Ok(records) => records,
        Err(error) if journal::is_absent(&error) => {
            if !args.json {
                say("nx: there is no journal yet: nothing ran here under nx as this user");
            }
            return Ok(0);
        }
        Err(error) => return Err(journal::unreadable(&error).into()),
    };
    let mut out = BufWriter::new(std::io::stdout().lock());
    let (mut bad, mut found, mut torn) = (Bad::default(), 0_u64, None);
    for entry in records {
        // Only the last line of all may be torn: somebody may be in the middle of writing it.
        if let Some(unreadable) = torn.take() {
            bad.one(&mut out, &unreadable, args.json)?;
        }
        match entry {
            Ok(entry) => {
                bad.good(args.json);
                if args.wants(entry.record.reason) {
                    found = found.saturating_add(1);
                    line::write(&mut out, &entry, args.json)?;
                }
            }
            Err(
                unreadable @ Unreadable {
                    problem: Problem::Torn, ..
                },
            ) => torn = Some(unreadable),
            Err(unreadable) => bad.one(&mut out, &unreadable, args.json)?,
        }
    }
    out.flush()?;
    bad.end(args.json);
    if !args.json {
        if let Some(Unreadable { file, line, .. }) = torn {
            say(&format!(
                "nx: `{file}` line {line} is half a line: it is being written, or its writer was killed and the next one mends it"
            ));
        }
        if bad.count > 0 {
            say(&format!(
                "nx: {} lines are no records, so this is not all; `nx sec audit --verify` names the first",
                bad.count
            ));
        } else if found == 0 {
            say("nx: no record matches");
        }
    }
    Ok(if bad.count > 0 { Exit::Rejected.code() } else { 0 })
}
