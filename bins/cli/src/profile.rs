//! `elasticstack profile`.

use elasticstack_core::client::{Client, Transport};
use elasticstack_core::wire::calls::Call;
use elasticstack_core::wire::keys::Object;
use elasticstack_core::wire::record::Record;

use crate::ask::Ask;
use crate::failure::Result;
use crate::screen::Screen;

/// Shows the account.
///
/// # Errors
/// What the API says, or `Output`.
pub async fn run<T: Transport>(client: &Client<T>, screen: &mut Screen<'_>) -> Result<()> {
    let ask = Ask { object: Object::Profile, client, screen };
    ask.one(Call::ProfileInfo, &[], &Record::new()).await
}
