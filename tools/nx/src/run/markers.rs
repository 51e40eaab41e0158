//! Where markers go: lines that say what was seen to happen, without time or number, for whoever waits for them.

use super::failure::{Exit, Failure};
use rustix::fs::{Mode, OFlags};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// The variable that names where markers go. Unset: nowhere.
const MARKERS: &str = "NEXUS_MARKERS";

/// The marker sink: a file to append to, or a terminal such as a serial line.
pub(crate) fn open() -> Result<Option<Arc<OwnedFd>>, Failure> {
    let Some(path) = std::env::var_os(MARKERS).filter(|path| !path.is_empty()) else {
        return Ok(None);
    };
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let opened = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR);
    opened.map(|sink| Some(Arc::new(sink))).map_err(|error| {
        let path = path.to_string_lossy();
        Failure::new(
            Exit::Missing,
            format!("the marker sink `{path}` of `{MARKERS}` cannot be opened: {error}"),
        )
    })
}
