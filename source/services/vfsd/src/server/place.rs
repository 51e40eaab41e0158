//! What a session says of the names in `tmp` that it mounts something on, until they are held.

use std::ffi::CString;
use std::sync::Arc;

use nexus_wire::vfs::PLACE_PARTS_MAX;
use rustix::fs::FileType;
use rustix::io::Errno;

use super::work::is_plain_name;
use crate::fs::places::{Held, Part, Places};

/// What a session said before its Hello.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    parts: Vec<Part>,
}

impl Wanted {
    /// One more name; false if there are too many, or it is none.
    pub(super) fn add(&mut self, parent: u32, name: &[u8], is_file: bool) -> bool {
        let kind = if is_file {
            FileType::RegularFile
        } else {
            FileType::Directory
        };
        match CString::new(name) {
            Ok(name) if is_plain_name(name.as_bytes()) && self.parts.len() < PLACE_PARTS_MAX => {
                self.parts.push(Part { parent, name, kind });
                true
            }
            _ => false,
        }
    }

    /// Has them held; `Err` with the number of the one that cannot be.
    pub(super) fn hold(self, places: &Arc<Places>) -> Result<Option<Held>, (u32, Errno)> {
        if self.parts.is_empty() {
            return Ok(None);
        }
        let number = |index: usize| u32::try_from(index).unwrap_or(u32::MAX).saturating_add(1);
        places
            .hold(self.parts)
            .map(Some)
            .map_err(|(index, errno)| (number(index), errno))
    }
}
