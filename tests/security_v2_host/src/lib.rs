//! The harness of the live tests: `nx run` on real programs, as root and as an ordinary user, with nothing left behind.
//!
//! ```no_run
//! use security_v2_host::{Run, users};
//!
//! for user in users() {
//!     let done = Run::new(user).args(["true"]).run();
//!     assert_eq!(done.code(), Some(0), "{done}");
//!     done.assert_nothing_left();
//! }
//! ```
//!
//! A test that can't run here says so on stderr and is skipped; with `NEXUS_REQUIRE_LIVE=1` it fails instead.

mod binary;
mod closed;
mod elsewhere;
mod full_server;
mod gate;
mod home;
mod need;
mod processes;
mod run;
mod running;
mod server;
mod shown;
mod terminal;
mod town;
mod tree;
mod user;
mod watch;

pub use binary::{attacker, nx, program, selftest_client};
pub use closed::{closed_datagram_port, closed_port};
pub use elsewhere::elsewhere;
pub use full_server::{FullServer, queued};
pub use gate::{copy_program, no_child_is_starting, output, spawn, spawn_for};
pub use home::Home;
pub use need::{lacking, need, users_with};
pub use run::{DEADLINE, Output, Run, can_be_metered};
pub use running::{Running, as_everybody};
pub use server::Server;
pub use shown::{console, printed};
pub use terminal::{Key, PROMPT, Terminal};
pub use town::Town;
pub use tree::Tree;
pub use user::{ORDINARY_ID, REQUIRE_LIVE, User, say_skipped, users};
pub use watch::{Process, eventually};
