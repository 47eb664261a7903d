//! How a command fails, and the exit code that goes with it.

use std::fmt;
use std::process::ExitCode;

use crate::term;

/// Exit code of something that was right and failed: a port in use, a full disk.
const FAILED: u8 = 1;
/// Exit code of wrong use or a wrong configuration. clap uses the same.
const WRONG: u8 = 2;

/// Why a command ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What was asked for is wrong: exit code 2.
    Wrong(anyhow::Error),
    /// What was asked for is right, and failed: exit code 1.
    Failed(anyhow::Error),
}

impl Failure {
    /// Wrong use or a wrong configuration.
    pub(crate) fn wrong(error: impl Into<anyhow::Error>) -> Self {
        Self::Wrong(error.into())
    }

    /// Anything else.
    pub(crate) fn failed(error: impl Into<anyhow::Error>) -> Self {
        Self::Failed(error.into())
    }

    /// Shows it on standard error and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        term::complain(&self.to_string());
        match self {
            Self::Wrong(_) => ExitCode::from(WRONG),
            Self::Failed(_) => ExitCode::from(FAILED),
        }
    }
}

/// The error and its causes in one line, except that findings in a file come
/// with their own `file:line: error:` and are left as they are.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Wrong(error) | Self::Failed(error)) = self;
        if error.downcast_ref::<conf::LoadError>().is_some() {
            write!(f, "{error}")
        } else {
            write!(f, "error: {}", line(error))
        }
    }
}

/// The error and its causes; a cause that an error already tells of is not told again.
fn line(error: &anyhow::Error) -> String {
    let mut line = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !line.contains(&cause) {
            line.push_str(": ");
            line.push_str(&cause);
        }
    }
    line
}

/// Whatever `?` meets unnamed is a failure, not wrong use.
impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn an_error_and_its_causes_are_one_line() {
        let error = Err::<(), _>(std::io::Error::other("disk full"))
            .context("cannot write ca.pem")
            .expect_err("made to fail");
        let shown = Failure::from(error).to_string();
        assert_eq!(shown, "error: cannot write ca.pem: disk full");
    }

    #[test]
    fn a_cause_is_told_once() {
        let error = Err::<(), _>(std::io::Error::other("disk full"))
            .context("cannot write ca.pem: disk full")
            .expect_err("made to fail");
        assert_eq!(
            Failure::from(error).to_string(),
            "error: cannot write ca.pem: disk full"
        );
    }
}
