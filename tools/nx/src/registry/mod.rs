//! Which sessions run.
//!
//! Each session's supervisor keeps an entry in the runtime directory: a listening socket, `sessions/ID`, and beside it a file of
//! facts, `sessions/ID.json`, which is there before the socket has its name and until it is gone. Who lives, the kernel says and not the file: a socket whose owner is
//! gone refuses, and the process that listened (`SO_PEERCRED`), the first process that it was forked by and the program's
//! init must be what the facts say that they are. An entry that nobody listens at, and of whose session nothing lives as the
//! kernel says, is left over, and is removed by whoever finds it.
//!
//! To know who runs, no supervisor has to wake. What only it knows, it is asked ([`ask`]), and has two seconds to answer.

mod ask;
mod facts;
mod kernel;
mod left;
mod list;
mod publish;
mod serve;

pub use ask::{ANSWER_WAIT, AskError, ask, ask_all};
pub use facts::{Backend, FACTS_BYTES_MAX, FACTS_VERSION, Facts, Filter, Mask, ProcessFact, WorkFact};
pub use kernel::{Process, ProcessState};
pub use list::{Listing, Live, Program, SESSIONS_MAX, Trouble, list};
pub use publish::{Entry, Listener, clear, publish};
pub use serve::{ASK_WAIT, Answers, serve};

/// The directory of entries in the runtime directory.
pub const SESSIONS: &str = "sessions";

/// What the name of a session's facts ends with, after the session's.
const FACTS: &str = ".json";

/// What the name of an entry begins with that is being made.
const NEW: &str = ".new-";
