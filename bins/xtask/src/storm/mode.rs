//! How the product is cut into programs, where it is asked, and which of them may be killed at once.

use anyhow::Result;

use crate::process;

/// How the product is cut into processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A control plane on SQLite and an agent, programs of their own.
    Split,
    /// The same, with two control planes on one PostgreSQL.
    Several,
    /// All in one.
    AllInOne,
}

/// One of the product's programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Api,
    /// The second control plane on the same database.
    Twin,
    Agent,
    AllInOne,
}

impl Role {
    const fn package(self) -> &'static str {
        match self {
            Self::Api | Self::Twin => "elasticstack-bin-api",
            Self::Agent => "elasticstack-bin-agent",
            Self::AllInOne => "elasticstack-bin-allinone",
        }
    }

    pub(crate) const fn binary(self) -> &'static str {
        match self {
            Self::Api | Self::Twin => "elasticstack-api",
            Self::Agent => "elasticstack-agent",
            Self::AllInOne => "elasticstack-allinone",
        }
    }

    /// What its files are named after.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Twin => "twin",
            Self::Agent => "agent",
            Self::AllInOne => "allinone",
        }
    }

    const fn has_guests(self) -> bool {
        matches!(self, Self::Agent | Self::AllInOne)
    }
}

impl Mode {
    /// The programs that answer customers.
    pub(crate) const fn doors(self) -> &'static [Role] {
        match self {
            Self::Split => &[Role::Api],
            Self::Several => &[Role::Api, Role::Twin],
            Self::AllInOne => &[Role::AllInOne],
        }
    }

    /// Every set of programs that may be killed at once.
    pub(crate) const fn victims(self) -> &'static [&'static [Role]] {
        match self {
            Self::Split => &[&[Role::Api], &[Role::Agent], &[Role::Api, Role::Agent]],
            Self::Several => &[
                &[Role::Api],
                &[Role::Twin],
                &[Role::Agent],
                &[Role::Api, Role::Twin],
                &[Role::Api, Role::Agent],
                &[Role::Twin, Role::Agent],
                &[Role::Api, Role::Twin, Role::Agent],
            ],
            Self::AllInOne => &[&[Role::AllInOne]],
        }
    }

    /// The sets whose death leaves the guests alone.
    pub(crate) fn guardians(self) -> Vec<&'static [Role]> {
        let guards = |victims: &&&[Role]| victims.iter().any(|role| role.has_guests());
        self.victims().iter().filter(guards).copied().collect()
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Split => "split",
            Self::Several => "several",
            Self::AllInOne => "allinone",
        }
    }

    /// Builds what it takes.
    pub(crate) fn build(self) -> Result<()> {
        let mut cargo = process::cargo(["build", "--quiet", "--locked"])?;
        match self {
            Self::Split | Self::Several => {
                cargo.args(["-p", Role::Api.package(), "-p", Role::Agent.package()]);
                cargo.args(["-p", "elasticstack-bin-cli"]);
            }
            Self::AllInOne => {
                cargo.args(["-p", Role::AllInOne.package()]);
            }
        }
        process::run(&mut cargo)
    }
}
