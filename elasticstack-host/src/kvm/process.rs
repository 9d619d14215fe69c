//! The process of one guest: it opens the guest's drives, makes its machine, and does what it is asked at
//! its socket until it is killed.

use std::fs;
use std::os::fd::AsFd as _;

use elasticstack_core::error::{Error, Result};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::OwnedReadHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc::{self, UnboundedSender};

use super::ask::{self, Ask, MAX_LINE, Refusal};
use super::base::Base;
use super::drives::Drives;
use super::jail::{Confinement, Kind};
use super::machine::{Machine, Spec};
use super::monitor::{Monitor, Runs};
use super::net::Card;
use super::news::News;
use super::order::{ORDER, Order, OrderedCard};
use super::ring::Ring;
use crate::guests::QMP_SOCKET;
use crate::sys::tap;

/// Runs the guest that the current directory's order is about, which executes nothing until it is told to
/// over QMP at the socket `qmp`. Standard input is the guest's lock: it is held for as long as anything of
/// the guest's is touched.
///
/// # Errors
/// If the guest can't be made; then nothing of it has run.
pub fn serve() -> Result<()> {
    let order = fs::read(ORDER).map_err(|error| failed("reading the order", error))?;
    let order: Order = serde_json::from_slice(&order)
        .map_err(|error| failed("reading the order", error.into()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| failed("starting a runtime", error))?.block_on(run(order))
}

async fn run(order: Order) -> Result<()> {
    let Order { memory, processors, kernel, initial_disk, command_line, drives, cards } = order;
    let drives = Drives::open(drives, std::io::stdin().as_fd()).await?;
    let cards = cards.iter().map(plug).collect::<Result<_>>()?;
    let base = Base::open(&kernel, initial_disk.as_deref())?;
    let listener = UnixListener::bind(QMP_SOCKET).map_err(|error| failed("listening", error))?;
    let confinement = Confinement::Strict;
    confinement.enter(Kind::Process)?;
    let (tell, mut news) = mpsc::unbounded_channel();
    let spec =
        Spec { memory, processors, command_line, drives: drives.of_machine(), cards, confinement };
    let serial = Ring::default();
    let mut monitor = Monitor::new(Guest::make(base, spec, serial.clone(), tell)?, serial);
    let (hand, mut asked) = mpsc::unbounded_channel();
    let mut listeners: Vec<UnboundedSender<Vec<u8>>> = Vec::new();
    loop {
        tokio::select! {
            Some((life, what)) = news.recv() => {
                if life == monitor.guest().life {
                    monitor.hear(what);
                }
            }
            Some(Asked { id, ask, answer }) = asked.recv() => {
                let done = ask.and_then(|ask| {
                    monitor.carry_out(&ask).unwrap_or_else(|| drives.carry_out(&ask))
                });
                // Whoever asked may have gone.
                let _ = answer.send(ask::answer(id, done));
            }
            Ok((stream, _)) = listener.accept() => {
                listeners.retain(|listener| !listener.is_closed());
                listeners.push(attend(stream, hand.clone()));
            }
        }
        for event in monitor.events() {
            listeners.retain(|listener| listener.send(event.clone()).is_ok());
        }
    }
}

fn plug(card: &OrderedCard) -> Result<Card> {
    let OrderedCard { bridge, mac } = card;
    let tap = tap::open(bridge);
    let failed = |error| failed(&format!("plugging a card into {bridge}"), error);
    Ok(Card::new(tap.map_err(failed)?, *mac))
}

/// A command, and where its answer goes.
struct Asked {
    id: Option<Value>,
    ask: Result<Ask, Refusal>,
    answer: UnboundedSender<Vec<u8>>,
}

/// Serves a connection; answers with where lines for it go.
fn attend(stream: UnixStream, hand: UnboundedSender<Asked>) -> UnboundedSender<Vec<u8>> {
    let (read, mut write) = stream.into_split();
    let (say, mut said) = mpsc::unbounded_channel::<Vec<u8>>();
    let answer = say.clone();
    tokio::spawn(async move {
        let reading = read_lines(read, hand, answer);
        let writing = async {
            write.write_all(&ask::greeting()).await?;
            while let Some(line) = said.recv().await {
                write.write_all(&line).await?;
            }
            Ok::<(), std::io::Error>(())
        };
        // Either's end is the connection's.
        tokio::select! {
            () = reading => {}
            _ = writing => {}
        }
    });
    say
}

async fn read_lines(
    read: OwnedReadHalf,
    hand: UnboundedSender<Asked>,
    answer: UnboundedSender<Vec<u8>>,
) {
    let mut read = BufReader::new(read);
    loop {
        let mut line = Vec::new();
        let most = u64::try_from(MAX_LINE).unwrap_or(u64::MAX);
        match (&mut read).take(most).read_until(b'\n', &mut line).await {
            Ok(length) if length > 0 && line.ends_with(b"\n") => {}
            // The end, or a line without one.
            _ => return,
        }
        let (id, ask) = ask::parse(&line);
        if hand.send(Asked { id, ask, answer: answer.clone() }).is_err() {
            return;
        }
    }
}

/// A machine that can be made anew. What an earlier one still tells is known by its life.
#[derive(Debug)]
struct Guest {
    machine: Option<Machine>,
    base: Base,
    spec: Spec,
    serial: Ring,
    tell: UnboundedSender<(u64, News)>,
    life: u64,
}

impl Guest {
    fn make(
        base: Base,
        spec: Spec,
        serial: Ring,
        tell: UnboundedSender<(u64, News)>,
    ) -> Result<Self> {
        let mut guest = Self { machine: None, base, spec, serial, tell, life: 0 };
        guest.renew()?;
        Ok(guest)
    }
}

impl Runs for Guest {
    fn pause(&self) {
        if let Some(machine) = &self.machine {
            machine.pause();
        }
    }

    fn resume(&self) {
        if let Some(machine) = &self.machine {
            machine.resume();
        }
    }

    fn press_button(&self) -> Result<()> {
        self.machine.as_ref().map_or(Ok(()), Machine::press_button)
    }

    fn renew(&mut self) -> Result<()> {
        // The old one's memory goes first.
        self.machine = None;
        self.life += 1;
        let (life, tell) = (self.life, self.tell.clone());
        let hear = move |news| {
            // Nobody hears it any more when the process ends.
            let _ = tell.send((life, news));
        };
        self.machine = Some(Machine::new(&self.base, &self.spec, self.serial.clone(), hear)?);
        Ok(())
    }
}

fn failed(action: &str, error: std::io::Error) -> Error {
    Error::internal(action.to_owned()).source(error)
}
