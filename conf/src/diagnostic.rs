//! A finding in a configuration file, and how it is shown.
//!
//! Plain text only; colour is the caller's. The first line has the form
//! `file:line:column: error: message` that editors and terminals can jump to.

use std::fmt;
use std::path::PathBuf;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can be used, but something in it is probably not meant so.
    Warning,
}

impl Severity {
    /// The word shown: `error` or `warning`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One finding.
///
/// Displayed over several lines without a final newline:
///
/// ```text
/// shop.toml:2:1: error: unknown key `adress` in [[listener]]
///   |
/// 2 | adress = "127.0.0.1:8080"
///   | ^^^^^^ did you mean `address`?
///   = help: keys here: name, address, tls, protocols, limits
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether the configuration can be used in spite of it.
    pub severity: Severity,
    /// The file, as it was named on the command line or by `include`.
    pub file: PathBuf,
    /// 1-based line; 0 where the finding concerns the file as a whole.
    pub line: usize,
    /// 1-based column in characters; 0 with line 0.
    pub column: usize,
    /// What is wrong, in one line.
    pub message: String,
    /// The line itself, where there is one. Secrets in it are masked.
    pub excerpt: Option<Excerpt>,
    /// What stands beside the caret: usually what was expected.
    pub label: Option<String>,
    /// How to mend it, and what else is worth knowing; each one line.
    pub help: Vec<String>,
}

/// The offending line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt {
    /// The line without its end; only a window of it where it is long.
    pub text: String,
    /// Characters of `text` before the caret.
    pub indent: usize,
    /// Characters marked, at least one.
    pub width: usize,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.column)?;
        }
        write!(f, " {}: {}", self.severity.as_str(), self.message)?;
        let number = if self.line > 0 {
            self.line.to_string()
        } else {
            String::new()
        };
        let gutter = " ".repeat(number.len());
        if let Some(excerpt) = &self.excerpt {
            write!(f, "\n{gutter} |\n{number} | {}", excerpt.text)?;
            write!(f, "\n{gutter} | {}", excerpt.underline())?;
            if let Some(label) = &self.label {
                write!(f, " {label}")?;
            }
        } else if let Some(label) = &self.label {
            write!(f, "\n{gutter} = expected: {label}")?;
        }
        for help in &self.help {
            write!(f, "\n{gutter} = {help}")?;
        }
        Ok(())
    }
}

impl Excerpt {
    /// Spaces up to the marked text and carets under it. Tabs stay tabs, so that
    /// the carets stand right whatever width the terminal gives them.
    fn underline(&self) -> String {
        let mut line: String = self
            .text
            .chars()
            .take(self.indent)
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        line.extend(std::iter::repeat_n('^', self.width.max(1)));
        line
    }
}

/// Why a configuration cannot be used: every mistake in it, in file order.
///
/// Displayed as all of them with an empty line between, without a final newline.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", render(.diagnostics))]
pub struct LoadError {
    /// At least one, all of severity [`Severity::Error`].
    pub diagnostics: Vec<Diagnostic>,
}

fn render(diagnostics: &[Diagnostic]) -> String {
    let each: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
    each.join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            file: "a.toml".into(),
            line: 12,
            column: 2,
            message: "wrong".into(),
            excerpt: Some(Excerpt {
                text: "\tkey = 1".into(),
                indent: 1,
                width: 3,
            }),
            label: Some("did you mean `kex`?".into()),
            help: vec!["help: write it so".into()],
        }
    }

    #[test]
    fn the_picture_keeps_tabs_and_lines_up_the_gutter() {
        let shown = sample().to_string();
        assert_eq!(
            shown,
            "a.toml:12:2: error: wrong\n   |\n12 | \tkey = 1\n   | \t^^^ did you mean `kex`?\n   = help: write it so"
        );
    }

    #[test]
    fn a_finding_about_the_whole_file_has_no_line() {
        let whole = Diagnostic {
            line: 0,
            column: 0,
            excerpt: None,
            label: None,
            help: Vec::new(),
            ..sample()
        };
        assert_eq!(whole.to_string(), "a.toml: error: wrong");
    }

    #[test]
    fn all_findings_are_shown_one_after_the_other() {
        let error = LoadError {
            diagnostics: vec![sample(), sample()],
        };
        assert_eq!(error.to_string().matches("error: wrong").count(), 2);
    }
}
