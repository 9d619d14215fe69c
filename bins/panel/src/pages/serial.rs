//! The serial log of a server.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Html;
use elasticstack_core::id::ServerKind;
use serde::Deserialize;
use tera::Context;

use crate::app::App;
use crate::fault::Fault;
use crate::request::{LoggedIn, Named};

/// How much of the log's end is shown.
const SHOWN: usize = 64 << 10;

#[derive(Deserialize)]
pub(crate) struct Options {
    /// Given: the page reloads itself.
    follow: Option<String>,
}

pub(crate) async fn show(
    State(app): State<Arc<App>>,
    session: LoggedIn,
    Named(server): Named<ServerKind>,
    options: Result<Query<Options>, QueryRejection>,
) -> Result<Html<String>, Fault> {
    let record = session.account.server(server).await?;
    let log = session.account.serial_log(server).await?;
    let mut context = Context::new();
    context.insert("id", &server.to_string());
    context.insert("name", record.value("name").unwrap_or_default());
    context.insert("follow", &options.is_ok_and(|Query(options)| options.follow.is_some()));
    context.insert("cut", &(log.len() > SHOWN));
    context.insert("log", &readable(&log[log.len().saturating_sub(SHOWN)..]));
    app.view.page("serial.html", &session, context)
}

/// The log as text: a terminal's colours and cursor moves left out, nothing else.
fn readable(log: &[u8]) -> String {
    let text = String::from_utf8_lossy(log);
    let mut shown = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\n' | '\t' => shown.push(character),
            '\u{1b}' if characters.next_if_eq(&'[').is_some() => {
                // ESC [ parameters, then one letter that ends it.
                while characters.next_if(|&next| matches!(next, ' '..='?')).is_some() {}
                characters.next_if(|next| matches!(next, '@'..='~'));
            }
            character if character.is_control() => {}
            character => shown.push(character),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_shown_without_the_terminals_part() {
        let log = b"\x1b[1;31mpanic\x1b[0m: \xff\r\n\x1b[2Jup\x1b\x07 [0m\x1b[";
        assert_eq!(readable(log), "panic: \u{fffd}\nup [0m");
    }
}
