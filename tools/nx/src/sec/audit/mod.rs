//! `nx sec audit`: what was denied, as the journal has it.

mod args;
mod follow;
mod held;
mod line;
mod list;
mod verify;

pub(crate) use args::AuditArgs;
pub(super) use verify::{broken_json, holds_json};

use super::{journal, output};
use crate::run::Failure;

/// Why a command ended before its end.
enum Ended {
    /// Nobody reads any more.
    Closed,
    Failed(Failure),
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<std::io::Error> for Ended {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Self::Closed
        } else {
            Self::Failed(
                Failure::new(
                    crate::run::Exit::Missing,
                    format!("cannot write what was found: {error}"),
                )
                .with_help("what was printed before is not all"),
            )
        }
    }
}

pub(super) fn audit(args: &AuditArgs) -> u8 {
    let directory = output::has_stdout().and_then(|()| journal::directory());
    let done = directory.map_err(Ended::Failed).and_then(|directory| {
        if args.verify {
            verify::verify(args, &directory)
        } else if args.follow {
            follow::follow(args, &directory)
        } else {
            list::list(args, &directory)
        }
    });
    match done {
        Ok(code) => code,
        Err(Ended::Closed) => 0,
        Err(Ended::Failed(failure)) => output::finish(Err(failure), args.json),
    }
}
