//! Changes fields of a request or a response, as configured: removes, then
//! sets, then adds.
//!
//! It sees fields only through [`FieldsMut`], so that the same edits work on
//! an `http` map and on Pingora's headers. Which fields may be configured is
//! the configuration's affair.

use conf::HeaderOps;
use http::{HeaderMap, HeaderName, HeaderValue};

/// Fields that can be changed.
pub(crate) trait FieldsMut {
    /// Takes out every line of the field.
    fn remove(&mut self, name: &HeaderName);
    /// Leaves exactly one line of the field.
    fn set(&mut self, name: HeaderName, value: HeaderValue);
    /// Puts one more line behind those of the field.
    fn add(&mut self, name: HeaderName, value: HeaderValue);
}

impl FieldsMut for HeaderMap {
    fn remove(&mut self, name: &HeaderName) {
        HeaderMap::remove(self, name);
    }

    fn set(&mut self, name: HeaderName, value: HeaderValue) {
        self.insert(name, value);
    }

    fn add(&mut self, name: HeaderName, value: HeaderValue) {
        self.append(name, value);
    }
}

/// Compiled edits.
#[derive(Debug, Clone, Default)]
pub(crate) struct HeaderEdits(Vec<Edit>);

#[derive(Debug, Clone)]
enum Edit {
    Remove(HeaderName),
    Set(HeaderName, HeaderValue),
    Add(HeaderName, HeaderValue),
}

impl HeaderEdits {
    /// Brings the operations into the order in which they are applied.
    #[must_use]
    pub(crate) fn new(ops: &HeaderOps) -> Self {
        let removes = ops.remove.iter().cloned().map(Edit::Remove);
        let sets = ops
            .set
            .iter()
            .cloned()
            .map(|(name, value)| Edit::Set(name, value));
        let adds = ops
            .add
            .iter()
            .cloned()
            .map(|(name, value)| Edit::Add(name, value));
        Self(removes.chain(sets).chain(adds).collect())
    }

    /// Whether there are none.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Applies them all.
    pub(crate) fn apply(&self, fields: &mut dyn FieldsMut) {
        for edit in &self.0 {
            match edit {
                Edit::Remove(name) => fields.remove(name),
                Edit::Set(name, value) => fields.set(name.clone(), value.clone()),
                Edit::Add(name, value) => fields.add(name.clone(), value.clone()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::header::{CACHE_CONTROL, LINK, SERVER, VARY};
    use http::{HeaderMap, HeaderValue};

    use super::HeaderEdits;

    fn value(text: &'static str) -> HeaderValue {
        HeaderValue::from_static(text)
    }

    #[test]
    fn fields_are_removed_then_set_then_added() {
        let mut fields = HeaderMap::new();
        fields.append(SERVER, value("app"));
        fields.append(SERVER, value("framework"));
        fields.append(CACHE_CONTROL, value("no-store"));
        fields.append(CACHE_CONTROL, value("private"));
        fields.append(LINK, value("</a.css>"));
        let edits = HeaderEdits::new(&conf::HeaderOps {
            remove: vec![SERVER, VARY],
            set: vec![(CACHE_CONTROL, value("public")), (VARY, value("accept"))],
            add: vec![(LINK, value("</b.css>")), (VARY, value("cookie"))],
        });
        edits.apply(&mut fields);
        let all = |name| fields.get_all(name).iter().cloned().collect::<Vec<_>>();
        assert!(!fields.contains_key(SERVER));
        assert_eq!(all(CACHE_CONTROL), [value("public")]);
        assert_eq!(all(LINK), [value("</a.css>"), value("</b.css>")]);
        assert_eq!(all(VARY), [value("accept"), value("cookie")]);
    }
}
