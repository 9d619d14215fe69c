//! qcow2 and VMDK: whatever a drive holds, reading a disk out of it ends, in a disk or in a reason that
//! its owner is told.
#![no_main]

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes as Data;
use elasticstack_core::block::{Attachment, Volume};
use elasticstack_core::prelude::*;
use elasticstack_core::wire::internal::Conversion;
use elasticstack_host::image::image;
use libfuzzer_sys::fuzz_target;

/// A drive in memory.
struct Memory(Mutex<Vec<u8>>);

impl Memory {
    fn drive(bytes: Vec<u8>) -> Arc<dyn Volume> {
        Arc::new(Self(Mutex::new(bytes)))
    }

    /// Does something to a range, which is to lie on the drive.
    fn on(&self, offset: Bytes, length: usize, act: impl FnOnce(&mut [u8])) -> Result<()> {
        let start = usize::try_from(offset.get()).unwrap();
        act(&mut self.0.lock().unwrap()[start..start + length]);
        Ok(())
    }
}

#[async_trait]
impl Volume for Memory {
    fn size(&self) -> Bytes {
        Bytes::try_from(u64::try_from(self.0.lock().unwrap().len()).unwrap()).unwrap()
    }

    fn block_size(&self) -> Bytes {
        Bytes::from_kib(4)
    }

    async fn read_at(&self, offset: Bytes, buffer: &mut [u8]) -> Result<()> {
        self.on(offset, buffer.len(), |from| buffer.copy_from_slice(from))
    }

    async fn write_at(&self, offset: Bytes, data: Data) -> Result<()> {
        self.on(offset, data.len(), |to| to.copy_from_slice(&data))
    }

    async fn flush(&self) -> Result<()> {
        Ok(())
    }

    async fn discard(&self, offset: Bytes, length: Bytes) -> Result<()> {
        let length = usize::try_from(length.get()).unwrap();
        self.on(offset, length, |range| range.fill(0))
    }

    fn attachment(&self) -> Option<Attachment> {
        None
    }
}

fuzz_target!(|input: (bool, &[u8])| {
    let (is_vmdk, bytes) = input;
    let conversion = if is_vmdk { Conversion::Vmdk } else { Conversion::Qcow2 };
    let (source, target) = (Memory::drive(bytes.to_vec()), Memory::drive(vec![1; 1 << 18]));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    if let Err(error) = runtime.block_on(image(source, target, conversion, &|_| {})) {
        assert_eq!(error.kind(), ErrorKind::JobFailed, "{error:?}");
    }
});
