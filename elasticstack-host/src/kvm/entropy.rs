//! A source of random numbers as the guest finds it: virtio-rng (Virtual I/O Device 1.2, section 5.4).

use std::io::Write as _;
use std::sync::Arc;

use elasticstack_core::error::Result;
use tokio::task::coop::consume_budget;
use virtio_queue::{Queue, QueueT as _, Writer};
use vm_memory::GuestMemoryMmap;

use super::bell::{Bell, Ear};
use super::memory::Memory;
use super::mmio::{Line, Model, Serving};
use super::worker::Worker;

/// virtio-rng's number.
const KIND: u32 = 4;

/// Descriptors of the queue.
const DEPTH: [u16; 1] = [64];

/// How much one request is given at most; Linux asks for less.
const MOST: usize = 4096;

/// The device.
pub(super) struct Entropy {
    memory: Arc<Memory>,
    worker: Worker,
}

impl Entropy {
    /// # Errors
    /// `Internal` if there is no thread for it.
    pub(super) fn new(memory: Arc<Memory>) -> Result<Self> {
        Ok(Self { memory, worker: Worker::new("entropy")? })
    }
}

impl Model for Entropy {
    fn kind(&self) -> u32 {
        KIND
    }

    fn features(&self) -> u64 {
        0
    }

    fn queues(&self) -> &[u16] {
        &DEPTH
    }

    fn config(&self) -> Vec<u8> {
        Vec::new()
    }

    fn start(
        &self,
        _features: u64,
        queues: Vec<Option<Queue>>,
        line: Line,
        bell: Bell,
    ) -> Option<Box<dyn Serving>> {
        let queue = queues.into_iter().next().flatten()?;
        let memory = Arc::clone(&self.memory);
        self.worker.serve(bell, move |ear| async move { serve(&memory, queue, &ear, &line).await })
    }
}

async fn serve(
    memory: &GuestMemoryMmap,
    mut queue: Queue,
    ear: &Ear,
    line: &Line,
) -> Result<(), virtio_queue::Error> {
    loop {
        while let Some(chain) = queue.pop_descriptor_chain(memory) {
            let head = chain.head_index();
            let given = Writer::new(memory, chain).map_or(0, |mut to| give(&mut to).unwrap_or(0));
            line.give_back(&mut queue, memory, head, given)?;
            // However fast its driver is, the work can be ended.
            consume_budget().await;
        }
        ear.rung().await;
    }
}

/// Fills what there is room for, and says how much.
fn give(to: &mut Writer<'_>) -> Option<u32> {
    let mut random = vec![0; to.available_bytes().min(MOST)];
    getrandom::fill(&mut random).ok()?;
    to.write_all(&random).ok()?;
    u32::try_from(random.len()).ok()
}
