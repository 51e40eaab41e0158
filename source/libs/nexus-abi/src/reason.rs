use core::fmt;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal),* $(,)?) => {
        /// Why a request was denied or warned about, as `area.what`.
        ///
        /// Once shipped, a reason never changes its meaning; new ones may be added.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// Every reason, in the order of this table.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The stable text, such as `egress.no_rule`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// The reason of a stable text.
            #[must_use]
            pub fn from_text(text: &str) -> Option<Self> {
                match text {
                    $($text => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

reasons! {
    /// No rule speaks of this syscall.
    AbiNoRule = "abi.no_rule",
    /// A deny rule matched the syscall and its arguments.
    AbiDenyRule = "abi.deny_rule",
    /// Rules allow this syscall, but none with these arguments.
    AbiArgMismatch = "abi.arg_mismatch",
    /// A number that is in no table, or a call that libraries probe and fall back from: `ENOSYS`.
    AbiUnknown = "abi.unknown",
    /// A call through an ABI other than the program's own (int 0x80, x32): `ENOSYS`.
    AbiForeign = "abi.foreign",
    /// No rule covers this destination.
    EgressNoRule = "egress.no_rule",
    /// No rule names this host: its name is not resolved.
    EgressNameNoRule = "egress.name_no_rule",
    /// A control message that could lead a datagram somewhere else than its address says.
    EgressControl = "egress.control",
    /// A deny rule covers this destination.
    EgressDenyRule = "egress.deny_rule",
    /// A destination that only a rule naming it may open: loopback, link-local, multicast, the host's own.
    EgressSpecialAddress = "egress.special_address",
    /// A socket family or type that egress rules cannot judge.
    EgressFamily = "egress.family",
    /// The byte budget's hard limit would be passed.
    QuotaHardBytes = "quota.hard_bytes",
    /// The inode budget's hard limit would be passed.
    QuotaHardInodes = "quota.hard_inodes",
    /// The byte budget's soft limit was crossed: a warning, nothing was denied.
    QuotaSoftBytes = "quota.soft_bytes",
    /// A path that the subject's view does not hold.
    VfsOutsideView = "vfs.outside_view",
    /// The session has as many files of its areas open as it may: the rest is for others of its subject. `ENFILE`.
    VfsOpenFiles = "vfs.open_files",
    /// An IPC endpoint that no rule names.
    IpcNoRule = "ipc.no_rule",
    /// A journal file starts here; the object says what it continues.
    JournalStart = "journal.start",
    /// A torn tail was cut off the journal; the object says how many bytes.
    JournalTorn = "journal.torn",
    /// Records that were never written because of the rate limit, told at a session's end.
    JournalSuppressed = "journal.suppressed",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_leads_back_to_its_reason() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_text(reason.as_str()), Some(*reason));
        }
        assert_eq!(Reason::from_text("abi.no_rules"), None);
    }
}
