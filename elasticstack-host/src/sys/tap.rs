//! A network interface whose wire is a file (Documentation/networking/tuntap.rst).
#![expect(unsafe_code, reason = "interfaces are made and plugged into bridges by ioctl")]

use std::fs::File;
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use nix::libc::{IFF_MULTICAST, IFF_NO_PI, IFF_TAP, IFF_UP, c_int};
use rustix::fs::OFlags;

/// `struct ifreq` of `linux/if.h`: of what it tells of an interface, only what begins it is of use here.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct IfReq {
    name: [u8; 16],
    flags_or_index: [u8; 4],
    rest: [u8; 20],
}

mod ioctl {
    use nix::libc::{SIOCGIFINDEX, SIOCSIFFLAGS, TUNSETIFF};

    use super::IfReq;

    /// `SIOCBRADDIF` of `linux/sockios.h`.
    const SIOCBRADDIF: u64 = 0x89a2;

    nix::ioctl_readwrite_bad!(tun_set_iff, TUNSETIFF, IfReq);
    nix::ioctl_readwrite_bad!(get_if_index, SIOCGIFINDEX, IfReq);
    nix::ioctl_readwrite_bad!(set_if_flags, SIOCSIFFLAGS, IfReq);
    nix::ioctl_readwrite_bad!(bridge_add_if, SIOCBRADDIF, IfReq);
}

/// Makes an interface that is there for as long as the answer is open, and plugs it into a bridge. Each read
/// gives a whole Ethernet frame, each write takes one; neither blocks.
///
/// # Errors
/// What the kernel says: that there is no such bridge, or that the caller may not make interfaces.
pub fn open(bridge: &str) -> io::Result<OwnedFd> {
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let mut options = File::options();
    let wire = options.read(true).write(true).custom_flags(nonblocking).open("/dev/net/tun")?;
    let mut tap = IfReq::new("guest%d")?;
    tap.set_flags(IFF_TAP | IFF_NO_PI);
    call(ioctl::tun_set_iff, &wire, &mut tap)?;
    // By any socket; nothing is sent by it.
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    call(ioctl::get_if_index, &socket, &mut tap)?;
    let mut member = IfReq { flags_or_index: tap.flags_or_index, ..IfReq::new(bridge)? };
    call(ioctl::bridge_add_if, &socket, &mut member)?;
    tap.set_flags(IFF_UP | IFF_MULTICAST);
    call(ioctl::set_if_flags, &socket, &mut tap)?;
    Ok(wire.into())
}

impl IfReq {
    fn new(name: &str) -> io::Result<Self> {
        let mut room = [0; 16];
        // Behind it there is a zero.
        let place = room[..15].get_mut(..name.len()).filter(|_| !name.is_empty());
        let Some(place) = place else {
            let sentence = format!("{name:?} names no interface: 1 to 15 bytes do");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, sentence));
        };
        place.copy_from_slice(name.as_bytes());
        Ok(Self { name: room, flags_or_index: [0; 4], rest: [0; 20] })
    }

    fn set_flags(&mut self, flags: c_int) {
        let [low, high, ..] = flags.to_ne_bytes();
        self.flags_or_index = [low, high, 0, 0];
    }
}

type Call = unsafe fn(c_int, *mut IfReq) -> nix::Result<c_int>;

fn call(call: Call, at: &impl AsRawFd, request: &mut IfReq) -> io::Result<()> {
    // JUSTIFICATION: no safe call makes a tap, and none plugs it in.
    // SAFETY: each of the calls reads and writes one `struct ifreq`, which lives and is ours alone during the
    // call, and keeps no pointer to it. The descriptor is open as long as `at` is borrowed.
    unsafe { call(at.as_raw_fd(), request) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_name_no_bridge_is_refused() {
        for name in ["", "a-name-of-16-bts", "a-name-that-is-far-longer-than-an-interface's"] {
            let refused = IfReq::new(name).map(|_| ()).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{name}");
        }
        assert_eq!(IfReq::new("a-name-of-15-by").unwrap().name[15], 0);
    }
}
