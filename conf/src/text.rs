//! What a string in the file means: times, sizes, networks, names.
//!
//! Pure functions from a string to a value or a [`Wrong`]. Where the mistake is a
//! common one, the fix is computed from what was written (`"5min"`: write `"5m"`).

mod http_words;
mod network;
mod quantity;
mod rate;
mod url;

pub(crate) use http_words::{
    alt_svc, cookie_name, header_name, header_value, host_name, host_pattern, media_type, method,
    path, path_prefix, query_name, telling_header,
};
pub(crate) use network::{
    AdminText, address, admin_address, dns_server, endpoint, network, srv, unix_path,
};
pub(crate) use quantity::{duration, percent, size};
pub(crate) use rate::{byte_rate, memory_mark, rate};
pub(crate) use url::http_url;

/// Why a string is not what its key wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// What is wrong with it, without the key's name.
    pub(crate) what: String,
    /// What to write instead.
    pub(crate) fix: String,
}

impl Wrong {
    pub(crate) fn new(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            fix: fix.into(),
        }
    }
}

/// Shows a value in a message, shortened where it is long.
pub(crate) fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    let mut shown: String = text.chars().take(LONGEST).collect();
    if shown.len() < text.len() {
        shown.push_str("...");
    }
    format!("{shown:?}")
}

/// Names label metrics and stand in logs: short, and of plain characters.
pub(crate) fn name(text: &str) -> Result<String, Wrong> {
    const LONGEST: usize = 64;
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if text.is_empty() {
        return Err(Wrong::new(
            "a name must not be empty",
            "write letters, digits, `_`, `-` or `.`",
        ));
    }
    if text.len() > LONGEST {
        return Err(Wrong::new(
            format!("{} is too long for a name", quoted(text)),
            format!("{LONGEST} characters at most"),
        ));
    }
    if !text.chars().all(plain) {
        let better: String = text
            .chars()
            .map(|c| if plain(c) { c } else { '-' })
            .collect();
        return Err(Wrong::new(
            format!("{} is not a name", quoted(text)),
            format!("letters, digits, `_`, `-` and `.` only: \"{better}\""),
        ));
    }
    Ok(text.to_owned())
}
