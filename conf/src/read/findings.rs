//! What was found while reading, collected to be shown all at once.

use std::cell::RefCell;

use crate::diagnostic::{Diagnostic, Severity};
use crate::source::{FileId, Place, Sources};

/// One finding before it is rendered.
#[derive(Debug, Clone)]
pub(crate) struct Finding {
    pub(crate) place: Place,
    severity: Severity,
    message: String,
    label: Option<String>,
    help: Vec<String>,
    also: Vec<(&'static str, Place)>,
    syntax: bool,
}

impl Finding {
    pub(crate) fn error(place: Place, message: impl Into<String>) -> Self {
        Self {
            place,
            severity: Severity::Error,
            message: message.into(),
            label: None,
            help: Vec::new(),
            also: Vec::new(),
            syntax: false,
        }
    }

    pub(crate) fn warning(place: Place, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(place, message)
        }
    }

    /// A mistake of syntax; what is found later about the same value is only its consequence.
    pub(crate) fn syntax(place: Place, message: impl Into<String>) -> Self {
        Self {
            syntax: true,
            ..Self::error(place, message)
        }
    }

    /// What stands beside the caret.
    #[must_use]
    pub(crate) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// A line below the picture.
    #[must_use]
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    /// Names another place: `note: {text} file:line:column`.
    #[must_use]
    pub(crate) fn also(mut self, text: &'static str, place: Place) -> Self {
        self.also.push((text, place));
        self
    }

    fn render(self, sources: &Sources) -> Diagnostic {
        let (line, column) = sources.position(self.place);
        let mut help = self.help;
        for (text, place) in self.also {
            help.push(format!("note: {text} {}", sources.name(place)));
        }
        Diagnostic {
            severity: self.severity,
            file: sources.path(self.place.file).to_owned(),
            line,
            column,
            message: self.message,
            excerpt: sources.excerpt(self.place),
            label: self.label,
            help,
        }
    }
}

/// All findings.
#[derive(Debug, Default)]
pub(crate) struct Findings(RefCell<Vec<Finding>>);

impl Findings {
    pub(crate) fn add(&self, finding: Finding) {
        self.0.borrow_mut().push(finding);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Each in one line, in the order of their places; `name` says where a place is.
    pub(crate) fn lines(self, name: impl Fn(Place) -> String) -> Vec<String> {
        let mut found = self.0.into_inner();
        found.sort_by_key(|finding| finding.place.start);
        let mut lines: Vec<String> = found
            .into_iter()
            .map(|finding| {
                let also = finding.also.iter();
                let also = also.map(|(text, place)| format!("{text} {}", name(*place)));
                let rest = finding.label.into_iter().chain(also);
                let rest: String = rest.map(|more| format!("; {more}")).collect();
                format!("{}: {}{rest}", name(finding.place), finding.message)
            })
            .collect();
        lines.dedup();
        lines
    }

    /// Rendered in file order: errors and warnings apart. The same finding twice is told once.
    pub(crate) fn finish(self, sources: &Sources) -> (Vec<Diagnostic>, Vec<Diagnostic>) {
        let mut found = self.0.into_inner();
        let broken: Vec<(FileId, usize)> = found
            .iter()
            .filter(|finding| finding.syntax)
            .map(|finding| (finding.place.file, finding.place.start))
            .collect();
        found.retain(|finding| {
            finding.syntax || !broken.contains(&(finding.place.file, finding.place.start))
        });
        found.sort_by_key(|finding| {
            let place = finding.place;
            (place.file, !place.whole, place.start)
        });
        let mut rendered: Vec<Diagnostic> = found.into_iter().map(|f| f.render(sources)).collect();
        rendered.dedup();
        rendered
            .into_iter()
            .partition(|diagnostic| diagnostic.severity == Severity::Error)
    }
}
