//! Control messages: what may go along with data. cmsg(3).

use crate::caller::Caller;
use crate::taken::Taken;
use crate::{Denial, Stop};
use nexus_abi::{Errno, Operation, Reason};

/// One control message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) level: i32,
    pub(crate) kind: i32,
    pub(crate) data: Vec<u8>,
}

/// `struct cmsghdr`, of a 64-bit program.
const HEADER_BYTES: usize = 16;

const SOL_SOCKET: i32 = 1;
const SCM_RIGHTS: i32 = 1;
const SCM_CREDENTIALS: i32 = 2;

/// What a datagram may carry: how it is marked and cut, never where it goes or comes from. Everything else may: source
/// routes (IP_RETOPTS, IPV6_RTHDR), options that hold such (IPV6_HOPOPTS, IPV6_DSTOPTS), another interface or source
/// (IP_PKTINFO, IPV6_PKTINFO), a mark (SO_MARK).
const HARMLESS: &[(i32, i32)] = &[
    (0, 1),    // IP_TOS
    (0, 2),    // IP_TTL
    (17, 103), // UDP_SEGMENT
    (41, 52),  // IPV6_HOPLIMIT
    (41, 67),  // IPV6_TCLASS
];

/// Reads control messages as the kernel does (`for_each_cmsghdr`, `CMSG_OK`).
pub(crate) fn parse(bytes: &[u8]) -> Result<Vec<Part>, Errno> {
    let mut parts = Vec::new();
    let mut rest = bytes;
    // Fewer bytes than a header at the end mean nothing.
    while let Some((header, _)) = rest.split_first_chunk::<HEADER_BYTES>() {
        let [l0, l1, l2, l3, l4, l5, l6, l7, a, b, c, d, e, f, g, h] = *header;
        let length =
            usize::try_from(u64::from_ne_bytes([l0, l1, l2, l3, l4, l5, l6, l7])).map_err(|_| Errno::EINVAL)?;
        let data = rest.get(HEADER_BYTES..length).ok_or(Errno::EINVAL)?;
        parts.push(Part {
            level: i32::from_ne_bytes([a, b, c, d]),
            kind: i32::from_ne_bytes([e, f, g, h]),
            data: data.to_vec(),
        });
        let next = length.checked_next_multiple_of(8).ok_or(Errno::EINVAL)?;
        rest = rest.get(next..).unwrap_or_default();
    }
    Ok(parts)
}

/// What goes along with a datagram or a stream of the internet.
pub(crate) fn of_internet(bytes: &[u8]) -> Result<Vec<Part>, Stop> {
    let parts = parse(bytes)?;
    match parts.iter().find(|part| !HARMLESS.contains(&(part.level, part.kind))) {
        None => Ok(parts),
        Some(part) => Err(Stop::Denied(Denial {
            operation: Operation::Send,
            object: format!("control message {} of level {}", part.kind, part.level),
            reason: Reason::EgressControl,
            errno: Errno::EPERM,
            rule: None,
        })),
    }
}

/// Whether a `struct ucred` (unix(7)) is whole and names this process as it sees itself.
fn names(credentials: &[u8], process: i32) -> bool {
    const UCRED_BYTES: usize = 12;
    let pid = credentials.first_chunk::<4>().map(|bytes| i32::from_ne_bytes(*bytes));
    credentials.len() == UCRED_BYTES && pid == Some(process)
}

/// The descriptors that go along with a message between the program's own processes.
pub(crate) fn rights(bytes: &[u8], caller: &Caller<'_>) -> Result<Vec<Taken>, Stop> {
    let mut rights = Vec::new();
    for part in parse(bytes)? {
        match (part.level, part.kind) {
            (SOL_SOCKET, SCM_RIGHTS) => {
                for number in part.data.chunks_exact(4) {
                    let number = number.try_into().map_or(-1, i32::from_ne_bytes);
                    if rights.len() >= nexus_sys::message::RIGHTS_MAX {
                        return Err(Errno::EINVAL.into());
                    }
                    rights.push(caller.take(u64::from(number.cast_unsigned()))?);
                }
            }
            // Who sends is known without it; nobody here may say that he is somebody else. unix(7).
            (SOL_SOCKET, SCM_CREDENTIALS) => {
                if !names(&part.data, caller.inner_process()?) {
                    return Err(Errno::EPERM.into());
                }
            }
            _ => return Err(Errno::EINVAL.into()),
        }
    }
    Ok(rights)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
        let mut bytes = (HEADER_BYTES + data.len()).to_ne_bytes().to_vec();
        bytes.extend(level.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    #[test]
    fn marks_and_segments_go_along_and_sources_and_routes_do_not() {
        let fine = [message(0, 1, &[4, 0, 0, 0]), message(17, 103, &[0, 4])].concat();
        assert_eq!(of_internet(&fine).unwrap().len(), 2);
        for (level, kind) in [
            (0, 8),
            (0, 7),
            (41, 50),
            (41, 57),
            (41, 54),
            (41, 59),
            (1, 36),
            (1, 1),
            (1, 61),
            (9, 9),
        ] {
            let bad = [message(0, 1, &[4, 0, 0, 0]), message(level, kind, &[0; 40])].concat();
            assert!(
                matches!(of_internet(&bad), Err(Stop::Denied(denial)) if denial.reason == Reason::EgressControl),
                "{level} {kind}"
            );
        }
    }

    #[test]
    fn lengths_that_lie_are_refused_and_a_rest_means_nothing() {
        let good = message(0, 1, &[1, 2, 3]);
        assert_eq!(parse(&good).unwrap()[0].data, [1, 2, 3]);
        assert_eq!(parse(&[&good[..], &[0; 15]].concat()).unwrap().len(), 1);
        for length in [0_u64, 15, 21, 1 << 40, u64::MAX, u64::MAX - 6] {
            let mut bad = good.clone();
            bad.truncate(20);
            bad[..8].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(parse(&bad), Err(Errno::EINVAL), "{length}");
        }
        assert_eq!(parse(&[]), Ok(vec![]));
    }

    #[test]
    fn a_sender_names_itself_and_no_other_process() {
        let credentials = |pid: i32| [&pid.to_ne_bytes()[..], &[0; 8]].concat();
        assert!(names(&credentials(7), 7));
        for (bytes, who) in [
            (credentials(8), "its neighbour"),
            (credentials(1), "init"),
            (credentials(0), "the supervisor"),
            (credentials(-7), "a group"),
            (credentials(7)[..11].to_vec(), "itself, cut"),
            ([&credentials(7)[..], &[0]].concat(), "itself, and more"),
            (Vec::new(), "nobody"),
        ] {
            assert!(!names(&bytes, 7), "{who}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            if let Ok(parts) = parse(&bytes) {
                let total: usize = parts.iter().map(|part| part.data.len() + HEADER_BYTES).sum();
                proptest::prop_assert!(total <= bytes.len());
            }
        }
    }
}
