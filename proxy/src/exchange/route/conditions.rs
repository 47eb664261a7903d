//! What a route asks for beyond host and path: method, fields, query parameters.

use std::borrow::Cow;

use conf::{FieldMatch, Match, ValueMatch};
use http::{HeaderName, Method};

use super::Query;

/// The conditions of one route.
#[derive(Debug)]
pub(super) struct Conditions {
    /// Any of these; empty: every one.
    methods: Box<[Method]>,
    fields: Box<[FieldMatch<HeaderName>]>,
    parameters: Box<[FieldMatch<String>]>,
}

/// Whether a request meets them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Fits,
    /// All but the method.
    WrongMethod,
    Fails,
}

impl Conditions {
    pub(super) fn new(matcher: &Match) -> Self {
        Self {
            methods: matcher.methods.clone().into(),
            fields: matcher.headers.clone().into(),
            parameters: matcher.query.clone().into(),
        }
    }

    /// How many: a list of methods is one.
    pub(super) fn count(&self) -> usize {
        usize::from(!self.methods.is_empty()) + self.fields.len() + self.parameters.len()
    }

    pub(super) fn methods(&self) -> &[Method] {
        &self.methods
    }

    pub(super) fn judge(&self, query: &Query<'_>) -> Verdict {
        let others = self
            .fields
            .iter()
            .all(|condition| field_fits(condition, query))
            && self
                .parameters
                .iter()
                .all(|condition| parameter_fits(condition, query));
        if !others {
            Verdict::Fails
        } else if self.methods.is_empty() || self.methods.contains(query.view.method()) {
            Verdict::Fits
        } else {
            Verdict::WrongMethod
        }
    }
}

/// One of the field's lines must have the value. A value that is not UTF-8
/// matches no regex.
fn field_fits(condition: &FieldMatch<HeaderName>, query: &Query<'_>) -> bool {
    let mut present = false;
    let mut fits = false;
    query.view.each_field(&condition.name, &mut |value| {
        present = true;
        fits |= match &condition.value {
            ValueMatch::Present | ValueMatch::Absent => true,
            ValueMatch::Exact(wanted) => value == wanted.as_bytes(),
            ValueMatch::Regex(regex) => std::str::from_utf8(value).is_ok_and(|v| regex.is_match(v)),
        };
    });
    match condition.value {
        ValueMatch::Absent => !present,
        _ => fits,
    }
}

/// One of the parameters of that name must have the value. Names and values
/// are compared as a form means them: `+` is a space and escapes are decoded;
/// what is not UTF-8 then matches no regex. A parameter without `=` is empty.
fn parameter_fits(condition: &FieldMatch<String>, query: &Query<'_>) -> bool {
    let pairs = query
        .query
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty());
    let mut values = pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .filter(|(name, _)| *decode(name) == *condition.name.as_bytes())
        .map(|(_, value)| value);
    match &condition.value {
        ValueMatch::Present => values.next().is_some(),
        ValueMatch::Absent => values.next().is_none(),
        ValueMatch::Exact(wanted) => values.any(|value| *decode(value) == *wanted.as_bytes()),
        ValueMatch::Regex(regex) => {
            values.any(|value| std::str::from_utf8(&decode(value)).is_ok_and(|v| regex.is_match(v)))
        }
    }
}

/// Undoes form encoding; an escape that is none stays as it is. Borrowed where
/// there is nothing to undo.
fn decode(text: &str) -> Cow<'_, [u8]> {
    let bytes = text.as_bytes();
    if !bytes.iter().any(|b| matches!(b, b'%' | b'+')) {
        return Cow::Borrowed(bytes);
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = if bytes[at] == b'%' {
            octet(&bytes[at + 1..])
        } else {
            None
        };
        out.push(match bytes[at] {
            b'+' => b' ',
            byte => escaped.unwrap_or(byte),
        });
        at += if escaped.is_some() { 3 } else { 1 };
    }
    Cow::Owned(out)
}

/// The octet that two hexadecimal digits at the beginning of `bytes` stand for.
fn octet(bytes: &[u8]) -> Option<u8> {
    let digit = |at: usize| {
        char::from(*bytes.get(at)?)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    Some(digit(0)? << 4 | digit(1)?)
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn form_encoding_is_undone() {
        assert_eq!(&*decode("plain"), b"plain");
        assert_eq!(&*decode("a+b%20c%c3%A4%2B"), "a b c\u{e4}+".as_bytes());
        assert_eq!(&*decode("100%"), b"100%");
        assert_eq!(&*decode("%zz%4"), b"%zz%4");
    }
}
