//! Certificates that are to be ordered now, as it is asked for.

use crate::exchange::purging::next_parameter;

/// Which certificates; those that are obtained by themselves only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OrderAsked {
    /// The one with this name; `None`: all.
    pub(crate) name: Option<String>,
    /// Only where there is none that could be used.
    pub(crate) missing: bool,
}

impl OrderAsked {
    /// Reads `name=shop.example&missing=true`.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub(crate) fn from_query(query: Option<&str>) -> Result<Self, String> {
        let mut query = query.unwrap_or_default();
        let mut asked = Self::default();
        while !query.is_empty() {
            let (name, value) = next_parameter(&mut query)?;
            match (name, value.as_str()) {
                ("name", "") => return Err("name is a host, such as name=shop.example".into()),
                ("name", _) => asked.name = Some(value.to_ascii_lowercase()),
                ("missing", "true" | "1") => asked.missing = true,
                ("missing", "false" | "0") => asked.missing = false,
                ("missing", other) => {
                    return Err(format!("missing is true or false, not {other:?}"));
                }
                (other, _) => {
                    return Err(format!(
                        "there is no parameter {other:?}; there are name and missing"
                    ));
                }
            }
        }
        Ok(asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_whether_only_what_is_missing_are_read() {
        let read = OrderAsked::from_query;
        assert_eq!(read(None), Ok(OrderAsked::default()));
        let asked = OrderAsked {
            name: Some("*.shop.example".into()),
            missing: true,
        };
        assert_eq!(read(Some("name=%2A.Shop.example&missing=1")), Ok(asked));
        for wrong in ["name=", "missing=perhaps", "host=a"] {
            assert!(read(Some(wrong)).is_err(), "{wrong}");
        }
    }
}
