//! What hosts say and confirm, taken in together, all that came while the last was under way: one
//! transaction for what they said; what only ends our own waiting is noted.
//!
//! A commit costs the same however much is in it, and thousands of hosts talk at once. Invariants:
//! whoever brings news is answered once it is durable, whoever brings a note once it is written, or
//! with what is wrong with it; what is wrong with one host's word is not held against others. Nobody
//! works for the rest in the background: of those who wait, one takes in what all of them brought.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use elasticstack_core::prelude::*;
use elasticstack_core::wire::internal::{Cursor, Document, HostReport, Reports};
use tokio::sync::oneshot::{self, error::TryRecvError};

use super::{App, fleet};
use crate::db::Writer;

/// The most that is taken in at a time: others want to write too.
const MOST: usize = 64;

/// What a host said or confirmed.
#[derive(Debug)]
pub(super) enum Word {
    News(News),
    Note(Note),
}

/// What is true from now on.
#[derive(Debug)]
pub(super) enum News {
    /// What it is and has.
    Host(HostReport),
    /// How its objects are.
    Objects(Reports),
}

/// What changes nothing but what is asked or sent again without it.
#[derive(Debug)]
pub(super) enum Note {
    /// These documents are durable there.
    Confirmed(Vec<Document>),
    /// What it said up to here is taken in.
    TakenIn(Cursor),
}

/// What was brought and not yet taken in.
#[derive(Debug, Default)]
pub(super) struct Intake {
    waiting: Mutex<Vec<Brought>>,
    /// Held by whoever takes in.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Brought {
    host: HostId,
    word: Arc<Word>,
    answer: oneshot::Sender<Result<()>>,
}

impl App {
    /// Takes a host's word in, together with others'.
    ///
    /// # Errors
    /// What is wrong with it; `Unavailable`; `Internal`.
    ///
    /// # Cancel safety
    /// It may or may not be taken in. Repeating it is harmless.
    pub(super) async fn take_in(&self, host: HostId, word: Word) -> Result<()> {
        let word = Arc::new(word);
        loop {
            let (answer, mut answered) = oneshot::channel();
            self.intake.lock().push(Brought { host, word: Arc::clone(&word), answer });
            let turn = tokio::select! {
                biased;
                answer = &mut answered => match answer {
                    Ok(answer) => return answer,
                    Err(_) => continue,
                },
                turn = self.intake.turn.lock() => turn,
            };
            loop {
                match answered.try_recv() {
                    Ok(answer) => return answer,
                    Err(TryRecvError::Empty) => self.take_in_what_waits().await,
                    // Whoever had taken it up was cut off: it is as if it had not been brought.
                    Err(TryRecvError::Closed) => break,
                }
            }
            drop(turn);
        }
    }

    async fn take_in_what_waits(&self) {
        let brought = self.intake.some();
        let words: Vec<_> = brought.iter().map(|one| (one.host, one.word.as_ref())).collect();
        match self.commit(&words).await {
            Ok(()) => brought.into_iter().for_each(|one| one.answer(Ok(()))),
            Err(error) if brought.len() == 1 || error.kind() == ErrorKind::Unavailable => {
                let (kind, sentence) = (error.kind(), error.public_message().to_owned());
                let mut error = Some(error);
                for one in brought {
                    let error = error.take();
                    one.answer(Err(error.unwrap_or_else(|| Error::new(kind, sentence.clone()))));
                }
            }
            Err(_) => {
                for one in brought {
                    let alone = self.commit(&[(one.host, one.word.as_ref())]).await;
                    one.answer(alone);
                }
            }
        }
    }

    async fn commit(&self, words: &[(HostId, &Word)]) -> Result<()> {
        let (mut news, mut notes) = (Vec::new(), Vec::new());
        for (host, word) in words {
            match word {
                Word::News(one) => news.push((*host, one)),
                Word::Note(one) => notes.push((*host, one)),
            }
        }
        if !notes.is_empty() {
            self.db.note(|tx| Box::pin(self.take_down(tx, &notes))).await?;
        }
        if !news.is_empty() {
            let now = self.now();
            let stale = self.db.write_locking(|tx| Box::pin(self.heed(tx, &news, now))).await?;
            self.stale.fetch_add(stale, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn take_down(&self, tx: &mut Writer<'_>, notes: &[(HostId, &Note)]) -> Result<()> {
        for (host, note) in notes {
            match note {
                Note::Confirmed(documents) => {
                    self.documents_are_there(tx, *host, documents).await?
                }
                Note::TakenIn(cursor) => tx.move_cursor(*host, cursor).await?,
            }
        }
        Ok(())
    }

    /// Answers how many reports were ignored.
    async fn heed(
        &self,
        tx: &mut Writer<'_>,
        news: &[(HostId, &News)],
        now: Timestamp,
    ) -> Result<u64> {
        let mut stale = 0;
        for (host, one) in news {
            match one {
                News::Host(report) => fleet::host_is(tx, *host, report, now).await?,
                News::Objects(reports) => {
                    stale += self.objects_are(tx, *host, reports, now).await?
                }
            }
        }
        Ok(stale)
    }
}

impl Intake {
    /// Takes up what was brought first.
    fn some(&self) -> Vec<Brought> {
        let mut waiting = self.lock();
        let count = waiting.len().min(MOST);
        waiting.drain(..count).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Brought>> {
        // No code that could panic runs under this lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Brought {
    fn answer(self, answer: Result<()>) {
        // Who no longer waits brings it again, or has no use for it.
        let _ = self.answer.send(answer);
    }
}
