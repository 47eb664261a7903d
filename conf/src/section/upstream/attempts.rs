//! Further attempts for a request.

use std::num::NonZeroU32;
use std::time::Duration;

use http::StatusCode;

use crate::config::{Hedge, Retry};
use crate::defaults;
use crate::raw::Value;
use crate::read::{Finding, Table};
use crate::section::rules;
use crate::suggest::nearest;
use crate::text::{Wrong, quoted};

use super::endpoint::Members;

/// What a request may be sent again after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    ConnectFailure,
    Reset,
    Timeout,
    Status(StatusCode),
}

/// As they are written.
const WORDS: [(&str, Condition); 3] = [
    ("connect_failure", Condition::ConnectFailure),
    ("reset", Condition::Reset),
    ("timeout", Condition::Timeout),
];

pub(super) fn retry(parent: &Table<'_>, first_byte_timeout: Duration) -> Retry {
    let standard = Retry {
        attempts: rules::count(defaults::RETRY_ATTEMPTS),
        on_connect_failure: true,
        on_reset: true,
        on_timeout: false,
        on_statuses: Vec::new(),
        budget: defaults::RETRY_BUDGET,
        per_try_timeout: None,
        max_body_size: defaults::RETRY_MAX_BODY_SIZE,
    };
    let Some(table) = parent.table("retry") else {
        return standard;
    };
    let attempts = table.count_or("attempts", defaults::RETRY_ATTEMPTS);
    if attempts == NonZeroU32::MIN {
        for name in ["on", "budget", "per_try_timeout", "max_body_size"] {
            let why = "attempts = 1 never sends a request again";
            table.no_effect(name, why, "delete it, or write attempts = 2");
        }
    }
    let conditions = match table.get("on") {
        Some(_) => rules::strings(&table, "on", condition),
        None => vec![Condition::ConnectFailure, Condition::Reset],
    };
    let per_try_timeout = table.duration("per_try_timeout");
    let on_timeout = conditions.contains(&Condition::Timeout);
    if attempts > NonZeroU32::MIN {
        per_try(&table, on_timeout, first_byte_timeout, attempts);
    }
    let status = |condition: &Condition| match condition {
        Condition::Status(status) => Some(*status),
        _ => None,
    };
    Retry {
        attempts,
        on_connect_failure: conditions.contains(&Condition::ConnectFailure),
        on_reset: conditions.contains(&Condition::Reset),
        on_timeout,
        on_statuses: conditions.iter().filter_map(status).collect(),
        budget: table.share("budget").unwrap_or(standard.budget),
        per_try_timeout,
        max_body_size: table.size_or("max_body_size", standard.max_body_size),
    }
}

/// One word or status of `on`.
fn condition(text: &str) -> Result<Condition, Wrong> {
    if let Some((_, condition)) = WORDS.iter().find(|(word, _)| *word == text) {
        return Ok(*condition);
    }
    if let Ok(number) = text.parse::<u16>() {
        return StatusCode::from_u16(number)
            .ok()
            .filter(|status| status.is_client_error() || status.is_server_error())
            .map(Condition::Status)
            .ok_or_else(|| {
                Wrong::new(
                    format!("the status {number} is no failure"),
                    "from \"400\" to \"599\"",
                )
            });
    }
    let folded = text.to_ascii_lowercase().replace('-', "_");
    // nginx calls statuses http_502.
    let status = folded.strip_prefix("http_").unwrap_or_default();
    let fix = match folded.as_str() {
        "5xx" | "server_error" => "name them: \"500\", \"502\", \"503\", \"504\"".to_owned(),
        "gateway_error" => "name them: \"502\", \"503\", \"504\"".to_owned(),
        "4xx" | "retriable_4xx" => "name them: \"409\", \"429\"".to_owned(),
        "error" | "conn_failure" | "connection_failure" | "connect" | "refused" => {
            "write \"connect_failure\", and \"reset\" for connections that break".to_owned()
        }
        "refused_stream"
        | "empty_response"
        | "junk_response"
        | "invalid_header"
        | "reset_before_request"
        | "disconnect" => "write \"reset\"".to_owned(),
        "response_timeout" | "per_try_timeout" => {
            "write \"timeout\", with per_try_timeout".to_owned()
        }
        "non_idempotent" => "write retry_non_idempotent = true in a [[route]]".to_owned(),
        _ if status.parse::<u16>().is_ok() => format!("write \"{status}\""),
        _ => nearest(text, WORDS.iter().map(|(word, _)| *word)).map_or_else(
            || {
                "it takes \"connect_failure\", \"reset\", \"timeout\", or a status such as \"503\""
                    .to_owned()
            },
            |near| format!("did you mean \"{near}\"?"),
        ),
    };
    Err(Wrong::new(
        format!("{} is not known here", quoted(text)),
        fix,
    ))
}

