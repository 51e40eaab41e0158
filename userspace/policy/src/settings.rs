use std::fmt;

use nexus_abi::RuleRef;

macro_rules! words {
    ($(#[$outer:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$doc])* $variant,)*
        }

        impl $name {
            /// Every value, in its order.
            pub const ALL: [Self; [$(Self::$variant),*].len()] = [$(Self::$variant),*];

            /// The word in policy and output.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// What a program may do with the `work` directory of its run. Ordered from least to most.
    WorkMode {
        /// There is no `work`.
        None = "none",
        /// It may read.
        ReadOnly = "ro",
        /// It may write within the budget.
        Metered = "metered",
        /// It may write, and nobody counts.
        Unmetered = "unmetered",
    }
}

words! {
    /// What happens to a program when its denies cannot be written down.
    OnJournalFailure {
        /// It is ended.
        Stop = "stop",
        /// It goes on.
        Continue = "continue",
    }
}

words! {
    /// A device below `/dev` (null(4), random(4), tty(4)).
    Device {
        /// Reads nothing, swallows everything.
        Null = "null",
        /// Reads zeros.
        Zero = "zero",
        /// Reads zeros, is always full.
        Full = "full",
        /// Random bytes.
        Random = "random",
        /// Random bytes.
        Urandom = "urandom",
        /// The controlling terminal.
        Tty = "tty",
        /// New pseudo-terminals of the session's own (devpts).
        Pts = "pts",
        /// Shared memory, charged to `tmp`.
        Shm = "shm",
    }
}

/// A path that is shown read-only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewPath {
    /// Absolute and plain: no `.`, `..`, empty parts, NUL. In what policy says it may begin with `~/`; in a subject's
    /// resolved view it never does.
    pub path: String,
    /// Whether it may be missing on this machine; a missing path that must be there stops the start.
    pub optional: bool,
    /// The rule that shows it.
    pub rule: RuleRef,
}

/// A variable's name, or all that begin with something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnvPattern {
    begins: String,
    open: bool,
}

impl EnvPattern {
    /// Reads `LANG` or `LC_*`. `None`: it is no name; `*` alone would pass everything and is none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (begins, open) = match text.strip_suffix('*') {
            Some(begins) => (begins, true),
            None => (text, false),
        };
        let mut bytes = begins.bytes();
        let first = bytes.next()?;
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        // A name is as long as a file name may be: no program has a longer one.
        let fits = is_name(first) && !first.is_ascii_digit() && bytes.all(is_name) && begins.len() <= 255;
        fits.then(|| Self {
            begins: begins.to_owned(),
            open,
        })
    }

    /// Whether a variable of this name is covered.
    #[must_use]
    pub fn covers(&self, name: &str) -> bool {
        if self.open {
            name.starts_with(&self.begins)
        } else {
            name == self.begins
        }
    }

    /// A pattern of a snapshot; `None` for one that no text gives.
    pub(crate) fn of_parts(begins: &str, open: bool) -> Option<Self> {
        Self::parse(begins)
            .filter(|pattern| !pattern.open)
            .map(|pattern| Self { open, ..pattern })
    }

    /// The name, or how names begin.
    pub(crate) fn begins(&self) -> &str {
        &self.begins
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open
    }
}

impl fmt::Display for EnvPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.begins)?;
        if self.open { f.write_str("*") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_covers_what_begins_so_and_a_name_only_itself() {
        let open = EnvPattern::parse("LC_*").unwrap();
        assert!(open.covers("LC_ALL") && open.covers("LC_"));
        assert!(!open.covers("LC") && !open.covers("XLC_ALL"));
        let one = EnvPattern::parse("LANG").unwrap();
        assert!(one.covers("LANG"));
        assert!(!one.covers("LANGUAGE") && !one.covers("LAN"));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in ["", "*", "A*B", "A B", "1A", "A=B", "A\0", "Ä"] {
            assert_eq!(EnvPattern::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn less_work_comes_before_more() {
        assert!(WorkMode::None < WorkMode::ReadOnly && WorkMode::Metered < WorkMode::Unmetered);
    }
}
