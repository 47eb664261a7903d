//! What an input says that is to be done.
//!
//! An input is a text, so that what a mutation does to it stays near: octets to send, and between
//! them signs that say where they are cut and what happens there.

/// Most steps of an input; what is behind them is one more.
const MOST_STEPS: usize = 24;

/// Octets that one digit stands for.
const BLOCK: usize = 16 * 1024;

/// Most octets of such blocks in one input.
const MOST_FILLING: usize = 256 * 1024;

/// One step, done when all that came of the one before is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// `~|` ends these octets and begins others.
    Send(Vec<u8>),
    /// `~n`: the next one's turn.
    Next,
    /// `~c`: no more is sent.
    Finish,
    /// `~r`: the connection is reset.
    Reset,
}

/// The steps of an input. `~x5` are five [`BLOCK`]s, `~u` is `run`, which no other run has.
pub(super) fn steps(input: &[u8], run: u64) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut octets = Vec::new();
    let mut filling = 0;
    let mut rest = input;
    while let Some((&first, behind)) = rest.split_first() {
        rest = behind;
        if first != b'~' || steps.len() >= MOST_STEPS {
            octets.push(first);
            continue;
        }
        let step = match rest {
            [b'|', ..] => None,
            [b'n', ..] => Some(Step::Next),
            [b'c', ..] => Some(Step::Finish),
            [b'r', ..] => Some(Step::Reset),
            [b'u', behind @ ..] => {
                rest = behind;
                octets.extend_from_slice(format!("{run:x}").as_bytes());
                continue;
            }
            [b'x', digit @ b'0'..=b'9', behind @ ..] => {
                rest = behind;
                let more = usize::from(digit - b'0') * BLOCK;
                if filling + more <= MOST_FILLING {
                    filling += more;
                    octets.resize(octets.len() + more, b'x');
                }
                continue;
            }
            _ => {
                octets.push(first);
                continue;
            }
        };
        rest = &rest[1..];
        flush(&mut octets, &mut steps);
        steps.extend(step);
    }
    flush(&mut octets, &mut steps);
    steps
}

fn flush(octets: &mut Vec<u8>, steps: &mut Vec<Step>) {
    if !octets.is_empty() {
        steps.push(Step::Send(std::mem::take(octets)));
    }
}
