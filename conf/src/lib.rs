//! TOML to a validated [`Config`], with errors that point at the character.
mod config;
pub use config::*;

/// One finding.
#[derive(Debug, Clone)]
pub struct Diagnostic {}
