use std::ffi::CStr;
use std::sync::Arc;

use rustix::io::Errno;

use super::protocol::Attr;
use super::table::ROOT_ID;
use super::{Vfs, Zone, one_part};

impl Vfs {
    pub(crate) fn op_lookup(&self, parent: u64, name: &CStr) -> Result<Attr, Errno> {
        if parent == ROOT_ID {
            let zone = Zone::ALL
                .into_iter()
                .find(|zone| zone.name().as_bytes() == name.to_bytes())
                .ok_or(Errno::NOENT)?;
            let node = self.zones.iter().find(|node| node.zone == zone).ok_or(Errno::NOENT)?;
            let fd = self.fd(node)?;
            let stat = rustix::fs::fstat(&fd)?;
            let node = self.table.intern(zone, &stat, Some(&fd), None)?;
            return Ok(self.attr(node.id, &stat));
        }
        let parent = self.table.get(parent)?;
        let name = one_part(name)?;
        let dir = self.fd(&parent)?;
        let entries = parent.entries_shared();
        let (node, stat, _) = self.find(&parent, &dir, name)?;
        drop(entries);
        Ok(self.attr(node.id, &stat))
    }

    pub(crate) fn op_readlink(&self, id: u64) -> Result<Vec<u8>, Errno> {
        let node = self.table.get(id)?;
        Ok(rustix::fs::readlinkat(Arc::as_ref(&self.fd(&node)?), c"", Vec::new())?.into_bytes())
    }
}
