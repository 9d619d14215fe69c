//! One call and its answer on the screen: what the commands of every object do alike.

use elasticstack_core::client::{Client, Transport};
use elasticstack_core::wire::calls::Call;
use elasticstack_core::wire::keys::Object;
use elasticstack_core::wire::record::Record;

use crate::failure::Result;
use crate::screen::Screen;

/// An account's client, what it is asked about, and where its answers go.
pub(crate) struct Ask<'a, 'b, T> {
    pub(crate) object: Object,
    pub(crate) client: &'a Client<T>,
    pub(crate) screen: &'a mut Screen<'b>,
}

impl<T: Transport> Ask<'_, '_, T> {
    /// Sends `record` and shows the object that is answered.
    pub(crate) async fn one(self, call: Call, path: &[&str], record: &Record) -> Result<()> {
        let answer = self.client.one(call, path, record).await?;
        self.screen.record(self.object, &answer)
    }

    /// Shows these columns of all objects.
    pub(crate) async fn many(self, call: Call, columns: &[&str]) -> Result<()> {
        let answers = self.client.many(call).await?;
        self.screen.records(self.object, columns, &answers)
    }

    /// Does something that answers nothing to the object `id`, and says `what` was done.
    pub(crate) async fn act(self, call: Call, (kind, id): (&str, &str), what: &str) -> Result<()> {
        self.client.act(call, &[id]).await?;
        self.screen.done(kind, id, what)
    }
}
