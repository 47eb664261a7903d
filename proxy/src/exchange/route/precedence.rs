//! Which of two routes is asked first, as the order of a summary.
//!
//! The smaller [`Precedence`] wins. Its fields are compared in the order they
//! stand in, and so are the variants of the ranks.

use std::cmp::Reverse;

use conf::{HostPattern, PathPattern};

use super::super::normalise::canonical;

/// The rank of one route under one of its host patterns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Precedence {
    host: HostRank,
    path: PathRank,
    /// More first.
    conditions: Reverse<usize>,
    /// Index of the route in the file.
    pub(super) order: usize,
}

impl Precedence {
    pub(super) fn new(host: HostRank, path: PathRank, conditions: usize, order: usize) -> Self {
        Self {
            host,
            path,
            conditions: Reverse(conditions),
            order,
        }
    }
}

/// How closely a route names the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum HostRank {
    Exact,
    /// By length, the longer first.
    Suffix(Reverse<usize>),
    Any,
}

impl HostRank {
    pub(super) fn of(pattern: Option<&HostPattern>) -> Self {
        match pattern {
            Some(HostPattern::Exact(_)) => Self::Exact,
            Some(HostPattern::Suffix(suffix)) => Self::Suffix(Reverse(suffix.len())),
            None => Self::Any,
        }
    }
}

/// How closely a route names the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PathRank {
    Exact,
    /// By length, the longer first.
    Prefix(Reverse<usize>),
    Regex,
    Any,
}

impl PathRank {
    pub(super) fn of(pattern: &PathPattern) -> Self {
        match pattern {
            PathPattern::Exact(_) => Self::Exact,
            PathPattern::Prefix(prefix) => Self::Prefix(Reverse(canonical(prefix).len())),
            PathPattern::Regex(_) => Self::Regex,
            PathPattern::Any => Self::Any,
        }
    }
}
