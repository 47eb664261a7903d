//! Placeholder until the crate's own text stands here.
