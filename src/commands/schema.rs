//! `tidegate schema`: the JSON Schema of the configuration file, for editors.

use anyhow::Context;

use crate::failure::Failure;
use crate::term;

/// Prints it on standard output.
///
/// # Errors
/// When standard output cannot be written.
pub(crate) fn run() -> Result<(), Failure> {
    term::say(&conf::schema()).context("cannot write to standard output")?;
    Ok(())
}
