//! `tidegate run`: serve what a file says.

use crate::cli::RunArgs;
use crate::failure::Failure;

/// Serves until the process is told to stop and has drained.
///
/// # Errors
/// A file that is wrong, or whatever keeps the edge from serving it.
pub(crate) fn run(args: RunArgs) -> Result<(), Failure> {
    let config = super::load(&args.config)?;
    serve(config, args.config, Box::new(|| {}))
}

/// Serves a loaded configuration; `file` is read again on SIGHUP, and `ready`
/// is called once every listener is bound.
///
/// # Errors
/// Whatever keeps the edge from serving: a port in use, a key that cannot be read.
pub(crate) fn serve(
    config: conf::Config,
    file: std::path::PathBuf,
    ready: Box<dyn FnOnce() + Send>,
) -> Result<(), Failure> {
    let options = proxy::Options {
        load: Box::new(move || conf::load(&file).map_err(|error| error.to_string())),
        ready,
    };
    proxy::run(config, options).map_err(|error| match error.is_configuration() {
        true => Failure::wrong(error),
        false => Failure::failed(error),
    })
}
