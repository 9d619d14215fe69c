//! What a hostile guest does to its devices: any access to registers and ports, any bytes in its memory where
//! queues and requests lie. Nothing panics, and a device that was set up soundly is still served.
#![no_main]

use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, OnceLock};

use elasticstack_core::block::{BlockStore as _, Volume, Writing};
use elasticstack_core::generation::Epoch;
use elasticstack_core::sim::{SimStore, block_on};
use elasticstack_core::units::Bytes;
use elasticstack_host::kvm::{Board, Card, Devices, Drive, Space};
use libfuzzer_sys::fuzz_target;

const MEMORY: u64 = 1 << 20;
const DEVICES: u64 = 0xd000_0000;
/// More than any input needs.
const STEPS: usize = 512;

fn drive() -> Drive {
    static VOLUME: OnceLock<Arc<dyn Volume>> = OnceLock::new();
    let volume = VOLUME.get_or_init(|| {
        let store = SimStore::new(1, &[Bytes::from_mib(64)]);
        block_on(async {
            let drive = store.drive(Bytes::from_mib(1));
            store.create(&drive).await.unwrap();
            let volume: Arc<dyn Volume> = store.open(drive.drive, Epoch(1)).await.unwrap();
            volume
        })
    });
    Drive::new(Arc::clone(volume), Writing::Allowed, "fuzz".to_owned())
}

fn register(board: &Board, device: u64, at: u64, value: u32) {
    board.write(Space::Memory, DEVICES + device * 0x1000 + at, &value.to_le_bytes());
}

/// As a driver does it, with these features, its first queue from the second 4 KiB on, and one more if there is
/// one.
fn set_up(board: &Board, device: u64, features: u32) {
    for (at, value) in [
        (0x70, 0),
        (0x70, 3),
        (0x24, 1),
        (0x20, 1),
        (0x24, 0),
        (0x20, features),
        (0x70, 11),
        (0x38, 16),
        (0x80, 0x1000),
        (0x90, 0x2000),
        (0xa0, 0x3000),
        (0x44, 1),
        (0x30, 1),
        (0x38, 16),
        (0x80, 0x5000),
        (0x90, 0x6000),
        (0xa0, 0x7000),
        (0x44, 1),
        (0x30, 0),
        (0x70, 15),
    ] {
        register(board, device, at, value);
    }
}

fuzz_target!(|input: &[u8]| {
    let wire = |_| Ok(Box::new(|| {}) as Box<dyn Fn() + Send + Sync>);
    let (_wire, own) = UnixDatagram::pair().unwrap();
    own.set_nonblocking(true).unwrap();
    let cards = [Card::new(own.into(), [2, 0, 0, 0, 0, 1])];
    let devices = Devices { drives: &[drive()], cards: &cards };
    let board = Board::new(MEMORY, devices, std::io::sink(), |_| {}, wire).unwrap();
    for step in input.chunks(12).take(STEPS) {
        let &[what, device, low, high, ref data @ ..] = step else { break };
        let (device, at) = (u64::from(device % 3), u64::from(u16::from_le_bytes([low, high])));
        match what % 8 {
            0 => set_up(&board, device, u32::from(low) << 9 | u32::from(high) << 24),
            1 => register(&board, device, 0x50, 0),
            2 => board.write(Space::Memory, DEVICES + device * 0x1000 + at % 0x1000, data),
            3 => board.read(
                Space::Memory,
                DEVICES + device * 0x1000 + at % 0x1000,
                &mut data.to_vec(),
            ),
            4 => board.write(Space::Ports, 0x3f8 + at % 8, data),
            5 => board.write(Space::Ports, at, data),
            6 => board.read(Space::Ports, at, &mut data.to_vec()),
            _ => board.fill(0x1000 + at, data),
        }
    }
});
