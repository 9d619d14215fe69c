//! `elasticstack events`: what happened, and with `--follow` what happens.

use std::time::Duration;

use clap::Args;
use elasticstack_core::client::{Client, Transport};
use elasticstack_core::error::ErrorKind;
use elasticstack_core::wire::calls::Call;
use elasticstack_core::wire::keys::Object;
use elasticstack_core::wire::queries::{MAX_PAGE, MAX_WAIT};

use crate::failure::Result;
use crate::screen::Screen;

/// Columns, and how wide each is where rows come one by one.
const COLUMNS: &[(&str, usize)] =
    &[("at", 16), ("object", 7), ("id", 36), ("event", 9), ("status", 8), ("cursor", 0)];

/// The pause before a server that can't be reached is asked again.
const PAUSE: Duration = Duration::from_secs(2);

/// Which events are shown.
#[derive(Debug, Args)]
pub struct Events {
    /// Go on until interrupted, with what happens from now on or after --after
    #[arg(long)]
    follow: bool,
    /// Begin behind this cursor
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    /// Those of all accounts, for operators
    #[arg(long)]
    all: bool,
}

impl Events {
    /// Shows them.
    ///
    /// # Errors
    /// What the API says, or `Output`.
    pub async fn run<T: Transport>(
        self,
        client: &Client<T>,
        screen: &mut Screen<'_>,
    ) -> Result<()> {
        let call = if self.all { Call::EventsInfoAll } else { Call::EventsInfo };
        if self.follow {
            follow(client, call, self.after, screen).await
        } else {
            list(client, call, self.after, screen).await
        }
    }
}

async fn list<T: Transport>(
    client: &Client<T>,
    call: Call,
    mut after: Option<String>,
    screen: &mut Screen<'_>,
) -> Result<()> {
    let limit = MAX_PAGE.to_string();
    let mut events = Vec::new();
    loop {
        let mut queries = vec![("limit", limit.as_str())];
        queries.extend(after.as_deref().map(|after| ("after", after)));
        let (page, cursor) = client.events(call, &queries).await?;
        let is_last = page.len() < usize::try_from(MAX_PAGE).unwrap_or(usize::MAX);
        events.extend(page);
        if is_last {
            let columns: Vec<&str> = COLUMNS.iter().map(|(column, _)| *column).collect();
            return screen.records(Object::Event, &columns, &events);
        }
        after = Some(cursor);
    }
}

async fn follow<T: Transport>(
    client: &Client<T>,
    call: Call,
    after: Option<String>,
    screen: &mut Screen<'_>,
) -> Result<()> {
    let mut cursor = match after {
        Some(after) => after,
        None => client.events(call, &[("after", "now")]).await?.1,
    };
    screen.headings(COLUMNS)?;
    let wait = MAX_WAIT.to_string();
    loop {
        match client.events(call, &[("after", &cursor), ("wait", &wait)]).await {
            Ok((events, next)) => {
                for event in &events {
                    screen.row(Object::Event, COLUMNS, event)?;
                }
                cursor = next;
            }
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                screen.progress(&format!("{error}: trying again from {cursor} on"));
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}
