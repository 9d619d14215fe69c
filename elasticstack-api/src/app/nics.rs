//! Network cards in a server's record: filling in what its owner left open.
//!
//! Invariants: a card that is stored has a model and a hardware address; no two cards of one
//! account's servers have the same address on one VLAN.

use std::collections::BTreeSet;

use elasticstack_core::prelude::*;
use elasticstack_core::wire::record::Record;

use super::server_record::is_container;
use crate::db::{CardRow, Database, Reader, ServerRow, Writer};

/// The network cards that a server may have.
pub(super) const NICS: u8 = 4;

/// Hardware addresses to give to cards that have none: drawn before a transaction, which may be
/// rerun.
#[derive(Debug)]
pub(super) struct Macs(Vec<String>);

impl Macs {
    /// Draws one for each card, in the range that QEMU's cards have.
    pub(super) fn draw() -> Result<Self> {
        let mut bits = [0; 4 * NICS as usize];
        getrandom::fill(&mut bits)
            .map_err(|error| Error::internal(format!("drawing hardware addresses: {error}")))?;
        let mac = |four: &[u8]| {
            let octets: Vec<String> =
                [0x52, 0x54].iter().chain(four).map(|octet| format!("{octet:02x}")).collect();
            octets.join(":")
        };
        Ok(Self(bits.chunks(4).map(mac).collect()))
    }
}

/// Gives each card of `config` a model and a hardware address, and takes the address of a card
/// away that `change` leaves without anything else.
pub(super) fn fill_in(config: &mut Record, change: &Record, macs: &Macs) {
    for (index, drawn) in (0..NICS).zip(&macs.0) {
        let key = |what: &str| format!("nic:{index}:{what}");
        let is_there =
            ["model", "dhcp", "vlan"].iter().any(|what| config.value(&key(what)).is_some());
        let mac = key("mac");
        if !is_there && change.value(&mac).is_none() {
            config.remove(&mac);
            continue;
        }
        if config.value(&key("model")).is_none() {
            let model = if is_container(config) { "virtio" } else { "e1000" };
            config.set(key("model"), model);
        }
        let given = config.value(&mac).map_or_else(|| drawn.clone(), str::to_ascii_lowercase);
        config.set(mac, given);
    }
}

/// Notes the cards of a server whose row is there.
pub(super) async fn note_cards(tx: &mut Writer<'_>, row: &ServerRow) -> Result<()> {
    tx.save_cards(row.server, &on_vlans(&row.config)).await
}

/// Refuses a card whose hardware address another card of the account has on the same VLAN.
pub(super) async fn unlike_others(reader: &mut Reader, row: &ServerRow) -> Result<()> {
    let cards = on_vlans(&row.config);
    let mut taken = BTreeSet::new();
    for card in &cards {
        if !taken.insert((&card.vlan, &card.mac)) || reader.has_card_like(row, card).await? {
            let sentence = format!("another card on that VLAN has the address {}", card.mac);
            let key = format!("nic:{}:mac", card.card);
            return Err(Error::new(ErrorKind::InvalidValue, sentence).field(key));
        }
    }
    Ok(())
}

/// Notes the cards of servers that an older program saved.
pub(super) async fn note_older_cards(db: &Database) -> Result<()> {
    let servers = &db.servers_without_cards().await?;
    if servers.is_empty() {
        return Ok(());
    }
    db.write(|tx| {
        Box::pin(async move {
            for server in servers {
                if let Some(row) = tx.server(*server).await? {
                    note_cards(tx, &row).await?;
                }
            }
            Ok(())
        })
    })
    .await
}

/// The cards that are on a VLAN.
fn on_vlans(config: &Record) -> Vec<CardRow> {
    let card = |card| {
        let key = |what: &str| config.value(&format!("nic:{card}:{what}")).map(str::to_owned);
        Some(CardRow { card, vlan: key("vlan")?, mac: key("mac")? })
    };
    (0..NICS).filter_map(card).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_gets_what_was_left_open_keeps_it_and_goes_whole() {
        let (first, second) = (Macs::draw().unwrap(), Macs::draw().unwrap());
        let given = Record::new()
            .with("nic:0:dhcp", "auto")
            .with("nic:1:model", "virtio")
            .with("nic:2:mac", "52:54:00:AA:BB:CC");
        let mut config = given.clone();
        fill_in(&mut config, &given, &first);
        assert_eq!(config.value("nic:0:model"), Some("e1000"));
        assert_eq!(config.value("nic:1:model"), Some("virtio"));
        assert_eq!(config.value("nic:2:mac"), Some("52:54:00:aa:bb:cc"));
        assert_eq!(config.value("nic:3:mac"), None);
        let drawn = config.value("nic:0:mac").unwrap().to_owned();
        assert!(drawn.starts_with("52:54:") && config.value("nic:1:mac") != Some(&drawn));
        fill_in(&mut config, &Record::new(), &second);
        assert_eq!(config.value("nic:0:mac"), Some(drawn.as_str()), "it stays what it was");
        config.remove("nic:1:model");
        fill_in(&mut config, &Record::new(), &second);
        assert_eq!(config.value("nic:1:mac"), None);
    }
}
