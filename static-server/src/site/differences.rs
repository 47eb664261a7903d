//! The difference from a release that the client has, instead of the whole file (RFC 9842).

use std::sync::Arc;

use super::{Request, Site, second, signs};
use crate::answer::Answer;
use crate::dictionary::{self, AVAILABLE_DICTIONARY, Delta};
use crate::files::Found;
use crate::resource::{Named, Resource, Seen, Variant};

impl Site {
    /// The answer with a difference, where the client has the right dictionary, takes the coding
    /// and there is one. A difference is a resource of its own in memory.
    pub(super) fn difference(
        &self,
        request: &Request<'_>,
        path: &str,
        resource: &Arc<Resource>,
        at: u64,
    ) -> Option<Answer> {
        request.fields.first(&AVAILABLE_DICTIONARY)?;
        if !self.preparation.has_differences(resource.named(), path) {
            return None;
        }
        let hash = dictionary::Hash::offered(request.fields)?;
        let mut codings = Delta::ALL.to_vec();
        while let Some(coding) = dictionary::negotiate(request.fields, codings.iter().copied()) {
            let path = hash.sibling(path, coding);
            // No path has two slashes in a row: it is apart from the file under its own name.
            let key = format!("//{path}");
            if let Some(found) = self.find_difference(&key, path, resource, at)
                && let Ok(answer) = self.represent(request, &key, &found, at)
            {
                return Some(answer);
            }
            codings.retain(|other| *other != coding);
        }
        None
    }

    /// The difference at `path`, from memory or from the tree that the original is in.
    fn find_difference(
        &self,
        key: &str,
        path: String,
        original: &Arc<Resource>,
        at: u64,
    ) -> Option<Arc<Resource>> {
        let held = self.memory().find(key, at);
        let held = held.filter(|held| Arc::ptr_eq(held.files(), original.files()));
        let found = match held {
            Some(held) if held.trusted(at) => held,
            held => {
                let Some(found) = look(path, original, at) else {
                    self.memory().forget(key);
                    return None;
                };
                match held {
                    Some(held) if held.is_as_good_as(&found) => held,
                    Some(held) => {
                        let found = Arc::new(found.adopt(&held));
                        self.memory().keep(key, &found);
                        found
                    }
                    None => Arc::new(found),
                }
            }
        };
        // One that is older than the original leads to what that once was.
        let age = |of: &Resource| second(&of.plain().facts);
        (age(&found) >= age(original)).then_some(found)
    }
}

fn look(path: String, original: &Resource, at: u64) -> Option<Resource> {
    let files = Arc::clone(original.files());
    files.refresh();
    let signs = signs(&*files, &path);
    let Ok(Found::File(facts)) = files.look(&path) else {
        return None;
    };
    let plain = Variant {
        encoding: None,
        path: path.into(),
        facts,
        ready: None,
    };
    let seen = Seen {
        files,
        plain,
        packed: Vec::new(),
        named: Named::Difference,
        signs,
    };
    Some(Resource::new(seen, at))
}
