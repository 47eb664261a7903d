//! A change of an endpoint by hand, as it is asked for.

use std::num::NonZeroU32;

use balancer::Mode;

use crate::exchange::purging::next_parameter;
use crate::upstreams::Change;

/// Largest weight, as in the configuration.
const MAX_WEIGHT: u32 = 1000;

/// Which endpoint, and how it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) upstream: String,
    /// Its address, or what it is called.
    pub(crate) endpoint: String,
    pub(crate) change: Change,
}

impl Asked {
    /// Reads `upstream=app&endpoint=10.0.0.1:80&mode=drain&weight=5&keep=true`.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub(crate) fn from_query(query: Option<&str>) -> Result<Self, String> {
        let mut query = query.unwrap_or_default();
        let (mut upstream, mut endpoint) = (None, None);
        let mut change = Change::default();
        while !query.is_empty() {
            let (name, value) = next_parameter(&mut query)?;
            match name {
                "upstream" => upstream = Some(value),
                "endpoint" => endpoint = Some(value),
                "mode" => change.mode = Some(mode(&value)?),
                "weight" => change.weight = Some(weight(&value)?),
                "keep" => change.keep = flag(&value)?,
                other => {
                    return Err(format!(
                        "there is no parameter {other:?}; there are upstream, endpoint, mode, weight and keep"
                    ));
                }
            }
        }
        if change.mode.is_none() && change.weight.is_none() {
            return Err(
                "nothing is to be changed: give mode=drain, mode=down, mode=enabled or weight=5"
                    .into(),
            );
        }
        Ok(Self {
            upstream: upstream.ok_or("name the upstream as ?upstream=NAME")?,
            endpoint: endpoint.ok_or("name the endpoint as ?endpoint=ADDRESS")?,
            change,
        })
    }
}

fn mode(value: &str) -> Result<Mode, String> {
    match value {
        "enabled" => Ok(Mode::Enabled),
        "drain" => Ok(Mode::Drain),
        "down" => Ok(Mode::Down),
        other => Err(format!("mode is enabled, drain or down, not {other:?}")),
    }
}

fn weight(value: &str) -> Result<Option<NonZeroU32>, String> {
    if value == "default" {
        return Ok(None);
    }
    let weight = value.parse().ok().and_then(NonZeroU32::new);
    match weight.filter(|weight| weight.get() <= MAX_WEIGHT) {
        Some(weight) => Ok(Some(weight)),
        None => Err(format!(
            "weight is a number from 1 to {MAX_WEIGHT}, or default, not {value:?}; to send an endpoint nothing use mode=drain"
        )),
    }
}

fn flag(value: &str) -> Result<bool, String> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        other => Err(format!("keep is true or false, not {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_read_from_a_query() {
        let asked = Asked::from_query(Some(
            "upstream=app&endpoint=%5B%3A%3A1%5D%3A80&mode=drain&weight=5&keep=true",
        ));
        assert_eq!(
            asked,
            Ok(Asked {
                upstream: "app".into(),
                endpoint: "[::1]:80".into(),
                change: Change {
                    mode: Some(Mode::Drain),
                    weight: Some(NonZeroU32::new(5)),
                    keep: true,
                },
            })
        );
        let asked = Asked::from_query(Some("upstream=a&endpoint=b&weight=default"));
        assert_eq!(asked.map(|asked| asked.change.weight), Ok(Some(None)));
    }

    #[test]
    fn what_is_wrong_is_said_with_what_would_be_right() {
        for (query, word) in [
            ("", "mode=drain"),
            ("upstream=a&endpoint=b", "mode=drain"),
            ("endpoint=b&mode=drain", "?upstream="),
            ("upstream=a&mode=drain", "?endpoint="),
            ("upstream=a&endpoint=b&mode=off", "drain or down"),
            ("upstream=a&endpoint=b&weight=0", "from 1 to 1000"),
            ("upstream=a&endpoint=b&weight=1001", "from 1 to 1000"),
            ("upstream=a&endpoint=b&mode=down&keep=yes", "true or false"),
            ("upstream=a&endpoint=b&state=down", "there is no parameter"),
        ] {
            let why = Asked::from_query(Some(query)).expect_err(query);
            assert!(why.contains(word), "{query}: {why}");
        }
    }
}
