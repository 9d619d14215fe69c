//! The newest of what a guest wrote to its serial port, until somebody takes it.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use crate::guests::nodes::SERIAL_RING;

/// The ring. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Ring(Arc<Mutex<VecDeque<u8>>>);

impl Ring {
    /// Takes all that is there.
    pub(super) fn take(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect()
    }
}

impl Write for Ring {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ring.extend(bytes);
        let beyond = ring.len().saturating_sub(SERIAL_RING);
        ring.drain(..beyond);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_kept_and_taken_once() {
        let mut ring = Ring::default();
        ring.write_all(b"old").unwrap();
        ring.write_all(&vec![b'x'; SERIAL_RING - 1]).unwrap();
        let taken = ring.clone().take();
        assert_eq!(taken.len(), SERIAL_RING);
        assert!(taken.starts_with(b"dx"));
        assert_eq!(ring.take(), b"");
    }
}
