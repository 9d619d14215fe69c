//! Where a run's VNC screen is served: port 5900, which old clients take for granted, of a
//! loopback address that the run has for itself.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use elasticstack_core::generation::Run;
use elasticstack_core::id::ServerId;

/// The port of VNC's display 0.
const PORT: u16 = 5900;
/// How many addresses are tried. That many taken in a row are no accident: something on this host
/// listens on the port of every address.
const ATTEMPTS: u8 = 16;

/// An address for the screen that nobody listens on now; `None` if none was found.
pub(super) fn free_address(server: ServerId, run: Run) -> Option<Ipv4Addr> {
    (0..ATTEMPTS)
        .map(|attempt| candidate(server, run, attempt))
        .find(|address| TcpListener::bind((*address, PORT)).is_ok())
}

/// The socket at which a client reaches the screen at `address`.
pub(super) fn socket(address: Ipv4Addr) -> SocketAddr {
    (address, PORT).into()
}

/// An address in 127.64.0.0/10, spread over (server, run, attempt).
fn candidate(server: ServerId, run: Run, attempt: u8) -> Ipv4Addr {
    // FNV-1a.
    let hash = server
        .as_uuid()
        .as_bytes()
        .iter()
        .chain(&run.0.to_le_bytes())
        .chain(&[attempt])
        .fold(0x811c_9dc5_u32, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 64, 0, 0)) | (hash >> 10))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn addresses_are_spread_over_their_block() {
        let server: ServerId = "5b0e3c52-0000-4000-8000-00000000d001".parse().unwrap();
        let addresses: HashSet<_> = (0..1000).map(|run| candidate(server, Run(run), 0)).collect();
        assert!(addresses.len() > 950, "{}", addresses.len());
        for address in addresses {
            let [first, second, ..] = address.octets();
            assert!(first == 127 && (64..128).contains(&second), "{address}");
        }
    }

    #[test]
    fn an_address_in_use_is_passed_over() {
        let server: ServerId = "5b0e3c52-0000-4000-8000-00000000d002".parse().unwrap();
        let first = free_address(server, Run(1)).unwrap();
        let _taken = TcpListener::bind((first, PORT)).unwrap();
        assert_ne!(free_address(server, Run(1)), Some(first));
    }
}
