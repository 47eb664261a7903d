//! The cache's own source, as far as it makes keys.

#[path = "../../../cache/src/key.rs"]
pub(crate) mod key;
#[path = "../../../cache/src/query.rs"]
pub(crate) mod query;
