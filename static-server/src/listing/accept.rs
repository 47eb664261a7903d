//! A page or JSON: what `Accept` prefers (RFC 9110, 12.5.1).

use http::header::ACCEPT;

use crate::encoding::thousandths;
use crate::fields::{Fields, trim};

/// How a listing is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// HTML, for people.
    Page,
    /// A JSON array, for programs.
    Json,
}

impl Form {
    /// What the client prefers. JSON only where it stands higher than HTML: who takes both, or
    /// names neither, gets the page.
    pub fn preferred(fields: &dyn Fields) -> Self {
        let mut page = Wish::default();
        let mut json = Wish::default();
        fields.each(&ACCEPT, &mut |line| {
            for member in line.split(|&byte| byte == b',') {
                page.hear(member, b"text", b"html");
                json.hear(member, b"application", b"json");
            }
        });
        if json.weight > 0 && json.strength() > page.strength() {
            Self::Json
        } else {
            Self::Page
        }
    }
}

/// How much a client wants a type.
#[derive(Clone, Copy, Default)]
struct Wish {
    /// How exactly it was named: not at all, by `*/*`, by `type/*`, by name.
    precision: u8,
    /// In thousandths.
    weight: u16,
}

impl Wish {
    /// Equal weights are told apart by precision: `application/json, */*`, which many
    /// libraries send, is a wish for JSON.
    fn strength(self) -> (u16, u8) {
        (self.weight, self.precision)
    }

    /// The most exact member decides, whatever its weight (12.5.1); the last of equals.
    fn hear(&mut self, member: &[u8], kind: &[u8], subtype: &[u8]) {
        let mut parts = member.split(|&byte| byte == b';').map(trim);
        let range = parts.next().unwrap_or_default();
        let mut halves = range.splitn(2, |&byte| byte == b'/');
        let (Some(left), Some(right)) = (halves.next(), halves.next()) else {
            return;
        };
        let precision = match (left, right) {
            (b"*", b"*") => 1,
            (left, b"*") if left.eq_ignore_ascii_case(kind) => 2,
            (left, right)
                if left.eq_ignore_ascii_case(kind) && right.eq_ignore_ascii_case(subtype) =>
            {
                3
            }
            _ => return,
        };
        let mut weight = 1_000;
        for parameter in parts {
            if let Some((name, value)) = parameter.split_at_checked(2)
                && name.eq_ignore_ascii_case(b"q=")
            {
                match thousandths(value) {
                    Some(said) => weight = said,
                    None => return,
                }
            }
        }
        if precision >= self.precision {
            *self = Self { precision, weight };
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn form(accept: &str) -> Form {
        let mut map = HeaderMap::new();
        map.insert(ACCEPT, HeaderValue::from_str(accept).unwrap());
        Form::preferred(&map)
    }

    #[test]
    fn browsers_and_those_who_do_not_say_get_the_page() {
        assert_eq!(Form::preferred(&HeaderMap::new()), Form::Page);
        for accept in [
            "",
            "*/*",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "text/html, application/json",
            "text/*, application/json;q=0.9",
            "image/png",
            "application/json;q=0",
            "application/json;q=0, */*",
            "application/*",
            "application/json;q=high",
            "json",
        ] {
            let expected = match accept {
                // Not by name, but above HTML, which is not taken at all.
                "application/*" => Form::Json,
                _ => Form::Page,
            };
            assert_eq!(form(accept), expected, "{accept:?}");
        }
    }

    #[test]
    fn programs_that_prefer_json_get_it() {
        for accept in [
            "application/json",
            "Application/JSON",
            "application/json; charset=utf-8",
            "application/json, text/plain, */*",
            "text/html;q=0.5, application/json;q=0.6",
            "text/html;q=0, */*",
            "application/json;q=0.001",
            "text/html;q=0.9,application/json",
        ] {
            assert_eq!(form(accept), Form::Json, "{accept:?}");
        }
    }

    #[test]
    fn several_lines_are_one_list() {
        let mut map = HeaderMap::new();
        map.append(ACCEPT, HeaderValue::from_static("text/html;q=0.2"));
        map.append(ACCEPT, HeaderValue::from_static("application/json"));
        assert_eq!(Form::preferred(&map), Form::Json);
    }

    proptest! {
        #[test]
        fn any_text_gets_a_form(accept in "[ -~]{0,60}") {
            form(&accept);
        }
    }
}
