//! Who asks, and where: `EHURI` and `EHAUTH`, the names that older scripts use.

use std::env;

use elasticstack_core::client::{Client, HyperTransport};
use elasticstack_core::id::AccountId;
use elasticstack_core::secret::Secret;

use crate::failure::{Failure, Result};

/// The variable with the API's address, such as `http://127.0.0.1:8440`.
pub const ADDRESS: &str = "EHURI";
/// The variable with `UUID:KEY`.
pub const CREDENTIALS: &str = "EHAUTH";

/// A client for the account and the address in the environment.
///
/// # Errors
/// `Usage` if one of them is absent or no such thing. The message never shows the key.
pub fn connect() -> Result<Client<HyperTransport>> {
    let address = variable(ADDRESS, "the API's address, such as http://127.0.0.1:8440")?;
    let credentials = variable(CREDENTIALS, "your account as UUID:KEY")?;
    let (account, key) = parse(&credentials)?;
    let transport = HyperTransport::new(&address)
        .map_err(|error| Failure::Usage(format!("{ADDRESS}: {}", error.public_message())))?;
    Client::new(transport, account, &key)
        .map_err(|error| Failure::Usage(format!("{CREDENTIALS}: {}", error.public_message())))
}

/// The URL of the websocket at `path` of the API in the environment.
///
/// # Errors
/// `Usage` if no address is there.
pub(crate) fn websocket(path: &str) -> Result<String> {
    let address = variable(ADDRESS, "the API's address, such as http://127.0.0.1:8440")?;
    Ok(websocket_of(&address, path))
}

fn websocket_of(address: &str, path: &str) -> String {
    let address = address.trim_end_matches('/');
    // What http is to https, ws is to wss.
    let address = address.strip_prefix("http").unwrap_or(address);
    format!("ws{address}{path}")
}

fn variable(name: &str, what: &str) -> Result<String> {
    match env::var(name) {
        Ok(value) if !value.is_empty() => Ok(value),
        _ => Err(Failure::Usage(format!("{name} is not set: set it to {what}"))),
    }
}

fn parse(credentials: &str) -> Result<(AccountId, Secret)> {
    let malformed = || Failure::Usage(format!("{CREDENTIALS} is not UUID:KEY"));
    let (account, key) = credentials.split_once(':').ok_or_else(malformed)?;
    let account = account.parse().map_err(|_| malformed())?;
    if key.is_empty() { Err(malformed()) } else { Ok((account, Secret::new(key))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_websocket_is_where_the_api_is_and_as_safe() {
        for (address, url) in [
            ("http://127.0.0.1:8440", "ws://127.0.0.1:8440/console/t"),
            ("https://cloud.example/", "wss://cloud.example/console/t"),
        ] {
            assert_eq!(websocket_of(address, "/console/t"), url);
        }
    }

    #[test]
    fn credentials_are_a_uuid_and_a_key_and_are_never_repeated() {
        let id = "5b0e3c52-0000-4000-8000-00000000d001";
        let (account, key) = parse(&format!("{id}:a:b")).unwrap();
        assert_eq!((account.to_string().as_str(), key.expose()), (id, "a:b"));
        for bad in ["", "canary", &format!("{id}:"), "canary:key"] {
            let message = parse(bad).unwrap_err().to_string();
            assert_eq!(message, "EHAUTH is not UUID:KEY");
        }
    }
}
