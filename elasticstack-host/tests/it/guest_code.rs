//! A whole guest in one boot sector, so that a test of the hypervisor needs no image and a guest
//! boots in a fraction of a second.
//!
//! It prints `hello` on its first serial port. Then, 18 times a second, it powers itself off if the
//! power button was pressed, lets go of cards that are unplugged, and reads its disk's second sector;
//! the first byte there is a command: `o` power off; `p` panic; `k` keep cards that are unplugged;
//! `w` write the sector 63, print `written` and power off.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What the guest can be told through its disk.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Command {
    /// Go on, also after it was told otherwise and started anew.
    Wait,
    PowerOff,
    Panic,
    /// Not let go of cards that are unplugged.
    Keep,
    Write,
}

/// Real-mode code, loaded at 0x7c00.
#[rustfmt::skip]
const CODE: &[u8] = &[
    0x31, 0xc0,             // 00 xor ax, ax
    0x8e, 0xd8,             // 02 mov ds, ax
    0x8e, 0xc0,             // 04 mov es, ax
    0x8e, 0xd0,             // 06 mov ss, ax
    0xbc, 0x00, 0x7c,       // 08 mov sp, 0x7c00
    0xfc,                   // 0b cld
    0xba, 0x02, 0x06,       // 0c mov dx, 0x602         ; PM1_EN
    0xb8, 0x00, 0x01,       // 0f mov ax, 0x100         ; the power button
    0xef,                   // 12 out dx, ax
    0xbe, 0x81, 0x7c,       // 13 mov si, hello
    0xe8, 0x5c, 0x00,       // 16 call print
    // idle:
    0xfb,                   // 19 sti
    0xf4,                   //    hlt                   ; until the timer ticks
    0x80, 0x3e, 0x00, 0x7e, b'k', // cmp byte [0x7e00], 'k'
    0x74, 0x09,             //    je hold
    0xba, 0x04, 0xae,       //    mov dx, 0xae04        ; the cards to be ejected
    0x66, 0xed,             //    in eax, dx
    0xb2, 0x08,             //    mov dl, 8
    0x66, 0xef,             //    out dx, eax           ; eject them
    // hold:
    0xba, 0x00, 0x06,       // 2b mov dx, 0x600         ; PM1_STS
    0xed,                   // 2e in ax, dx
    0xf6, 0xc4, 0x01,       // 2f test ah, 1
    0x75, 0x2e,             // 32 jnz off
    0xb8, 0x01, 0x02,       // 34 mov ax, 0x0201        ; read one sector:
    0xb9, 0x02, 0x00,       // 37 mov cx, 2             ; the second
    0xba, 0x80, 0x00,       // 3a mov dx, 0x80
    0xbb, 0x00, 0x7e,       // 3d mov bx, 0x7e00
    0xcd, 0x13,             // 40 int 0x13
    0xa0, 0x00, 0x7e,       // 42 mov al, [0x7e00]
    0x3c, b'o',             // 45 cmp al, 'o'
    0x74, 0x19,             // 47 je off
    0x3c, b'p',             // 49 cmp al, 'p'
    0x74, 0x1e,             // 4b je panic
    0x3c, b'w',             // 4d cmp al, 'w'
    0x75, 0xc8,             // 4f jne idle
    0xb8, 0x01, 0x03,       // 51 mov ax, 0x0301        ; write one sector:
    0xb9, 0x01, 0x00,       // 54 mov cx, 1
    0xba, 0x80, 0x01,       // 57 mov dx, 0x180         ; head 1, which is sector 63
    0xcd, 0x13,             // 5a int 0x13
    0xbe, 0x89, 0x7c,       // 5c mov si, written
    0xe8, 0x13, 0x00,       // 5f call print
    // off:
    0xba, 0x04, 0x06,       // 62 mov dx, 0x604         ; PM1_CNT
    0xb8, 0x00, 0x20,       // 65 mov ax, 0x2000        ; SLP_EN, soft off
    0xef,                   // 68 out dx, ax
    0xeb, 0x06,             // 69 jmp halt
    // panic:
    0xba, 0x05, 0x05,       // 6b mov dx, 0x505         ; pvpanic
    0xb0, 0x01,             // 6e mov al, 1
    0xee,                   // 70 out dx, al
    // halt:
    0xfa,                   // 71 cli
    0xf4,                   // 72 hlt
    0xeb, 0xfc,             // 73 jmp halt
    // print:
    0xba, 0xf8, 0x03,       // 75 mov dx, 0x3f8         ; COM1
    0xac,                   // 78 lodsb
    0x84, 0xc0,             // 79 test al, al
    0x74, 0x03,             // 7b jz done
    0xee,                   // 7d out dx, al
    0xeb, 0xf8,             // 7e jmp 78
    0xc3,                   // 80 done: ret
    // hello, written:
    b'h', b'e', b'l', b'l', b'o', b'\r', b'\n', 0,
    b'w', b'r', b'i', b't', b't', b'e', b'n', b'\r', b'\n', 0,
];

/// The guest, as a disk begins with it.
pub(crate) fn boot_sector() -> Vec<u8> {
    let mut sector = CODE.to_vec();
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    sector
}

impl Command {
    /// The first byte of the disk's second sector.
    pub(crate) const fn byte(self) -> u8 {
        match self {
            Self::Wait => 0,
            Self::PowerOff => b'o',
            Self::Panic => b'p',
            Self::Keep => b'k',
            Self::Write => b'w',
        }
    }
}

/// Makes a disk of 1 MiB at `path` that boots this guest.
pub(crate) fn make_disk(path: &Path) -> io::Result<()> {
    let disk = File::create(path)?;
    disk.set_len(1 << 20)?;
    disk.write_all_at(&boot_sector(), 0)
}

/// Tells the guest that runs from the disk at `path` what to do.
pub(crate) fn command(path: &Path, command: Command) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all_at(&[command.byte()], 512)
}
