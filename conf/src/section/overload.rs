//! `[overload]`.

use crate::config::Overload;
use crate::defaults;
use crate::raw::Value;
use crate::read::Table;
use crate::text;

pub(super) fn overload(table: &Table<'_>) -> Overload {
    Overload {
        memory: match is_off(table, "memory") {
            true => None,
            false => Some(
                table
                    .text("memory", text::memory_mark)
                    .unwrap_or(defaults::OVERLOAD_MEMORY),
            ),
        },
        lag: match is_off(table, "lag") {
            true => None,
            false => Some(table.duration_or("lag", defaults::OVERLOAD_LAG)),
        },
        retry_after: table.duration_or("retry_after", defaults::OVERLOAD_RETRY_AFTER),
    }
}

/// Whether `false` stands there.
pub(super) fn is_off(table: &Table<'_>, name: &'static str) -> bool {
    let node = table.get(name);
    node.is_some_and(|node| matches!(node.value, Value::Bool(false)))
}
