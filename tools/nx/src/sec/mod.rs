//! `nx sec`: what is in force here, and the proof of it.

mod args;
mod doctor;
mod output;
mod ps;
pub(crate) mod test;

pub(crate) use args::SecCommand;

/// Does what the command line says, and gives the status that `nx` ends with.
pub(crate) fn main(command: &SecCommand) -> u8 {
    match command {
        SecCommand::Doctor { json } => doctor::doctor(*json),
        SecCommand::Ps { json } => output::finish(ps::ps(*json), *json),
        SecCommand::Test(command) => test::main(command, &test::Honest),
    }
}
