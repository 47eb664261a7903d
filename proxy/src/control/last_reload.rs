//! How the last reload went, for the admin server.

use std::sync::{Mutex, PoisonError};

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct LastReload(Mutex<Option<Reload>>);

#[derive(Debug, Clone)]
struct Reload {
    /// Why it failed.
    error: Option<String>,
}

impl LastReload {
    pub(super) fn set(&self, error: Option<String>) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some(Reload { error });
    }

    /// `null` before the first reload.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().map_or(
            serde_json::Value::Null,
            |last| serde_json::json!({ "successful": last.error.is_none(), "error": last.error }),
        )
    }
}
