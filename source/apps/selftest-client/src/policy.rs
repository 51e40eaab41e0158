//! The policy that comes along, written where `nx` can read it.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

const FILES: [(&str, &str); 5] = [
    ("nexus.policy.toml", include_str!("../policy/nexus.policy.toml")),
    ("quotas.toml", include_str!("../policy/quotas.toml")),
    ("egress.toml", include_str!("../policy/egress.toml")),
    ("abi.toml", include_str!("../policy/abi.toml")),
    ("sandbox.toml", include_str!("../policy/sandbox.toml")),
];

/// A directory of our own with the tree in it; gone when this is dropped.
pub(crate) struct Tree(PathBuf);

impl Tree {
    pub(crate) fn write() -> Result<Self, String> {
        let mut random = [0_u8; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .map_err(|error| format!("the kernel gives no random bytes: {error}"))?;
        let name = format!("nx-selftest-{:016x}", u64::from_ne_bytes(random));
        let path = std::env::temp_dir().join(name);
        let failed = |error: std::io::Error| format!("cannot write `{}`: {error}", path.display());
        DirBuilder::new().mode(0o700).create(&path).map_err(failed)?;
        for (name, text) in FILES {
            std::fs::write(path.join(name), text).map_err(failed)?;
        }
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // What cannot be removed is five small files in a directory for such.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
