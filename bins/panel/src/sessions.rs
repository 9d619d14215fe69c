//! Who is logged in. A session is named by a random token of 256 bits in the browser's cookie; here
//! only the token's SHA-256 is kept, in memory. A session ends by logout, after an hour without a
//! request, or after twelve hours.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use elasticstack_core::error::{Error, Result};
use elasticstack_core::id::DriveId;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::account::Account;

const IDLE: Duration = Duration::from_secs(60 * 60);
const LIFE: Duration = Duration::from_secs(12 * 60 * 60);
/// The most sessions of one account; a further login ends its oldest.
const PER_ACCOUNT: usize = 16;

/// 256 random bits in hexadecimal.
#[derive(Clone)]
pub(crate) struct Token(String);

impl Token {
    pub(crate) fn random() -> Result<Self> {
        let mut bits = [0; 32];
        getrandom::fill(&mut bits).map_err(|error| {
            Error::internal("drawing a token from the system").context(error.to_string())
        })?;
        let mut text = String::with_capacity(64);
        for byte in bits {
            let _ = write!(text, "{byte:02x}");
        }
        Ok(Self(text))
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `text` is this token, in a time that does not tell how much of it is right.
    pub(crate) fn is(&self, text: &str) -> bool {
        self.0.as_bytes().ct_eq(text.as_bytes()).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What the next page tells about the last request.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Notice {
    pub(crate) tone: &'static str,
    pub(crate) text: String,
}

/// One browser that is logged in.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) account: Arc<Account>,
    /// Every form carries it: who can't read our pages can't send our forms.
    pub(crate) form_token: Token,
    notice: Mutex<Option<Notice>>,
    made: tokio::sync::Mutex<Option<(String, DriveId)>>,
}

impl Session {
    /// Does what `form` asks for, once: sent again, it waits for the first and answers the same.
    pub(crate) async fn once(
        &self,
        form: String,
        make: impl Future<Output = Result<DriveId>>,
    ) -> Result<DriveId> {
        let mut made = self.made.lock().await;
        if let Some((known, drive)) = &*made
            && *known == form
        {
            return Ok(*drive);
        }
        let drive = make.await?;
        *made = Some((form, drive));
        Ok(drive)
    }

    pub(crate) fn tell(&self, tone: &'static str, text: impl Into<String>) {
        *unpoisoned(&self.notice) = Some(Notice { tone, text: text.into() });
    }

    /// The notice for the next page, once.
    pub(crate) fn take_notice(&self) -> Option<Notice> {
        unpoisoned(&self.notice).take()
    }
}

struct Entry {
    session: Arc<Session>,
    begun: Instant,
    seen: Instant,
}

impl Entry {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.seen) >= IDLE
            || now.saturating_duration_since(self.begun) >= LIFE
    }
}

/// Every session.
#[derive(Default)]
pub(crate) struct Sessions {
    entries: Mutex<HashMap<[u8; 32], Entry>>,
}

impl Sessions {
    /// Begins a session and answers its token, which is for the browser only.
    pub(crate) fn begin(&self, account: Account, now: Instant) -> Result<Token> {
        let token = Token::random()?;
        let id = account.id();
        let session = Arc::new(Session {
            account: Arc::new(account),
            form_token: Token::random()?,
            notice: Mutex::default(),
            made: tokio::sync::Mutex::default(),
        });
        let mut entries = unpoisoned(&self.entries);
        entries.retain(|_, entry| !entry.is_over(now));
        let mut own: Vec<_> = entries
            .iter()
            .filter(|(_, entry)| entry.session.account.id() == id)
            .map(|(hash, entry)| (entry.begun, *hash))
            .collect();
        own.sort_unstable();
        for (_, hash) in own.iter().rev().skip(PER_ACCOUNT - 1) {
            entries.remove(hash);
        }
        entries.insert(hash(token.expose()), Entry { session, begun: now, seen: now });
        Ok(token)
    }

    /// The session that a cookie names, if it is not over.
    pub(crate) fn find(&self, token: &str, now: Instant) -> Option<Arc<Session>> {
        let mut entries = unpoisoned(&self.entries);
        let hash = hash(token);
        let entry = entries.get_mut(&hash)?;
        if entry.is_over(now) {
            entries.remove(&hash);
            return None;
        }
        entry.seen = now;
        Some(Arc::clone(&entry.session))
    }

    /// Ends the session that a cookie names.
    pub(crate) fn end(&self, token: &str) {
        unpoisoned(&self.entries).remove(&hash(token));
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// What a panic elsewhere left is whole: every change here is one insertion or removal.
fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use bytes::Bytes;
    use elasticstack_core::client::Transport;
    use elasticstack_core::secret::Secret;
    use http::{Request, Response};

    use super::*;

    struct Yes;

    #[async_trait]
    impl Transport for Yes {
        async fn send(&self, _: Request<Bytes>) -> Result<Response<Bytes>> {
            Ok(Response::new(Bytes::from_static(b"{\"name\":\"n\"}")))
        }
    }

    async fn account() -> Account {
        let id = "5b0e3c52-0000-4000-8000-00000000a001".parse().unwrap();
        Account::log_in(Arc::new(Yes), id, &Secret::new("canary")).await.unwrap()
    }

    #[tokio::test]
    async fn a_session_ends_by_idleness_by_age_and_by_logout() {
        let (sessions, start) = (Sessions::default(), Instant::now());
        let second = Duration::from_secs(1);

        let idle = sessions.begin(account().await, start).unwrap();
        assert!(sessions.find(idle.expose(), start + IDLE - second).is_some());
        assert!(sessions.find(idle.expose(), start + IDLE * 2 - second).is_none());

        let old = sessions.begin(account().await, start).unwrap();
        let mut now = start;
        while now + IDLE / 2 < start + LIFE {
            now += IDLE / 2;
            assert!(sessions.find(old.expose(), now).is_some(), "in use, so not idle");
        }
        assert!(sessions.find(old.expose(), start + LIFE).is_none());

        let left = sessions.begin(account().await, start).unwrap();
        sessions.end(left.expose());
        assert!(sessions.find(left.expose(), start).is_none());
    }

    #[tokio::test]
    async fn an_account_has_few_sessions_and_a_token_is_never_shown() {
        let (sessions, start) = (Sessions::default(), Instant::now());
        let mut tokens = Vec::new();
        for at in 0..=PER_ACCOUNT {
            let at = Duration::from_millis(u64::try_from(at).unwrap());
            tokens.push(sessions.begin(account().await, start + at).unwrap());
        }
        let alive = |token: &Token| sessions.find(token.expose(), start).is_some();
        assert!(!alive(&tokens[0]), "the oldest made room");
        assert!(tokens[1..].iter().all(alive));
        assert_ne!(tokens[1].expose(), tokens[2].expose());
        let shown = format!("{:?}", sessions.find(tokens[1].expose(), start));
        assert!(!shown.contains("canary") && !shown.contains(tokens[1].expose()), "{shown}");
    }
}
