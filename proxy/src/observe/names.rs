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
    pub(crate) upstreams: Vec<UpstreamNames>,
}

/// One upstream and its endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct UpstreamNames {
    /// Unique.
    pub(crate) name: String,
    /// As configured. Two of one name share their series.
    pub(crate) endpoints: Vec<String>,
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

    /// The upstream and its endpoints.
    #[must_use]
    pub(crate) fn upstream(&self, index: u16) -> Option<&UpstreamNames> {
        self.upstreams.get(usize::from(index))
    }
}

impl UpstreamNames {
    /// The endpoint's name; empty for an index that is not of this configuration.
    #[must_use]
    pub(crate) fn endpoint(&self, index: u16) -> &str {
        self.endpoints
            .get(usize::from(index))
            .map_or("", String::as_str)
    }
}
