//! Failures, their messages and the exit codes: all decided here.

use std::io::{self, Write};
use std::process::ExitCode;

use tallystone::{Coverage, ErrorKind};

use crate::output::escape;

/// How the command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All went well.
    Ok,
    /// Something failed.
    Failed,
    /// The command line makes no sense.
    Usage,
    /// Damaged data was met.
    Damaged,
    /// An alert fires.
    Firing,
}

impl Exit {
    /// How a command ends whose answer rests on `coverage`.
    pub(crate) fn of(coverage: &Coverage) -> Self {
        if coverage.damaged.is_empty() { Self::Ok } else { Self::Damaged }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Ok => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Damaged => 3,
            Exit::Firing => 4,
        })
    }
}

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The library refused.
    Store(tallystone::Error),
    /// The command line makes no sense.
    Usage(String),
    /// Anything else.
    Other(String),
    /// The answer could not be printed.
    Output(io::Error),
}

impl Failure {
    /// Prints the message and says how to end.
    pub(crate) fn report(&self) -> Exit {
        let exit = self.exit();
        if let Some(message) = self.message() {
            // Without a place for messages the exit code has to do.
            let _ = writeln!(io::stderr().lock(), "error: {}", escape(&message));
            if exit == Exit::Usage {
                let _ = writeln!(io::stderr().lock(), "For more information, try '--help'.");
            }
        }
        exit
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::Store(error) => match error.kind() {
                ErrorKind::InvalidArgument => Exit::Usage,
                ErrorKind::Corrupt | ErrorKind::MissingSegment => Exit::Damaged,
                _ => Exit::Failed,
            },
            // The reader has seen enough, as in `tallystone query ... | head`.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
            Self::Output(_) | Self::Other(_) => Exit::Failed,
        }
    }

    /// What to say; nothing where nobody is left to read it.
    pub(crate) fn message(&self) -> Option<String> {
        match self {
            Self::Store(error) => Some(error.to_string()),
            Self::Usage(message) | Self::Other(message) => Some(message.clone()),
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => None,
            Self::Output(error) => Some(format!("standard output: could not be written: {error}")),
        }
    }
}

impl From<tallystone::Error> for Failure {
    fn from(error: tallystone::Error) -> Self {
        Self::Store(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Output(error.into())
    }
}

impl From<csv::Error> for Failure {
    fn from(error: csv::Error) -> Self {
        match error.into_kind() {
            csv::ErrorKind::Io(cause) => Self::Output(cause),
            other => Self::Other(format!("CSV: {other:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tallystone::Error;

    #[test]
    fn kinds_and_codes() {
        let of = |kind| Failure::from(Error::new(kind, "x")).exit();
        assert_eq!(of(ErrorKind::InvalidArgument), Exit::Usage);
        assert_eq!(of(ErrorKind::Corrupt), Exit::Damaged);
        assert_eq!(of(ErrorKind::MissingSegment), Exit::Damaged);
        assert_eq!(of(ErrorKind::NoSpace), Exit::Failed);
        let pipe = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((pipe.exit(), pipe.message()), (Exit::Ok, None));
    }
}
