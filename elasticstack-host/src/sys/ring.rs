//! Many writes of a file at once, by io_uring: handed to the kernel by one call, and waited for by the
//! same. Nothing of a ring outlives the call that uses it.
#![expect(unsafe_code, reason = "the kernel reads the memory that a submission names")]

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::time::Duration;

use io_uring::{IoUring, opcode, types};

/// The most writes that the kernel has at once. Its own queue of what is done holds twice as many.
const ENTRIES: u32 = 64;

/// How long nothing is asked of a kernel that has no memory for it.
const PAUSE: Duration = Duration::from_millis(1);

/// A queue of writes, shared with the kernel.
pub struct Ring {
    ring: IoUring,
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").finish_non_exhaustive()
    }
}

impl Ring {
    /// An empty ring. A process that is killed is gone before the writes of its rings are: `held` is
    /// open, and whatever lock it has is kept, until the last of them has ended.
    ///
    /// # Errors
    /// Where the kernel has no io_uring or does not permit it.
    pub fn new(held: BorrowedFd<'_>) -> io::Result<Self> {
        let ring = IoUring::new(ENTRIES)?;
        ring.submitter().register_files(&[held.as_raw_fd()])?;
        Ok(Self { ring })
    }

    /// Writes each piece, which is an offset in bytes and what is to be there, all at once. Blocks until
    /// the last has ended, and answers for each, in their order.
    pub fn write_all(&mut self, file: &File, pieces: &[(u64, &[u8])]) -> Vec<io::Result<()>> {
        let mut results: Vec<_> = pieces.iter().map(|_| Ok(())).collect();
        let mut rests: VecDeque<_> = pieces.iter().copied().enumerate().collect();
        let mut in_flight = VecDeque::new();
        while !(rests.is_empty() && in_flight.is_empty()) {
            self.push(file, &mut rests, &mut in_flight);
            // What the kernel has it reads from: there is no way out of here but its answers.
            if let Err(error) = self.ring.submit_and_wait(in_flight.len())
                && error.kind() != io::ErrorKind::Interrupted
            {
                std::thread::sleep(PAUSE);
            }
            for done in self.ring.completion() {
                let is_it = |(index, _): &(usize, _)| u64::try_from(*index) == Ok(done.user_data());
                let place = in_flight.iter().position(is_it);
                let Some((index, piece)) = place.and_then(|place| in_flight.remove(place)) else {
                    continue;
                };
                match (rest_of(piece, done.result()), results.get_mut(index)) {
                    (Ok(Some(rest)), _) => rests.push_back((index, rest)),
                    (Err(error), Some(result)) => *result = Err(error),
                    (Ok(None) | Err(_), _) => {}
                }
            }
        }
        results
    }

    fn push<'a>(
        &mut self,
        file: &File,
        rests: &mut VecDeque<(usize, (u64, &'a [u8]))>,
        in_flight: &mut VecDeque<(usize, (u64, &'a [u8]))>,
    ) {
        let mut submission = self.ring.submission();
        while in_flight.len() < submission.capacity()
            && let Some((index, (offset, bytes))) = rests.pop_front()
        {
            let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            let write = opcode::Write::new(types::Fd(file.as_raw_fd()), bytes.as_ptr(), length)
                .offset(offset)
                .build()
                .user_data(u64::try_from(index).unwrap_or(u64::MAX));
            // JUSTIFICATION: the kernel is told where bytes are, which no reference can be.
            // SAFETY: `write` names `length` bytes or fewer at `bytes`, which `write_all` has borrowed
            // until it returns, and a descriptor that is open as long as `file` is borrowed there. It
            // does not return before the kernel has answered for all of `in_flight`, and has nothing
            // that panics.
            let pushed = unsafe { submission.push(&write) };
            if pushed.is_err() {
                rests.push_front((index, (offset, bytes)));
                return;
            }
            in_flight.push_back((index, (offset, bytes)));
        }
    }
}

/// What is left of a piece that was answered with `result`: a length, or an error's number below zero.
fn rest_of((offset, bytes): (u64, &[u8]), result: i32) -> io::Result<Option<(u64, &[u8])>> {
    let Ok(written) = usize::try_from(result) else {
        return Err(io::Error::from_raw_os_error(result.saturating_neg()));
    };
    match bytes.get(written..) {
        _ if bytes.is_empty() => Ok(None),
        Some(_) if written == 0 => Err(io::ErrorKind::WriteZero.into()),
        Some(rest) if !rest.is_empty() => {
            Ok(Some((offset.saturating_add(u64::try_from(written).unwrap_or(u64::MAX)), rest)))
        }
        Some(_) | None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::fd::AsFd as _;

    use rustix::fs::{FlockOperation, flock};

    use super::*;

    #[test]
    fn more_writes_than_a_ring_holds_are_all_done_and_each_is_answered_for() {
        let mut file = tempfile::tempfile().unwrap();
        let mut ring = Ring::new(file.as_fd()).unwrap();
        let blocks: Vec<_> = (0..200_u8).map(|number| vec![number + 1; 512]).collect();
        let pieces: Vec<_> = (0_u64..).step_by(512).zip(blocks.iter().map(Vec::as_slice)).collect();
        assert!(ring.write_all(&file, &pieces).iter().all(Result::is_ok));
        let mut written = Vec::new();
        file.read_to_end(&mut written).unwrap();
        assert_eq!(written, blocks.concat());
    }

    #[test]
    fn a_write_that_fails_is_told_from_those_that_do_not() {
        let readable = tempfile::NamedTempFile::new().unwrap();
        let file = File::open(readable.path()).unwrap();
        let mut ring = Ring::new(file.as_fd()).unwrap();
        let results = ring.write_all(&file, &[(0, b"no")]);
        assert_eq!(results[0].as_ref().unwrap_err().raw_os_error(), Some(9), "EBADF");
        let file = File::options().write(true).open(readable.path()).unwrap();
        let results = ring.write_all(&file, &[(0, b"yes"), (1 << 63, b"no"), (3, b"too")]);
        assert!(results[0].is_ok() && results[2].is_ok(), "{results:?}");
        assert_eq!(results[1].as_ref().unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn what_is_left_of_a_write_is_what_the_kernel_did_not_take() {
        assert!(matches!(rest_of((8, b"abc"), 3), Ok(None)));
        assert!(matches!(rest_of((8, b"abc"), 2), Ok(Some((10, b"c")))));
        assert!(matches!(rest_of((8, b""), 0), Ok(None)));
        assert_eq!(rest_of((8, b"abc"), 0).unwrap_err().kind(), io::ErrorKind::WriteZero);
        assert_eq!(rest_of((8, b"abc"), -28).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn a_lock_is_held_until_the_ring_that_has_it_is_gone() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let lock = File::open(path.path()).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        let ring = Ring::new(lock.as_fd()).unwrap();
        drop(lock);
        let other = File::open(path.path()).unwrap();
        let refused = flock(&other, FlockOperation::NonBlockingLockExclusive);
        assert_eq!(refused, Err(rustix::io::Errno::WOULDBLOCK));
        drop(ring);
        flock(&other, FlockOperation::LockExclusive).unwrap();
    }
}
