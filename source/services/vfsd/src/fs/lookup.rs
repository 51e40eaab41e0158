use std::ffi::CStr;
use std::sync::Arc;

use rustix::io::Errno;

use super::node::Node;
use super::protocol::Attr;
use super::table::ROOT_ID;
use super::{Vfs, Zone, one_part};

impl Vfs {
    pub(crate) fn op_lookup(&self, parent: u64, name: &CStr) -> Result<Attr, Errno> {
        if parent == ROOT_ID {
            let zone = name.to_str().ok().and_then(Zone::from_name).ok_or(Errno::NOENT)?;
            let node = match zone {
                Zone::Work(index) => self.works.root(index),
                zone => self.zones.iter().find(|node| node.zone == zone).cloned(),
            };
            return self.told_again(&node.ok_or(Errno::NOENT)?);
        }
        let parent = self.table.get(parent)?;
        let name = one_part(name)?;
        if let Some(held) = self.works.held(&parent, name) {
            return self.told_again(&held);
        }
        let dir = self.fd(&parent)?;
        let entries = parent.entries_shared();
        let (node, stat, fd) = self.find(&parent, &dir, name)?;
        drop(entries);
        let stat = self.catch_up(&node, &fd, stat)?;
        Ok(self.attr(&node, &stat))
    }

    /// Tells the kernel of a node that is what it is, whatever its name means on the host.
    fn told_again(&self, node: &Arc<Node>) -> Result<Attr, Errno> {
        let fd = self.fd(node)?;
        let stat = rustix::fs::fstat(&fd)?;
        let node = self.table.intern(node.zone, &stat, Some(&fd), None)?;
        Ok(self.attr(&node, &stat))
    }

    pub(crate) fn op_readlink(&self, id: u64) -> Result<Vec<u8>, Errno> {
        let node = self.table.get(id)?;
        Ok(rustix::fs::readlinkat(Arc::as_ref(&self.fd(&node)?), c"", Vec::new())?.into_bytes())
    }
}
