//! A whole guest as small as can be, in the form of a Linux kernel, so that a test needs no image and runs on any
//! `/dev/kvm`, those that can't run Linux too.
//!
//! It prints `hello` on its serial port. Then, over and over, it reads the second sector of its first drive; the first
//! byte there is a command: `o` power off; `p` panic; `r` start anew; `w` write the sector 63, print `written` and
//! power off.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// What the guest can be told through its drive.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Command {
    /// Go on, also after it was told otherwise and started anew.
    Wait,
    PowerOff,
    Panic,
    Reset,
    Write,
}

/// 32-bit code at 0x100000, with its device's queue behind it; what follows is zero.
#[rustfmt::skip]
const CODE: &[u8] = &[
    0xbc, 0x00, 0x00, 0x08, 0x00,                                 // mov esp, 0x80000
    0xbe, 0xf6, 0x00, 0x10, 0x00,                                 // mov esi, hello
    0xe8, 0xda, 0x00, 0x00, 0x00,                                 // call print
    0xbf, 0x00, 0x00, 0x00, 0xd0,                                 // mov edi, 0xd0000000
    0xc7, 0x47, 0x70, 0x00, 0x00, 0x00, 0x00,                     // mov [edi+0x70], 0x0
    0xc7, 0x47, 0x70, 0x03, 0x00, 0x00, 0x00,                     // mov [edi+0x70], 0x3
    0xc7, 0x47, 0x24, 0x01, 0x00, 0x00, 0x00,                     // mov [edi+0x24], 0x1
    0xc7, 0x47, 0x20, 0x01, 0x00, 0x00, 0x00,                     // mov [edi+0x20], 0x1
    0xc7, 0x47, 0x70, 0x0b, 0x00, 0x00, 0x00,                     // mov [edi+0x70], 0xb
    0xc7, 0x47, 0x38, 0x08, 0x00, 0x00, 0x00,                     // mov [edi+0x38], 0x8
    0xc7, 0x87, 0x80, 0x00, 0x00, 0x00, 0x10, 0x01, 0x10, 0x00,   // mov [edi+0x80], descriptors
    0xc7, 0x87, 0x90, 0x00, 0x00, 0x00, 0x52, 0x01, 0x10, 0x00,   // mov [edi+0x90], available
    0xc7, 0x87, 0xa0, 0x00, 0x00, 0x00, 0x68, 0x01, 0x10, 0x00,   // mov [edi+0xa0], used
    0xc7, 0x47, 0x44, 0x01, 0x00, 0x00, 0x00,                     // mov [edi+0x44], 0x1
    0xc7, 0x47, 0x70, 0x0f, 0x00, 0x00, 0x00,                     // mov [edi+0x70], 0xf
    // idle:
    0xb9, 0x00, 0x00, 0x01, 0x00,                                 // mov ecx, 0x10000
    // wait:
    0xe2, 0xfe,                                                   // loop wait
    0xe8, 0x55, 0x00, 0x00, 0x00,                                 // call ask
    0xa0, 0xac, 0x01, 0x10, 0x00,                                 // mov al, [data]
    0x3c, 0x6f,                                                   // cmp al, 0x6f
    0x74, 0x2f,                                                   // je off
    0x3c, 0x70,                                                   // cmp al, 0x70
    0x74, 0x34,                                                   // je panic
    0x3c, 0x72,                                                   // cmp al, 0x72
    0x74, 0x39,                                                   // je reset
    0x3c, 0x77,                                                   // cmp al, 0x77
    0x75, 0xdf,                                                   // jne idle
    0xff, 0x05, 0x40, 0x01, 0x10, 0x00,                           // inc [header]
    0xc6, 0x05, 0x48, 0x01, 0x10, 0x00, 0x3f,                     // mov [header + 8], 0x3f
    0x80, 0x25, 0x2c, 0x01, 0x10, 0x00, 0xfd,                     // and [flags], 0xfd
    0xe8, 0x27, 0x00, 0x00, 0x00,                                 // call ask
    0xbe, 0xfe, 0x00, 0x10, 0x00,                                 // mov esi, written
    0xe8, 0x3b, 0x00, 0x00, 0x00,                                 // call print
    // off:
    0x66, 0xba, 0x00, 0x06,                                       // mov dx, 0x600
    0xb0, 0x34,                                                   // mov al, 0x34
    0xee,                                                         // out dx, al
    0xeb, 0x10,                                                   // jmp halt
    // panic:
    0x66, 0xba, 0x05, 0x05,                                       // mov dx, 0x505
    0xb0, 0x01,                                                   // mov al, 0x1
    0xee,                                                         // out dx, al
    0xeb, 0x07,                                                   // jmp halt
    // reset:
    0x66, 0xba, 0x02, 0x06,                                       // mov dx, 0x602
    0xb0, 0x01,                                                   // mov al, 0x1
    0xee,                                                         // out dx, al
    // halt:
    0xfa,                                                         // cli
    0xf4,                                                         // hlt
    0xeb, 0xfc,                                                   // jmp halt
    // ask:
    0x66, 0xff, 0x05, 0x54, 0x01, 0x10, 0x00,                     // inc [available + 2]
    0xc7, 0x47, 0x50, 0x00, 0x00, 0x00, 0x00,                     // mov [edi+0x50], 0x0
    // asked:
    0x66, 0xa1, 0x6a, 0x01, 0x10, 0x00,                           // mov ax, [used + 2]
    0x66, 0x3b, 0x05, 0x54, 0x01, 0x10, 0x00,                     // cmp ax, [available + 2]
    0x75, 0xf1,                                                   // jne asked
    0xc3,                                                         // ret
    // print:
    0x66, 0xba, 0xf8, 0x03,                                       // mov dx, 0x3f8
    // next:
    0xac,                                                         // lods al, ds:[esi]
    0x84, 0xc0,                                                   // test al, al
    0x74, 0x03,                                                   // je printed
    0xee,                                                         // out dx, al
    0xeb, 0xf8,                                                   // jmp next
    // printed:
    0xc3,                                                         // ret
    b'h', b'e', b'l', b'l', b'o', b'\r', b'\n', 0, // hello
    b'w', b'r', b'i', b't', b't', b'e', b'n', b'\r', b'\n', 0, // written
    0, 0, 0, 0, 0, 0, 0, 0,
    0x40, 0x01, 0x10, 0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x00, 0x00, 0x00, 0x01, 0x00, 0x01, 0x00, // descriptors: the header;
    0xac, 0x01, 0x10, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x03, 0x00, 0x02, 0x00, // the data, which the device writes unless flags say otherwise;
    0x50, 0x01, 0x10, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, // the status
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // header: a read of sector 1
];

