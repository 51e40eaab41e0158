use core::fmt;

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident = $text:literal),* $(,)?) => {
        /// What a subject asked for, as records and traces name it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Operation {
            $($(#[$doc])* $name,)*
        }

        impl Operation {
            /// Every operation, in the order of this table.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The stable text, such as `connect`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// The operation of a stable text.
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

operations! {
    /// A syscall that no more specific operation describes; the object says which and with what arguments.
    Syscall = "syscall",
    /// Making a socket; the object is family, type and protocol.
    Socket = "socket",
    /// Connecting a socket; the object is the destination.
    Connect = "connect",
    /// Sending to an address; the object is the destination.
    Send = "send",
    /// Looking up a host's name; the object is the name.
    Resolve = "resolve",
    /// Binding a socket to a local address.
    Bind = "bind",
    /// Listening on a socket.
    Listen = "listen",
    /// Making a file longer, or making one; the object is the area and the path's last part.
    Write = "write",
    /// Making a file, directory or link.
    Create = "create",
    /// Opening a file or directory that is there.
    Open = "open",
    /// The journal itself: started, rotated, mended. No program asked for it.
    Journal = "journal",
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_leads_back_to_its_operation() {
        for operation in Operation::ALL {
            assert_eq!(Operation::from_text(operation.as_str()), Some(*operation));
        }
        assert_eq!(Operation::from_text("Connect"), None);
    }
}
