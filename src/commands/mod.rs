//! One file a command. Each takes its parsed arguments and either succeeds or
//! says why not.

pub(crate) mod cache;
pub(crate) mod cert;
pub(crate) mod check;
pub(crate) mod compress;
pub(crate) mod maintenance;
pub(crate) mod purge;
pub(crate) mod run;
pub(crate) mod schema;
pub(crate) mod serve_static;
pub(crate) mod upstream;

use std::path::Path;

use crate::failure::Failure;
use crate::term;

/// Loads a file the way every command does; warnings go to standard error.
fn load(file: &Path) -> Result<conf::Config, Failure> {
    let config = conf::load(file).map_err(Failure::wrong)?;
    for warning in &config.warnings {
        term::complain(&warning.to_string());
    }
    Ok(config)
}
