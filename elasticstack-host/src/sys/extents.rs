//! How a file system lays a file out: in how many extents, and in what steps it is to give it room.
#![expect(unsafe_code, reason = "a file system is asked about a file's extents by ioctl")]

use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::AsRawFd as _;

use elasticstack_core::units::Bytes;
use nix::errno::Errno;

/// The flags of `struct fsxattr` that have its two hints count.
const EXTSIZE: u32 = 0x800;
const COWEXTSIZE: u32 = 0x1_0000;

/// `struct fsxattr` of `linux/fs.h`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct FsXattr {
    xflags: u32,
    extsize: u32,
    nextents: u32,
    projid: u32,
    cowextsize: u32,
    pad: [u8; 8],
}

/// `struct fiemap` of `linux/fiemap.h`, without room for extents.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Fiemap {
    start: u64,
    length: u64,
    flags: u32,
    mapped_extents: u32,
    extent_count: u32,
    reserved: u32,
}

mod ioctl {
    nix::ioctl_read!(fs_ioc_fsgetxattr, b'X', 31, super::FsXattr);
    nix::ioctl_write_ptr!(fs_ioc_fssetxattr, b'X', 32, super::FsXattr);
    nix::ioctl_readwrite!(fs_ioc_fiemap, b'f', 11, super::Fiemap);
}

/// In how many extents the bytes of a file are; `None` where its file system does not tell. What is
/// not written back yet may be in more of them once it is.
///
/// # Errors
/// What the kernel says.
pub fn count(file: &File) -> io::Result<Option<u64>> {
    let mut map = Fiemap { length: u64::MAX, ..Fiemap::default() };
    // JUSTIFICATION: no safe call counts extents; seeking sees only where holes are.
    // SAFETY: `map` is a `struct fiemap`, which lives and is ours alone during the call. Its count
    // of extents is 0, so that the kernel writes no extents behind it. The descriptor is open as
    // long as `file` is borrowed.
    match unsafe { ioctl::fs_ioc_fiemap(file.as_raw_fd(), &raw mut map) } {
        Ok(_) => Ok(Some(map.mapped_extents.into())),
        Err(error) if is_not_offered(error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Has the file system give an empty file room in steps of `step`, also where it shares blocks with
/// another one and no longer can; answers whether it does.
///
/// # Errors
/// What the kernel says.
pub fn set_step(file: &File, step: Bytes) -> io::Result<bool> {
    let mut hints = FsXattr::default();
    // JUSTIFICATION: no safe call reads these attributes.
    // SAFETY: `hints` is a `struct fsxattr`, which lives and is ours alone during the call, and of
    // which any bytes are a valid value. The descriptor is open as long as `file` is borrowed.
    let read = unsafe { ioctl::fs_ioc_fsgetxattr(file.as_raw_fd(), &raw mut hints) };
    let wanted = u32::try_from(step.get()).map_err(io::Error::other)?;
    hints.xflags |= EXTSIZE | COWEXTSIZE;
    (hints.extsize, hints.cowextsize) = (wanted, wanted);
    let set = read.and_then(|_| {
        // JUSTIFICATION: no safe call writes these attributes.
        // SAFETY: `hints` is a `struct fsxattr` that lives during the call, which only reads it.
        // The descriptor is open as long as `file` is borrowed.
        unsafe { ioctl::fs_ioc_fssetxattr(file.as_raw_fd(), &raw const hints) }
    });
    match set {
        Ok(_) => Ok(true),
        // Also a step that this file system is too small for.
        Err(Errno::EINVAL) => Ok(false),
        Err(error) if is_not_offered(error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn is_not_offered(error: Errno) -> bool {
    [Errno::EOPNOTSUPP, Errno::ENOTTY, Errno::ENOSYS].contains(&error)
}

// What the kernel's headers say.
const _: () = assert!(mem::size_of::<FsXattr>() == 28 && mem::size_of::<Fiemap>() == 32);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    #[test]
    fn a_file_without_bytes_is_in_no_extents_and_holes_part_them() {
        let file = tempfile::tempfile().unwrap();
        let Some(none) = count(&file).unwrap() else {
            panic!("the file system of temporary files tells no extents: set TMPDIR to another one")
        };
        assert_eq!(none, 0);
        for offset in [0, 1 << 20, 2 << 20] {
            file.write_all_at(&[7; 4096], offset).unwrap();
        }
        file.sync_all().unwrap();
        assert_eq!(count(&file).unwrap(), Some(3));
    }

    #[test]
    fn where_no_steps_are_offered_nothing_fails() {
        let null = File::open("/dev/null").unwrap();
        assert_eq!(count(&null).unwrap(), None);
        assert!(!set_step(&null, Bytes::from_mib(1)).unwrap());
    }
}
