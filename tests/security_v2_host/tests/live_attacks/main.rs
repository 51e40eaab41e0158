//! A hostile program in a live session, as root and as an ordinary user: what it tries, and that nothing comes of it.
//!
//! Beside each attack stands the same attack without its guard, and sees it succeed, so that a test that could not fail
//! would be found out. Nothing here leaves the machine: destinations are loopback ones.

mod areas;
mod calls;
mod crowd;
mod datagrams;
mod files;
mod input;
mod kit;
mod processes;
mod protected;
mod shared_tmp;
mod sockets;
mod storm;
mod terminal;
mod turn;
mod unix;
mod wire;
mod words;
