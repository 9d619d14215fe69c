//! What keeps machines awake. A processor that QEMU translates and that runs guests of its own can lose an
//! interrupt (QEMU 7.2's `helper_vmrun` changes what is pending without the lock that its devices hold), and if
//! that was its timer's, it sleeps for ever. Any other interrupt brings the lost one back: so each machine gets
//! a frame now and then, of a kind that nobody listens to.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt;

use super::NETWORK;

/// How often.
const EVERY: Duration = Duration::from_millis(500);

/// An Ethernet frame to all, from nobody, of the type for local experiments (IEEE 802, 88b5).
const FRAME: [u8; 60] = {
    let mut frame = [0; 60];
    let header = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0, 0x77, 0, 0, 0x88, 0xb5];
    let mut at = 0;
    while at < header.len() {
        frame[at] = header[at];
        at += 1;
    }
    frame
};

/// Sends the frames on a lab's network until it is dropped.
#[derive(Debug)]
pub(crate) struct Pulse {
    _end: Sender<()>,
}

impl Pulse {
    pub(crate) fn start(port: u16) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        sockopt::set_ip_multicast_if(&socket, &Ipv4Addr::LOCALHOST)?;
        let (end, ended) = channel();
        let beat = move || {
            while ended.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                // There may be no machine yet, or none any more.
                let _ = socket.send_to(&FRAME, (NETWORK, port));
            }
        };
        thread::Builder::new().name("pulse".to_owned()).spawn(beat)?;
        Ok(Self { _end: end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_on_the_network_hears_it_until_the_lab_is_gone() {
        let socket = UdpSocket::bind((NETWORK, 0)).unwrap();
        socket.join_multicast_v4(&NETWORK, &Ipv4Addr::LOCALHOST).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let pulse = Pulse::start(socket.local_addr().unwrap().port()).unwrap();
        let mut heard = [0; 100];
        for _ in 0..2 {
            assert_eq!(socket.recv(&mut heard).unwrap(), FRAME.len());
            assert_eq!(heard[..FRAME.len()], FRAME);
        }
        drop(pulse);
        socket.set_read_timeout(Some(3 * EVERY)).unwrap();
        // One may be under way.
        let _ = socket.recv(&mut heard);
        assert!(socket.recv(&mut heard).is_err(), "it goes on");
    }
}