/// The time of one attempt against that of all.
fn per_try(table: &Table<'_>, on_timeout: bool, all: Duration, attempts: NonZeroU32) {
    let cx = table.cx;
    let Some(node) = table.get("per_try_timeout") else {
        if on_timeout {
            let on = table.list("on").unwrap_or_default();
            let is_timeout = |value: &Value| matches!(value, Value::Text(t) if t == "timeout");
            let item = on.iter().find(|item| is_timeout(&item.value));
            cx.error(
                Finding::error(
                    item.map_or(table.place, |item| item.place),
                    "\"timeout\" needs a `per_try_timeout`: first_byte_timeout is for all attempts together",
                )
                .label(format!(
                    "write per_try_timeout = \"{}\"",
                    shown(all / attempts.get())
                )),
            );
        }
        return;
    };
    let Some(each) = table.duration("per_try_timeout") else {
        return;
    };
    if each >= all {
        cx.error(
            Finding::error(
                node.place,
                format!(
                    "per_try_timeout leaves no time for another attempt: first_byte_timeout, \"{}\", is for all together",
                    shown(all)
                ),
            )
            .label(format!("write \"{}\"", shown(all / attempts.get()))),
        );
    } else if !on_timeout {
        cx.findings.add(
            Finding::warning(
                node.place,
                "what takes longer than this is not sent again: `on` has no \"timeout\"",
            )
            .label("write on = [\"connect_failure\", \"reset\", \"timeout\"]"),
        );
    }
}

/// A time as one would write it; never zero.
fn shown(time: Duration) -> String {
    let ms = time.as_millis().max(1);
    match ms % 1000 {
        0 => format!("{}s", ms / 1000),
        _ => format!("{ms}ms"),
    }
}

pub(super) fn hedge(parent: &Table<'_>, members: &Members) -> Option<Hedge> {
    let table = parent.table("hedge")?;
    if !members.several() {
        parent.no_effect(
            "hedge",
            "there is no second endpoint for a second attempt",
            "delete it, or add an endpoint",
        );
    }
    Some(Hedge {
        percentile: table.integer_or("percentile", defaults::HEDGE_PERCENTILE),
        min_delay: table.duration_or("min_delay", defaults::HEDGE_MIN_DELAY),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn conditions_are_words_and_statuses() {
        assert_eq!(condition("reset"), Ok(Condition::Reset));
        assert_eq!(
            condition("503"),
            Ok(Condition::Status(StatusCode::SERVICE_UNAVAILABLE))
        );
        assert!(condition("200").is_err());
        assert!(condition("600").is_err());
    }

    #[test]
    fn the_words_of_others_are_answered_with_ours() {
        let fix = |text| condition(text).expect_err("wrong").fix;
        assert_eq!(fix("http_502"), "write \"502\"");
        assert!(fix("5xx").contains("\"503\""));
        assert!(fix("gateway-error").contains("\"504\""));
        assert!(fix("conn-failure").contains("\"connect_failure\""));
        assert_eq!(fix("timeuot"), "did you mean \"timeout\"?");
        assert!(fix("sometimes").contains("or a status"));
    }

    #[test]
    fn a_time_is_shown_as_it_is_written() {
        assert_eq!(shown(Duration::from_secs(15) / 2), "7500ms");
        assert_eq!(shown(Duration::from_secs(15)), "15s");
        assert_eq!(shown(Duration::from_micros(10)), "1ms");
    }

    proptest! {
        #[test]
        fn no_word_makes_it_panic(text in "\\PC{0,12}") {
            let _ = condition(&text);
        }
    }
}
