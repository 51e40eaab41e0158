/// A place where a subject may write, with a budget of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Area {
    /// Private scratch space: `/tmp`, `/var/tmp` and `/dev/shm`. Dies with the subject's last session.
    Tmp,
    /// Private space that is kept between sessions: `/state`, with `$HOME` inside.
    State,
    /// A directory of the user's that the run names.
    Work,
}

impl Area {
    /// Every area, in the order in which they are shown.
    pub const ALL: [Self; 3] = [Self::Tmp, Self::State, Self::Work];

    /// The name in policy, records and output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tmp => "tmp",
            Self::State => "state",
            Self::Work => "work",
        }
    }
}

impl core::fmt::Display for Area {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())
    }
}
