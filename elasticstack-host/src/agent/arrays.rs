//! Orders for this host's arrays: one at a time, each in a thread of its own, so that nothing else waits for it,
//! nor it for anybody. It ends with the process, and goes on when it is given again.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use elasticstack_core::error::{Chain, Error, ErrorKind, Result};
use elasticstack_core::wire::arrays::{
    ArrayOrder, HostArrays, HostDisks, OrderProgress, OrderStatus,
};
use elasticstack_core::wire::internal::Fault;
use tokio::sync::watch;

use super::locked;
use crate::array::{self, Keeper, Order};
use crate::store::blocking;

/// Where orders are given and asked after.
#[derive(Debug)]
pub(crate) struct Desk {
    keeper: Arc<Keeper>,
    last: Mutex<Option<Given>>,
}

/// An order that was given.
#[derive(Debug, Clone)]
struct Given {
    order: ArrayOrder,
    progress: watch::Receiver<OrderProgress>,
}

impl Given {
    fn status(&self) -> OrderStatus {
        OrderStatus { order: self.order.clone(), progress: self.progress.borrow().clone() }
    }
}

impl Desk {
    pub(crate) fn new(keeper: Keeper) -> Self {
        Self { keeper: Arc::new(keeper), last: Mutex::default() }
    }

    /// The disks of this host.
    pub(crate) async fn disks(&self) -> Result<HostDisks> {
        blocking(array::disks).await
    }

    /// The arrays of this host, and the last order.
    pub(crate) async fn arrays(&self) -> Result<HostArrays> {
        let keeper = Arc::clone(&self.keeper);
        let arrays = blocking(move || keeper.arrays()).await?;
        Ok(HostArrays { arrays, order: locked(&self.last).as_ref().map(Given::status) })
    }

    /// Has an order carried out, unless that is under way, and waits some time for its end.
    ///
    /// # Errors
    /// `InvalidValue` for what is no order; `ResourceInUse` while another one is carried out; those of
    /// [`Keeper::carry_out`].
    ///
    /// # Cancel safety
    /// The order is carried out all the same.
    pub(crate) async fn order(&self, order: ArrayOrder, patience: Duration) -> Result<OrderStatus> {
        let parsed = Order::try_from(&order)?;
        let mut given = self.give(order, parsed)?;
        let is_over = |progress: &OrderProgress| *progress != OrderProgress::Working;
        // One that has not ended by then is told as it is.
        let _ = tokio::time::timeout(patience, given.progress.wait_for(is_over)).await;
        match given.status() {
            OrderStatus { progress: OrderProgress::Failed(fault), .. } => Err(fault.into()),
            status => Ok(status),
        }
    }

    /// The order, which is carried out from now on, if it was not before.
    fn give(&self, order: ArrayOrder, parsed: Order) -> Result<Given> {
        let mut last = locked(&self.last);
        let is_working = |given: &&Given| *given.progress.borrow() == OrderProgress::Working;
        match last.as_ref().filter(is_working) {
            Some(given) if given.order == order => return Ok(given.clone()),
            Some(_) => {
                let sentence =
                    "another order for this host's arrays is carried out: wait for its end";
                return Err(Error::new(ErrorKind::ResourceInUse, sentence));
            }
            None => {}
        }
        let (sender, progress) = watch::channel(OrderProgress::Working);
        let end = End { progress: sender, outcome: None };
        let keeper = Arc::clone(&self.keeper);
        // One that finds no thread, or breaks off, drops `end`, which says so.
        let work = move || end.with(keeper.carry_out(&parsed));
        let begun = thread::Builder::new().name("keeper".to_owned()).spawn(work);
        begun.map_err(|error| Error::internal("a thread for an order").source(error))?;
        Ok(last.insert(Given { order, progress }).clone())
    }
}

/// Says how an order ended when it is dropped, however that came.
struct End {
    progress: watch::Sender<OrderProgress>,
    outcome: Option<Result<()>>,
}

impl End {
    fn with(mut self, outcome: Result<()>) {
        self.outcome = Some(outcome);
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let broken = || Err(Error::internal("a thread that carried an order out broke off"));
        let progress = match self.outcome.take().unwrap_or_else(broken) {
            Ok(()) => OrderProgress::Done,
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "an order for arrays failed");
                OrderProgress::Failed(Fault::from(&error))
            }
        };
        self.progress.send_replace(progress);
    }
}
