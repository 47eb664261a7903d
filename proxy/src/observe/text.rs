//! What a client sent, kept for the log line and no longer.

/// What a client sent, as it came: any bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Text<'a> {
    /// Request method.
    pub(crate) method: &'a [u8],
    /// Host field or `:authority`.
    pub(crate) host: &'a [u8],
    /// Request target: path and query.
    pub(crate) target: &'a [u8],
    /// `User-Agent`; empty when absent.
    pub(crate) user_agent: &'a [u8],
    /// `Referer`; empty when absent.
    pub(crate) referer: &'a [u8],
}

impl<'a> Text<'a> {
    /// Whether a field is longer than a line shows.
    #[must_use]
    pub(crate) fn is_cut(self) -> bool {
        self.fields().iter().any(|field| field.len() > MAX_FIELD)
    }

    fn fields(self) -> [&'a [u8]; FIELDS] {
        [
            self.method,
            self.host,
            self.target,
            self.user_agent,
            self.referer,
        ]
    }
}

const FIELDS: usize = 5;

/// Bytes of one field that a log line shows; the rest is cut off.
pub(crate) const MAX_FIELD: usize = 4096;

/// [`Text`] kept beyond the life of the head that it came from, in one allocation.
///
/// One byte more than [`MAX_FIELD`] is kept of a longer field, so that the log
/// still sees that it was cut.
#[derive(Debug, Clone, Default)]
pub(crate) struct Captured {
    bytes: Vec<u8>,
    ends: [u32; FIELDS],
}

impl Captured {
    /// Copies what the log will need.
    #[must_use]
    pub(crate) fn new(text: Text<'_>) -> Self {
        let fields = text
            .fields()
            .map(|field| field.get(..=MAX_FIELD).unwrap_or(field));
        let mut bytes = Vec::with_capacity(fields.iter().map(|field| field.len()).sum());
        let ends = fields.map(|field| {
            bytes.extend_from_slice(field);
            u32::try_from(bytes.len()).unwrap_or(u32::MAX)
        });
        Self { bytes, ends }
    }

    /// What was captured.
    #[must_use]
    pub(crate) fn text(&self) -> Text<'_> {
        let mut from = 0;
        let [method, host, target, user_agent, referer] = self.ends.map(|end| {
            let to = end as usize;
            let field = self.bytes.get(from..to).unwrap_or_default();
            from = to;
            field
        });
        Text {
            method,
            host,
            target,
            user_agent,
            referer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_captured_comes_back_field_by_field() {
        let text = Text {
            method: b"GET",
            host: b"shop.example",
            target: b"/a?b=\xff",
            user_agent: b"",
            referer: b"https://x/",
        };
        assert_eq!(Captured::new(text).text(), text);
        assert_eq!(Captured::default().text(), Text::default());
    }

    #[test]
    fn an_endless_field_is_captured_up_to_one_byte_past_the_bound() {
        let long = vec![b'a'; 3 * MAX_FIELD];
        let captured = Captured::new(Text {
            target: &long,
            user_agent: b"curl",
            ..Text::default()
        });
        assert_eq!(captured.text().target.len(), MAX_FIELD + 1);
        assert_eq!(captured.text().user_agent, b"curl");
    }
}
