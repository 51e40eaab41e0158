use nexus_abi::Area;

/// A directory of the file system's root: what a session mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Zone {
    /// `/tmp` and `/var/tmp`.
    Tmp,
    /// `/state`.
    State,
    /// `/dev/shm`.
    Shm,
}

impl Zone {
    pub(crate) const ALL: [Self; 3] = [Self::Tmp, Self::State, Self::Shm];

    /// Its name in the root.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tmp => "tmp",
            Self::State => "state",
            Self::Shm => "shm",
        }
    }

    /// Whom it is charged to.
    pub(crate) const fn area(self) -> Area {
        match self {
            Self::Tmp | Self::Shm => Area::Tmp,
            Self::State => Area::State,
        }
    }
}
