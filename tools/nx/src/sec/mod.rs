//! `nx sec`: what is in force here, and the proof of it.

mod args;
mod audit;
mod counters;
mod doctor;
mod place;
mod time;

pub(crate) use args::SecCommand;

/// Does what the command line says, and gives the status that `nx` ends with.
pub(crate) fn main(command: &SecCommand) -> u8 {
    match command {
        SecCommand::Audit(args) => audit::audit(args),
        SecCommand::Counters(args) => counters::counters(args),
        SecCommand::Doctor { json } => doctor::doctor(*json),
    }
}
