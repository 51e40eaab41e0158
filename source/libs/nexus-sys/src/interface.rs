//! Interfaces and their addresses.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;

/// More addresses than any host that people run programs on has; past it the list is an error, not cut.
pub const INTERFACE_ADDRESSES_MAX: usize = 16_384;

/// The size of a `struct ifreq` (linux/if.h) of a 64-bit program.
pub const REQUEST_BYTES: usize = size_of::<libc::ifreq>();

/// `ioctl(fd, SIOCGIFCONF, &list)` netdevice(7): the interfaces of the socket's network namespace that have an IPv4 address, as
/// entries of [`REQUEST_BYTES`]; returns how many bytes there are.
///
/// # Errors
/// `ENOTTY` for what is no socket; as netdevice(7).
pub fn list(fd: impl AsFd, into: &mut [u8]) -> io::Result<usize> {
    let length = libc::c_int::try_from(into.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let mut list = libc::ifconf {
        ifc_len: length,
        ifc_ifcu: libc::__c_anonymous_ifc_ifcu {
            ifcu_buf: into.as_mut_ptr().cast(),
        },
    };
    // SAFETY: SIOCGIFCONF writes to `list`, and at most `ifc_len` bytes to the buffer in it, which `into` lends for that long.
    crate::check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::SIOCGIFCONF, &raw mut list) }.into())?;
    Ok(usize::try_from(list.ifc_len).unwrap_or(0).min(into.len()))
}

/// `ioctl(fd, SIOCGIF…, &request)` netdevice(7): one question about an interface of the socket's network namespace.
///
/// # Errors
/// `EINVAL` for a command that is not one of those that only read; else as netdevice(7).
pub fn ask(fd: impl AsFd, command: u32, request: &mut [u8; REQUEST_BYTES]) -> io::Result<()> {
    const READS: [u32; 11] = [
        0x8910, 0x8913, 0x8915, 0x8917, 0x8919, 0x891b, 0x891d, 0x8921, 0x8927, 0x8933, 0x8942,
    ];
    if !READS.contains(&command) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: each of these commands reads and writes a `struct ifreq` and nothing else; `request` is as long and as an array of
    // bytes has any value.
    crate::check(
        unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::Ioctl::from(command), request.as_mut_ptr()) }.into(),
    )
    .map(drop)
}

struct List(*mut libc::ifaddrs);

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: the pointer is the one that getifaddrs gave, freed once.
        unsafe { libc::freeifaddrs(self.0) };
    }
}

/// `getifaddrs(&list)` getifaddrs(3): every address of every interface of the caller's network namespace, and the
/// broadcast addresses of its networks.
///
/// # Errors
/// As getifaddrs(3); `E2BIG` past [`INTERFACE_ADDRESSES_MAX`].
pub fn addresses() -> io::Result<Vec<IpAddr>> {
    let mut first = std::ptr::null_mut();
    // SAFETY: `first` is a live pointer for the call to write to.
    crate::check(unsafe { libc::getifaddrs(&raw mut first) }.into())?;
    let list = List(first);
    let mut found = Vec::new();
    let mut next = NonNull::new(list.0);
    while let Some(entry) = next {
        // SAFETY: the entry belongs to `list`, which lives until the end of this function.
        let entry = unsafe { entry.as_ref() };
        found.extend(address(entry.ifa_addr));
        if entry.ifa_flags & libc::IFF_BROADCAST as u32 != 0 {
            found.extend(address(entry.ifa_ifu));
        }
        if found.len() > INTERFACE_ADDRESSES_MAX {
            return Err(io::Error::from_raw_os_error(libc::E2BIG));
        }
        next = NonNull::new(entry.ifa_next);
    }
    Ok(found)
}

fn address(address: *const libc::sockaddr) -> Option<IpAddr> {
    if address.is_null() {
        return None;
    }
    // SAFETY: the pointer is not null and comes from getifaddrs, which makes every address at least a `sockaddr`.
    let family = unsafe { (*address).sa_family };
    match i32::from(family) {
        libc::AF_INET => {
            // SAFETY: the family says that the address is a `sockaddr_in`.
            let inet = unsafe { address.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(Ipv4Addr::from(u32::from_be(inet.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that the address is a `sockaddr_in6`.
            let inet6 = unsafe { address.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(Ipv6Addr::from(inet6.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_address_is_among_the_hosts() {
        assert!(addresses().unwrap().contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)));
    }
}
