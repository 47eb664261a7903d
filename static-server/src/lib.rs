//! Which file answers this request: confinement to a root, conditions, ranges, encodings.
//! And [`serve`], a small hyper service that serves a directory alone.
//!
//! [`Site::answer`] decides without a socket: a method, a path and header fields in, an
//! [`Answer`] of status, headers and body out, which any carrier can write. It looks at the
//! file system through [`files::Files`] alone, and at no clock.
//!
//! [`conditions`], [`range`], [`multipart`] and [`encoding`] are pure and know no files:
//! cached responses are answered by the same rules.
//!
//! [`compress`] makes ahead what a site serves packed; [`dictionary`] and [`fingerprint`] tell
//! which files are releases of one. [`images`] makes smaller forms of pictures, in threads of its
//! own.
//!
//! What it does not do: it reads no configuration, keeps no metrics, and compresses nothing on
//! the fly.

pub mod answer;
pub mod compress;
pub mod conditions;
pub mod confine;
pub mod date;
pub mod decision;
pub mod dictionary;
pub mod encoding;
pub mod etag;
pub mod fields;
pub mod files;
pub mod fingerprint;
pub mod frozen;
pub mod images;
pub mod listing;
pub mod mime;
pub mod multipart;
pub mod range;
pub mod serve;
pub mod settings;

mod hash;
mod keeper;
mod memory;
mod releases;
mod representation;
mod resource;
mod site;
mod value;

pub use answer::{Answer, Body, FilePart, Headers, Origin, Outcome, Part, SharedHeaders};
pub use encoding::Encoding;
pub use fields::Fields;
pub use hash::Hash;
pub use representation::Sending;
pub use settings::{Immutable, Releases, SiteError, SiteSettings};
pub use site::{Held, Request, Site};
