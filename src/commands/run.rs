//! `tidegate run`: serve what a file says.

use anyhow::Context as _;

use crate::cli::RunArgs;
use crate::failure::Failure;

/// Serves until the process is told to stop and has drained, or another one has taken over.
///
/// # Errors
/// A file that is wrong, or whatever keeps the edge from serving it.
pub(crate) fn run(args: RunArgs) -> Result<(), Failure> {
    let program = proxy::Program::of_this_process().context("cannot tell which program this is")?;
    let predecessor = proxy::Predecessor::of_this_process();
    let config = super::load(&args.config).inspect_err(|failure| {
        if let Some(predecessor) = &predecessor {
            predecessor.refuse(&failure.to_string());
        }
    })?;
    let options = proxy::Options {
        program: Some(program),
        predecessor,
        ..options(args.config, Box::new(|| {}))
    };
    end(proxy::run(config, options))
}

/// Serves a loaded configuration within a command that does more; `file` is read again on SIGHUP,
/// and `ready` is called once every listener is bound.
///
/// # Errors
/// Whatever keeps the edge from serving: a port in use, a key that cannot be read.
pub(crate) fn serve(
    config: conf::Config,
    file: std::path::PathBuf,
    ready: Box<dyn FnOnce() + Send>,
) -> Result<(), Failure> {
    end(proxy::run(config, options(file, ready)))
}

fn options(file: std::path::PathBuf, ready: Box<dyn FnOnce() + Send>) -> proxy::Options {
    proxy::Options {
        load: Box::new(move || conf::load(&file).map_err(|error| error.to_string())),
        ready,
        program: None,
        predecessor: None,
    }
}

fn end(result: Result<(), proxy::RunError>) -> Result<(), Failure> {
    result.map_err(|error| match error.is_configuration() {
        true => Failure::wrong(error),
        false => Failure::failed(error),
    })
}
