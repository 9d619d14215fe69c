//! How a command fails, and the exit status that scripts match on.
//!
//! | status | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | the server refused, or tried and failed |
//! | 2 | the command line or the environment is wrong; nothing was sent |
//! | 3 | the server can't be reached or is unavailable: try again |
//! | 4 | no such object |
//! | 5 | the credentials are wrong or do not cover this |
//! | 6 | in use or too fast: try again later |
//! | 7 | a file or the output of this machine failed |

use std::io;
use std::process::ExitCode;

use elasticstack_core::error::{Error, ErrorClass};

/// The table above, as the help shows it.
pub const EXIT_STATUS: &str = "\
Environment:
  EHURI   the API's address, such as http://127.0.0.1:8440
  EHAUTH  your account as UUID:KEY

Exit status:
  0  done
  1  the server refused, or tried and failed
  2  the command line or the environment is wrong; nothing was sent
  3  the server can't be reached or is unavailable: try again
  4  no such object
  5  the credentials are wrong or do not cover this
  6  in use or too fast: try again later
  7  a file or the output of this machine failed";

/// What a command may end with.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The command can't be carried out as it was given.
    #[error("{0}")]
    Usage(String),
    /// The API said no, or nothing.
    #[error(transparent)]
    Api(#[from] Error),
    /// A transfer stopped part of the way.
    #[error("{cause}; up to byte {done} it is done: go on with --offset {done}")]
    Interrupted {
        /// How far the transfer got, as an offset in the drive.
        done: u64,
        /// What stopped it.
        cause: Box<Failure>,
    },
    /// A file of this machine.
    #[error("{what}: {cause}")]
    File {
        /// What was being done, with the path.
        what: String,
        /// What the system said. Part of the sentence: nobody prints a chain here.
        cause: io::Error,
    },
    /// Standard output.
    #[error("the output can't be written: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    /// The exit status of the table above.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.status())
    }

    fn status(&self) -> u8 {
        match self {
            // Who closed our output has read enough of it.
            Self::Output(cause) if cause.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Usage(_) => 2,
            Self::Api(error) => match error.kind().class() {
                ErrorClass::Unavailable => 3,
                ErrorClass::NotFound => 4,
                ErrorClass::Unauthenticated | ErrorClass::Forbidden => 5,
                ErrorClass::Conflict | ErrorClass::Outdated | ErrorClass::Throttled => 6,
                ErrorClass::Invalid
                | ErrorClass::NeedsPayment
                | ErrorClass::Method
                | ErrorClass::NotAcceptable
                | ErrorClass::Failed
                | ErrorClass::Internal
                | ErrorClass::NoCapacity => 1,
            },
            Self::Interrupted { cause, .. } => cause.status(),
            Self::File { .. } | Self::Output(_) => 7,
        }
    }

    /// The line for standard error: the sentence, then the code where there is one. `None` where
    /// silence is meant.
    #[must_use]
    pub fn line(&self) -> Option<String> {
        if self.status() == 0 {
            return None;
        }
        Some(match self.api() {
            Some(error) => format!("error: {self} ({})", error.kind().code()),
            None => format!("error: {self}"),
        })
    }

    fn api(&self) -> Option<&Error> {
        match self {
            Self::Api(error) => Some(error),
            Self::Interrupted { cause, .. } => cause.api(),
            Self::Usage(_) | Self::File { .. } | Self::Output(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use elasticstack_core::error::ErrorKind;

    use super::*;

    #[test]
    fn every_kind_of_error_has_its_status() {
        for kind in ErrorKind::ALL {
            let wanted = match kind {
                ErrorKind::Unavailable => 3,
                ErrorKind::NotFound => 4,
                ErrorKind::AccountSuspended
                | ErrorKind::BadCredentials
                | ErrorKind::OutOfScope
                | ErrorKind::QuotaExceeded => 5,
                ErrorKind::ChangedMeanwhile
                | ErrorKind::DriveInUse
                | ErrorKind::Fenced
                | ErrorKind::KeyReused
                | ErrorKind::PreconditionFailed
                | ErrorKind::ResourceInUse
                | ErrorKind::ServerBusy
                | ErrorKind::Stale
                | ErrorKind::Throttled => 6,
                _ => 1,
            };
            assert_eq!(Failure::Api(Error::new(kind, "x")).status(), wanted, "{kind:?}");
        }
        assert_eq!(Failure::Usage(String::new()).status(), 2);
        assert_eq!(Failure::Output(io::Error::other("x")).status(), 7);
    }

    #[test]
    fn an_error_is_a_sentence_and_a_code() {
        let refused = Failure::Api(Error::new(ErrorKind::DriveInUse, "it is in use: stop first"));
        assert_eq!(refused.line().unwrap(), "error: it is in use: stop first (drive_in_use)");
        let stopped = Failure::Interrupted { done: 4 << 20, cause: Box::new(refused) };
        assert_eq!(
            stopped.line().unwrap(),
            "error: it is in use: stop first; up to byte 4194304 it is done: \
             go on with --offset 4194304 (drive_in_use)"
        );
        assert_eq!(stopped.status(), 6, "the cause decides");
        let closed = Failure::Output(io::ErrorKind::BrokenPipe.into());
        assert_eq!((closed.status(), closed.line()), (0, None));
    }
}
