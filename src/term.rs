//! The one place that writes to the terminal.
//!
//! Results go to standard output, everything else to standard error. Colour is
//! used only where standard error is a terminal and `NO_COLOR` (no-color.org) is
//! unset or empty.

use std::borrow::Cow;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::process::ExitCode;

const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[1;33m";
const CYAN: &str = "\x1b[36m";
const PLAIN: &str = "\x1b[0m";

/// Writes a result and a line end to standard output.
///
/// A reader that has gone (`tidegate schema | head -1`) is not an error.
///
/// # Errors
/// When standard output cannot be written, for example because the disk is full.
pub(crate) fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let written = out
        .write_all(text.as_bytes())
        .and_then(|()| {
            if text.ends_with('\n') {
                Ok(())
            } else {
                out.write_all(b"\n")
            }
        })
        .and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Writes findings and a line end to standard error, coloured where that helps.
///
/// Nobody is left to tell when standard error itself fails.
pub(crate) fn complain(text: &str) {
    let shown = if coloured() {
        Cow::Owned(paint(text))
    } else {
        Cow::Borrowed(text)
    };
    let _ = writeln!(io::stderr().lock(), "{}", shown.trim_end_matches('\n'));
}

/// Shows what clap has to say (an error, the help, the version) and gives its exit code.
pub(crate) fn clap(told: &clap::Error) -> ExitCode {
    let printed = told.print();
    match (u8::try_from(told.exit_code()), printed) {
        (Ok(code), Ok(())) => ExitCode::from(code),
        (Ok(code), Err(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::from(code),
        _ => ExitCode::FAILURE,
    }
}

fn coloured() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !refused && io::stderr().is_terminal()
}

/// Colours the severity, the caret and the help of findings; leaves the rest.
fn paint(text: &str) -> String {
    text.lines().map(|line| paint_line(line) + "\n").collect()
}

fn paint_line(line: &str) -> String {
    for (word, colour) in [("error:", RED), ("warning:", YELLOW)] {
        if let Some(at) = line.find(word)
            && (at == 0 || line[..at].ends_with(": "))
        {
            let (before, after) = (&line[..at], &line[at + word.len()..]);
            return format!("{before}{colour}{word}{PLAIN}{after}");
        }
    }
    if let Some(mark) = line.trim_start().strip_prefix("| ")
        && mark.trim_start().starts_with('^')
    {
        let at = line.len() - mark.trim_start().len();
        return format!("{}{RED}{}{PLAIN}", &line[..at], &line[at..]);
    }
    if line.trim_start().starts_with("= ") {
        return format!("{CYAN}{line}{PLAIN}");
    }
    line.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_severity_and_the_caret_are_coloured_and_the_users_text_is_not() {
        let text = "a.toml:2:1: error: unknown key `x`\n  |\n2 | x = \"error: y\"\n  | ^ did you mean `y`?\n  = help: z";
        let painted = paint(text);
        let lines: Vec<&str> = painted.lines().collect();
        assert_eq!(
            lines[0],
            "a.toml:2:1: \x1b[1;31merror:\x1b[0m unknown key `x`"
        );
        assert_eq!(
            lines[2], "2 | x = \"error: y\"",
            "a quoted line of the file stays as it is"
        );
        assert_eq!(lines[3], "  | \x1b[1;31m^ did you mean `y`?\x1b[0m");
        assert_eq!(lines[4], "\x1b[36m  = help: z\x1b[0m");
    }

    #[test]
    fn a_line_without_findings_is_left_alone() {
        assert_eq!(paint_line("nothing to see"), "nothing to see");
    }
}
