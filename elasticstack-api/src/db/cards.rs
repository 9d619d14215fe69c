//! Rows of network cards that are on a VLAN, kept beside the keys of their servers so that an
//! address is looked up and not searched for.

use elasticstack_core::prelude::*;
use elasticstack_core::state::ServerState;

use super::row::{failed, parsed};
use super::{Database, Reader, ServerRow, Writer};

/// A network card on a VLAN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CardRow {
    /// Which of its server's.
    pub(crate) card: u8,
    pub(crate) vlan: String,
    pub(crate) mac: String,
}

impl Reader {
    /// Whether a card of another server of the account has this address on this VLAN.
    pub(crate) async fn has_card_like(&mut self, of: &ServerRow, card: &CardRow) -> Result<bool> {
        let row = self
            .statement(
                "SELECT cards.server FROM cards JOIN servers ON servers.server = cards.server \
                 WHERE cards.vlan = $1 AND cards.mac = $2 AND cards.server <> $3 \
                 AND servers.account = $4 AND servers.state NOT IN ($5, $6) LIMIT 1",
            )
            .bind(&card.vlan)
            .bind(&card.mac)
            .bind(of.server.to_string())
            .bind(of.account.to_string())
            .bind(ServerState::Destroying.as_str())
            .bind(ServerState::Gone.as_str())
            .fetch_optional()
            .await;
        Ok(row.map_err(failed("looking for a hardware address"))?.is_some())
    }
}

impl Writer<'_> {
    /// Notes which cards of a server are on a VLAN; the server's row is there.
    pub(crate) async fn save_cards(&mut self, server: ServerId, cards: &[CardRow]) -> Result<()> {
        self.change("DELETE FROM cards WHERE server = $1")
            .bind(server.to_string())
            .execute()
            .await
            .map_err(failed("taking out network cards"))?;
        for CardRow { card, vlan, mac } in cards {
            self.change("INSERT INTO cards (server, card, vlan, mac) VALUES ($1, $2, $3, $4)")
                .bind(server.to_string())
                .bind(i64::from(*card))
                .bind(vlan)
                .bind(mac)
                .execute()
                .await
                .map_err(failed("putting in network cards"))?;
        }
        Ok(())
    }
}

impl Database {
    /// The servers on a VLAN of which an older program noted no card.
    pub(crate) async fn servers_without_cards(&self) -> Result<Vec<ServerId>> {
        let mut reader = self.read().await?;
        let rows = reader
            .statement(
                "SELECT server FROM servers WHERE config LIKE '%\"nic:_:vlan\"%' \
                 AND NOT EXISTS (SELECT 1 FROM cards WHERE cards.server = servers.server)",
            )
            .fetch_all()
            .await
            .map_err(failed("looking for servers of an older program"))?;
        rows.iter().map(|row| parsed(row, "server")).collect()
    }
}
