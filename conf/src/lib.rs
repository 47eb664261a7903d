//! TOML to a validated [`Config`], with errors that point at the character.
//!
//! [`load`] reads a file and everything it includes and gives either a whole
//! [`Config`] or all the mistakes at once ([`LoadError`]): where each stands,
//! what was expected there, and how to mend it. There is nothing in between,
//! so `check`, `run` and a reload cannot disagree about what a file means.
//!
//! Serde is not used for this: it stops at the first mistake. The document is
//! read into a tree in which every key and value knows its place (`raw`), and a
//! small typed reader (`read`) walks it with one table of keys (`keys`). The
//! JSON Schema ([`schema`]) and the reference manual ([`reference()`]) are written
//! from that same table, so the three cannot drift apart.
//!
//! What this crate does not do: it opens no socket, resolves no name and parses
//! no certificate. It asks the machine only through [`Environment`]: whether
//! files are there, what a variable holds, how many cores there are.

mod config;
mod courtesy;
pub mod defaults;
mod diagnostic;
pub mod discovered;
mod environment;
mod include;
mod keys;
mod load;
mod manual;
mod raw;
mod read;
mod schema;
mod section;
mod shadow;
mod source;
mod suggest;
mod text;

pub use config::*;
pub use courtesy::give_way;
pub use diagnostic::{Diagnostic, Excerpt, LoadError, Severity};
pub use environment::{Environment, FileKind, Machine};
pub use load::{load, load_str, load_with};
pub use manual::reference;
pub use schema::schema;

/// Reads a size as the file has them, `"64KiB"`, where it stands elsewhere: on the command line.
///
/// # Errors
/// What is wrong, and what to write instead, in one line.
pub fn size(text: &str) -> Result<u64, String> {
    text::size(text).map_err(|wrong| format!("{}: {}", wrong.what, wrong.fix))
}
