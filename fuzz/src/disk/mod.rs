//! The form of the cache's records on disk, as the cache crate has it.

#[path = "../../../cache/src/disk/record.rs"]
pub(crate) mod record;