/// Writes the guest as a bzImage (Documentation/arch/x86/boot.rst).
pub(crate) fn make_kernel(path: &Path) -> io::Result<()> {
    let mut image = vec![0; 1024];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]); // setup_sects
    put(0x1fe, &[0x55, 0xaa]); // boot_flag
    put(0x202, b"HdrS");
    put(0x206, &0x020c_u16.to_le_bytes()); // version
    put(0x211, &[1]); // loadflags: LOADED_HIGH
    put(0x214, &0x10_0000_u32.to_le_bytes()); // code32_start
    put(0x22c, &0x7fff_ffff_u32.to_le_bytes()); // initrd_addr_max
    put(0x260, &0x1000_u32.to_le_bytes()); // init_size
    fs::write(path, [&image, CODE].concat())
}

/// Makes a drive of 1 MiB.
pub(crate) fn make_drive(path: &Path) -> io::Result<()> {
    File::create(path)?.set_len(1 << 20)
}

/// Tells the guest that runs on the drive at `path` what to do.
pub(crate) fn command(path: &Path, command: Command) -> io::Result<()> {
    let byte = match command {
        Command::Wait => 0,
        Command::PowerOff => b'o',
        Command::Panic => b'p',
        Command::Reset => b'r',
        Command::Write => b'w',
    };
    File::options().write(true).open(path)?.write_all_at(&[byte], 512)
}
