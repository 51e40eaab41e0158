//! What `nx run` and its program's init tell each other.

/// From init to `nx run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The sandbox stands, and the program is about to be made: from here on it gets what goes to the process group.
    Launching,
    /// The program was started: its exec succeeded.
    Started,
    /// The program was stopped by this signal.
    Stopped(i32),
    /// The program was continued.
    Continued,
    /// The program ended with this status code.
    Exited(i32),
    /// The program was ended by this signal.
    Signaled(i32),
    /// The program could not be started: this errno.
    ExecFailed(i32),
    /// The sandbox could not be built: the step, by its place in the list of steps, and the errno; 0 where a process that
    /// does it was killed.
    SetupFailed {
        /// Which step.
        step: u32,
        /// Why.
        errno: i32,
    },
    /// The answer to [`Command::Pending`]: bit n-1 stands for signal n.
    Pending(u64),
}

/// From `nx run` to init.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// The identity maps are written: build what needs nobody else.
    Go,
    /// The areas' mounts come along, and somebody judges: finish the view and start the program.
    Areas,
    /// Which signals came since this was last asked? Init stands in the process group that `nx run` stands in and takes
    /// none, so what came here went to the whole group. Everything that the program did before is told before the answer.
    Pending,
    /// `nx run` received this signal; pass it to the program unless the program got it itself.
    Signal {
        /// Which.
        number: i32,
        /// Whether it went to the whole process group of `nx run`.
        everybody: bool,
    },
}

/// How many bytes a message has.
pub const MESSAGE_BYTES: usize = 9;

fn encode(tag: u8, a: i32, b: i32) -> [u8; MESSAGE_BYTES] {
    let mut bytes = [0; MESSAGE_BYTES];
    let parts = core::iter::once(tag).chain(a.to_le_bytes()).chain(b.to_le_bytes());
    for (to, from) in bytes.iter_mut().zip(parts) {
        *to = from;
    }
    bytes
}

fn decode(bytes: &[u8]) -> Option<(u8, i32, i32)> {
    let bytes: &[u8; MESSAGE_BYTES] = bytes.try_into().ok()?;
    let [tag, a0, a1, a2, a3, b0, b1, b2, b3] = *bytes;
    Some((
        tag,
        i32::from_le_bytes([a0, a1, a2, a3]),
        i32::from_le_bytes([b0, b1, b2, b3]),
    ))
}

impl Event {
    /// The message.
    #[must_use]
    pub fn encode(self) -> [u8; MESSAGE_BYTES] {
        match self {
            Self::Launching => encode(9, 0, 0),
            Self::Started => encode(1, 0, 0),
            Self::Stopped(signal) => encode(2, signal, 0),
            Self::Continued => encode(3, 0, 0),
            Self::Exited(code) => encode(4, code, 0),
            Self::Signaled(signal) => encode(5, signal, 0),
            Self::ExecFailed(errno) => encode(6, errno, 0),
            Self::SetupFailed { step, errno } => encode(7, step.cast_signed(), errno),
            Self::Pending(signals) => {
                let [a, b, c, d, e, f, g, h] = signals.to_le_bytes();
                encode(8, i32::from_le_bytes([a, b, c, d]), i32::from_le_bytes([e, f, g, h]))
            }
        }
    }

    /// The event of a message, `None` for anything else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        Some(match decode(bytes)? {
            (9, 0, 0) => Self::Launching,
            (1, 0, 0) => Self::Started,
            (2, signal, 0) => Self::Stopped(signal),
            (3, 0, 0) => Self::Continued,
            (4, code, 0) => Self::Exited(code),
            (5, signal, 0) => Self::Signaled(signal),
            (6, errno, 0) => Self::ExecFailed(errno),
            (7, step, errno) => Self::SetupFailed {
                step: step.cast_unsigned(),
                errno,
            },
            (8, low, high) => {
                Self::Pending(u64::from(low.cast_unsigned()) | u64::from(high.cast_unsigned()).wrapping_shl(u32::BITS))
            }
            _ => return None,
        })
    }
}

impl Command {
    /// The message.
    #[must_use]
    pub fn encode(self) -> [u8; MESSAGE_BYTES] {
        match self {
            Self::Go => encode(1, 0, 0),
            Self::Signal { number, everybody } => encode(2, number, i32::from(everybody)),
            Self::Pending => encode(3, 0, 0),
            Self::Areas => encode(4, 0, 0),
        }
    }

    /// The command of a message, `None` for anything else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        Some(match decode(bytes)? {
            (1, 0, 0) => Self::Go,
            (2, number, 0) => Self::Signal {
                number,
                everybody: false,
            },
            (2, number, 1) => Self::Signal {
                number,
                everybody: true,
            },
            (3, 0, 0) => Self::Pending,
            (4, 0, 0) => Self::Areas,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_survives_the_wire() {
        for event in [
            Event::Launching,
            Event::Started,
            Event::Stopped(20),
            Event::Continued,
            Event::Exited(-1),
            Event::Signaled(9),
            Event::ExecFailed(2),
            Event::SetupFailed {
                step: u32::MAX,
                errno: 1,
            },
            Event::Pending(0x8000_0001_8000_0001),
            Event::Pending(0),
        ] {
            assert_eq!(Event::decode(&event.encode()), Some(event));
        }
        let signal = |everybody| Command::Signal { number: 2, everybody };
        for command in [
            Command::Go,
            Command::Areas,
            signal(true),
            signal(false),
            Command::Pending,
        ] {
            assert_eq!(Command::decode(&command.encode()), Some(command));
        }
    }

    #[test]
    fn nothing_else_decodes() {
        assert_eq!(Event::decode(&[]), None);
        assert_eq!(Event::decode(&[1, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(Event::decode(&[1, 0, 0, 0, 0, 0, 0, 0, 1]), None);
        assert_eq!(Event::decode(&[0; MESSAGE_BYTES]), None);
        assert_eq!(Command::decode(&[9, 0, 0, 0, 0, 0, 0, 0, 0]), None);
    }
}
