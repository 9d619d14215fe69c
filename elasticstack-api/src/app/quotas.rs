//! Quotas: the most that an account may use, and what it uses.
//!
//! Invariants: a quota is a part of the claim: what takes something is checked by [`App::take`] in
//! the transaction that takes it; what is used is derived from intents, never stored. A quota that
//! is lowered takes nothing away: it only refuses more.
//!
//! To have something else count against a quota, sum it up in `Used` and take it here.

use std::collections::BTreeMap;

use elasticstack_core::prelude::*;
use elasticstack_core::wire::calls::Scope;
use elasticstack_core::wire::keys::parse_size;
use elasticstack_core::wire::record::Record;
use serde::Deserialize;

use super::App;
use crate::db::{AccountRow, Reader, Used, Writer};

/// What an account may have so much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quota {
    /// Processor time of running servers, in MHz.
    Cpu,
    /// Bytes of drives.
    Disk,
    /// Drives.
    Drives,
    /// Static IPs.
    Ip,
    /// Memory of running servers, in MiB.
    Mem,
    /// Servers, running or not.
    Servers,
    /// VLANs.
    Vlan,
}

impl Quota {
    const ALL: [Self; 7] =
        [Self::Cpu, Self::Disk, Self::Drives, Self::Ip, Self::Mem, Self::Servers, Self::Vlan];

    const fn word(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Disk => "disk",
            Self::Drives => "drives",
            Self::Ip => "ip",
            Self::Mem => "mem",
            Self::Servers => "servers",
            Self::Vlan => "vlan",
        }
    }

    /// The key that sets it.
    fn key(self) -> String {
        format!("quota:{}", self.word())
    }

    const fn used(self, used: &Used) -> u64 {
        match self {
            Self::Cpu => used.cpu,
            Self::Disk => used.disk,
            Self::Drives => used.drives,
            Self::Ip => used.ips,
            Self::Mem => used.memory,
            Self::Servers => used.servers,
            Self::Vlan => used.vlans,
        }
    }
}

/// The limits that an operator sets of these in `change`, a checked record: a size in bytes, an
/// empty value to unset.
pub(super) fn wanted(change: &Record) -> Record {
    let mut wanted = Record::new();
    for quota in Quota::ALL {
        let key = quota.key();
        let Some((_, value)) = change.iter().find(|(name, _)| *name == key) else { continue };
        let value = match parse_size(value).filter(|_| quota == Quota::Disk) {
            Some(size) => size.get().to_string(),
            None => value.to_owned(),
        };
        wanted.set(key, value);
    }
    wanted
}

impl App {
    /// Refuses more of these than `account` may have. Called in the transaction that takes them,
    /// before it does.
    ///
    /// # Errors
    /// `QuotaExceeded`, which names the quota.
    pub(super) async fn take(
        &self,
        tx: &mut Writer<'_>,
        account: AccountId,
        wanted: &[(Quota, u64)],
    ) -> Result<()> {
        let Some(row) = tx.account(account).await? else { return Ok(()) };
        let limits = self.limits(&row)?;
        if !wanted.iter().any(|(quota, amount)| *amount > 0 && limits.contains_key(quota)) {
            return Ok(());
        }
        let used = tx.used_by(account).await?;
        wanted.iter().try_for_each(|(quota, amount)| match limits.get(quota) {
            Some(limit) => within(*quota, *limit, quota.used(&used), *amount),
            None => Ok(()),
        })
    }

    /// What an account may have: as an operator set it, or else a customer's as the installation
    /// has it.
    fn limits(&self, row: &AccountRow) -> Result<BTreeMap<Quota, u64>> {
        let mut limits = match row.scope {
            Scope::Customer => self.config.quotas.clone(),
            Scope::Operator => BTreeMap::new(),
        };
        for quota in Quota::ALL {
            let Some(value) = row.quotas.value(&quota.key()) else { continue };
            let limit = value.parse().map_err(|error| {
                Error::internal(format!("reading {} of {}", quota.key(), row.account)).source(error)
            })?;
            limits.insert(quota, limit);
        }
        Ok(limits)
    }

    /// The keys that tell the limits of an account and what it uses.
    pub(super) async fn quotas_of(&self, reader: &mut Reader, row: &AccountRow) -> Result<Record> {
        let limits = self.limits(row)?;
        let used = reader.used_by(row.account).await?;
        let mut record = Record::new();
        for quota in Quota::ALL {
            if let Some(limit) = limits.get(&quota) {
                record.set(quota.key(), limit);
            }
            record.set(format!("used:{}", quota.word()), quota.used(&used));
        }
        Ok(record)
    }
}

/// Refuses `wanted` more of what `used` of `limit` are used.
fn within(quota: Quota, limit: u64, used: u64, wanted: u64) -> Result<()> {
    if wanted == 0 || used.checked_add(wanted).is_some_and(|sum| sum <= limit) {
        return Ok(());
    }
    let key = quota.key();
    Err(Error::new(
        ErrorKind::QuotaExceeded,
        format!(
            "{key} is {limit}, {used} are used and {wanted} more were asked for: give something \
             back, or ask your operator for more"
        ),
    )
    .field(key))
}

#[cfg(test)]
mod tests {
    use elasticstack_core::wire::keys::{self, Object};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_quota_has_its_keys() {
        for quota in Quota::ALL {
            let key = quota.key();
            let row = keys::find(Object::Account, &key).unwrap();
            assert_eq!(row.pattern, key, "an operator sets it by its own row");
            assert!(keys::find(Object::Profile, &key).is_some(), "{key}");
            let parsed = format!("{{\"{}\":1}}", quota.word());
            let parsed: BTreeMap<Quota, u64> = serde_json::from_str(&parsed).unwrap();
            assert_eq!(parsed.keys().next(), Some(&quota), "a file names it by its word");
        }
        let rows = keys::KEYS.iter().filter(|key| key.objects.contains(&Object::Account));
        let rows = rows.filter(|key| key.pattern.starts_with("quota:")).count();
        assert_eq!(rows, Quota::ALL.len());
    }

    #[test]
    fn a_limit_is_kept_in_bytes_and_unset_by_nothing() {
        let change = Record::new().with("quota:disk", "2G").with("quota:cpu", "").with("name", "n");
        let kept = wanted(&change);
        assert_eq!(
            kept.iter().collect::<Vec<_>>(),
            [("quota:cpu", ""), ("quota:disk", "2147483648")]
        );
    }

    proptest! {
        #[test]
        fn what_passes_a_limit_is_refused_and_nothing_else(limit: u64, used: u64, wanted: u64) {
            let sum = u128::from(used) + u128::from(wanted);
            let fits = wanted == 0 || sum <= u128::from(limit);
            prop_assert_eq!(within(Quota::Disk, limit, used, wanted).is_ok(), fits);
        }
    }
}
