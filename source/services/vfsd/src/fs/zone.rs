use std::borrow::Cow;

use nexus_abi::Area;

/// How many metered work directories a subject has at once, those of sessions that have ended among them: each keeps a
/// descriptor until the subject's last session ends.
pub(crate) const WORKS_MAX: u8 = 64;

/// A directory of the file system's root: what a session mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Zone {
    /// `/tmp` and `/var/tmp`.
    Tmp,
    /// `/state`.
    State,
    /// `/dev/shm`.
    Shm,
    /// A directory of the user's, by its place among all of them.
    Work(u8),
}

impl Zone {
    /// Those that every file server has.
    pub(crate) const ALL: [Self; 3] = [Self::Tmp, Self::State, Self::Shm];

    /// Its name in the root.
    pub(crate) fn name(self) -> Cow<'static, str> {
        match self {
            Self::Tmp => "tmp".into(),
            Self::State => "state".into(),
            Self::Shm => "shm".into(),
            Self::Work(index) => format!("work{index}").into(),
        }
    }

    /// The zone of a name in the root.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        let works = (0..WORKS_MAX).map(Self::Work);
        Self::ALL.into_iter().chain(works).find(|zone| zone.name() == name)
    }

    /// Its place among all that there may be.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Tmp => 0,
            Self::State => 1,
            Self::Shm => 2,
            Self::Work(index) => 3_u8.saturating_add(index),
        }
    }

    /// The zone at a place.
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        let works = (0..WORKS_MAX).map(Self::Work);
        Self::ALL.into_iter().chain(works).find(|zone| zone.number() == number)
    }

    /// Whom it is charged to.
    pub(crate) const fn area(self) -> Area {
        match self {
            Self::Tmp | Self::Shm => Area::Tmp,
            Self::State => Area::State,
            Self::Work(_) => Area::Work,
        }
    }

    /// Whether others may change what is in it while it is served: the user in the work directory, and whoever looks after
    /// a subject's state. Where `tmp` lies on the host nobody but this process looks.
    pub(crate) const fn is_shared(self) -> bool {
        matches!(self, Self::State | Self::Work(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_zone_has_a_name_and_a_number_of_its_own() {
        for number in 0..=u8::MAX {
            let zone = Zone::from_number(number);
            assert_eq!(zone.is_some(), number < 3 + WORKS_MAX);
            assert!(zone.is_none_or(|zone| zone.number() == number && Zone::from_name(&zone.name()) == Some(zone)));
        }
    }
}
