//! Syscalls in words.

use nexus_abi::syscall::{Kind, by_number};
use nexus_sys::seccomp::Notification;
use std::fmt::Write;

/// `name(0x1, 0x5412, …)`: the scalar arguments as the kernel reads them; a pointer is not shown, because what it points
/// to is not known.
pub(crate) fn describe(call: &Notification, foreign: bool) -> String {
    let number = call.number.cast_unsigned();
    if foreign {
        return format!("call {} of architecture {:#x}", call.number, call.arch);
    }
    let Some(known) = by_number(number) else {
        return format!("call {}", call.number);
    };
    let mut text = format!("{}(", known.name());
    for (index, value) in call.args.iter().enumerate().take(known.arguments()) {
        if index > 0 {
            text.push_str(", ");
        }
        let written = match known.argument(index) {
            Some(Kind::Scalar(width)) => write!(text, "{:#x}", value & width.mask()),
            Some(Kind::Pointer) if *value == 0 => write!(text, "NULL"),
            _ => write!(text, "…"),
        };
        // A String takes everything.
        if written.is_err() {
            break;
        }
    }
    text.push(')');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(name: &str, args: [u64; 6]) -> Notification {
        let number = nexus_abi::syscall::number(name).unwrap().cast_signed();
        Notification {
            id: 0,
            tid: 0,
            arch: 0,
            number,
            args,
        }
    }

    #[test]
    fn scalars_are_shown_as_the_kernel_reads_them_and_pointers_are_not() {
        let shown = describe(&call("ioctl", [1, 0xdead_0000_5412, 7, 0, 0, 0]), false);
        assert!(shown.starts_with("ioctl(0x1, 0x5412"), "{shown}");
        let shown = describe(&call("connect", [3, 0xdead_beef, 16, 0, 0, 0]), false);
        assert_eq!(shown, "connect(0x3, …, 0x10)");
    }
}
