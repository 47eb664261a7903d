//! What is done to the nodes, when, and for how long.

use std::time::Duration;

/// What is wrong during a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// SIGKILL to so many nodes, which are started again on the same ports.
    Kill(usize),
    /// SIGSTOP, then SIGCONT.
    Stop,
    /// Every reply a second late, the health page's too.
    Slow,
    /// Requests are read and not answered; the health page is.
    Silent,
    /// Every second reply is reset in the middle of its head.
    ResetHead,
    /// Every second reply is reset in the middle of its body.
    ResetBody,
    /// 30 % of the requests get a 503.
    Errors,
    /// The health page is good twice, bad twice, and so on; requests are answered.
    Flap,
    /// Two addresses go from the name, later their nodes are killed; then both come back.
    Dns,
    /// The edge reloads its configuration about once a second.
    Reloads,
}

impl Fault {
    /// Nodes that it hits.
    pub(crate) fn victims(self) -> usize {
        match self {
            Self::None | Self::Reloads => 0,
            Self::Kill(count) => count,
            Self::Dns => 2,
            _ => 1,
        }
    }

    /// The order that switches it on in a node.
    pub(crate) fn order(self) -> Option<&'static str> {
        Some(match self {
            Self::Slow => "slow 1000",
            Self::Silent => "silent 1",
            Self::ResetHead => "head 50",
            Self::ResetBody => "body 50",
            Self::Errors => "errors 30",
            Self::Flap => "flap 1",
            _ => return None,
        })
    }
}

/// One fault and the time after it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) fault: Fault,
    /// How long it lasts.
    pub(crate) hold: Duration,
    /// How long nothing is wrong after it.
    pub(crate) recover: Duration,
    /// The edge is told to reload in the middle of the fault.
    pub(crate) reload: bool,
}

/// Name, fault, tenths of a second that it lasts and that follow, reload.
type Row = (&'static str, Fault, u32, u32, bool);

/// 120 seconds. What follows a fault is longer than a return takes with slow start.
const FULL: &[Row] = &[
    ("warm-up", Fault::None, 10, 0, false),
    ("calm", Fault::None, 70, 0, false),
    ("a node killed, reload", Fault::Kill(1), 60, 50, true),
    ("a node stopped", Fault::Stop, 60, 50, false),
    ("a node a second late", Fault::Slow, 60, 50, false),
    ("answers checks only", Fault::Silent, 60, 50, false),
    ("resets within the head", Fault::ResetHead, 50, 40, false),
    ("30 % 503, reload", Fault::Errors, 60, 40, true),
    ("health page flaps", Fault::Flap, 50, 30, false),
    ("two leave the DNS", Fault::Dns, 60, 30, false),
    ("reloads", Fault::Reloads, 50, 10, false),
    ("two nodes killed", Fault::Kill(2), 50, 50, false),
    ("resets within the body", Fault::ResetBody, 40, 20, false),
    ("five of six killed", Fault::Kill(5), 40, 60, false),
];

/// 25 seconds: what a change is likely to break. What follows a fault is long
/// enough for a node to count as well again: "one node is well" means that the
/// edge's checks could have seen it.
const SHORT: &[Row] = &[
    ("warm-up", Fault::None, 5, 0, false),
    ("calm", Fault::None, 20, 0, false),
    ("a node killed, reload", Fault::Kill(1), 20, 15, true),
    ("a node stopped", Fault::Stop, 30, 15, false),
    ("resets within the head", Fault::ResetHead, 20, 10, false),
    ("30 % 503, reload", Fault::Errors, 20, 10, true),
    ("two leave the DNS", Fault::Dns, 28, 20, false),
    ("five of six killed", Fault::Kill(5), 17, 20, false),
];

/// From so many seconds on the full plan is run, and its times are judged.
const FULL_FROM: u32 = 90;

/// The steps of one run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    /// All faults, with time enough after each to judge the recovery.
    pub(crate) full: bool,
}

impl Plan {
    /// Takes about so many seconds.
    pub(crate) fn of(seconds: u32) -> Self {
        let full = seconds >= FULL_FROM;
        let rows = if full { FULL } else { SHORT };
        let tenths: u32 = rows.iter().map(|row| row.2 + row.3).sum();
        let scaled = |part: u32| Duration::from_secs(1) * seconds * part / tenths;
        let step = |&(name, fault, hold, recover, reload): &Row| Step {
            name,
            fault,
            hold: scaled(hold),
            recover: scaled(recover),
            reload,
        };
        Self {
            steps: rows.iter().map(step).collect(),
            full,
        }
    }
}
