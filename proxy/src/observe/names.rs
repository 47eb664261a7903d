//! The configured names that label metrics and log lines.
//!
//! A record carries indexes; this gives them their names back. Every label that
//! is ever written comes from here or from an enum, never from a client.

/// Stands where a request matched no route. No configured name can hold
/// parentheses, so it collides with none.
pub(crate) const NO_ROUTE: &str = "(none)";

/// Names of one configuration, each list in the order of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Names {
    /// Listeners; unique.
    pub(crate) listeners: Vec<String>,
    /// Routes; unique.
    pub(crate) routes: Vec<String>,
    /// Upstreams; unique.
    pub(crate) upstreams: Vec<String>,
}

impl Names {
    /// The listener's name; empty for an index that is not of this configuration.
    #[must_use]
    pub(crate) fn listener(&self, index: u16) -> &str {
        self.listeners
            .get(usize::from(index))
            .map_or("", String::as_str)
    }

    /// The route's name; [`NO_ROUTE`] for none.
    #[must_use]
    pub(crate) fn route(&self, index: Option<u16>) -> &str {
        index
            .and_then(|index| self.routes.get(usize::from(index)))
            .map_or(NO_ROUTE, String::as_str)
    }

    /// The upstream's name.
    #[must_use]
    pub(crate) fn upstream(&self, index: u16) -> Option<&str> {
        self.upstreams.get(usize::from(index)).map(String::as_str)
    }
}
