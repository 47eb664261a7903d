//! The plan carried out: faults switched on and off by the clock, and what
//! happened when, for the judge.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::cluster::{self, Cluster, NODES};
use crate::plan::{Fault, Plan, Step};
use crate::servers::Edge;
use crate::servers::NAME;
use crate::support::dns::{Dns, hosts};
use crate::support::wait;
use crate::wire::Random;

/// A step as it was; times since the load began.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) step: Step,
    pub(crate) victims: Vec<usize>,
    pub(crate) begun: Duration,
    /// When the fault was over.
    pub(crate) cleared: Duration,
    pub(crate) ended: Duration,
}

/// What the faults are done to.
pub(crate) struct Stage<'a> {
    pub(crate) cluster: &'a mut Cluster,
    pub(crate) dns: Option<&'a Dns>,
    pub(crate) edge: &'a Edge,
    pub(crate) begin: Instant,
}

impl Stage<'_> {
    /// Runs all steps; `random` chooses the nodes they hit.
    pub(crate) fn play(&mut self, plan: &Plan, random: &mut Random) -> Vec<Span> {
        plan.steps
            .iter()
            .map(|step| {
                let victims = random.choose(step.fault.victims(), NODES);
                self.step(*step, victims)
            })
            .collect()
    }

    fn step(&mut self, step: Step, victims: Vec<usize>) -> Span {
        let begun = self.begin.elapsed();
        self.on(step.fault, &victims);
        let until = begun + step.hold;
        if step.reload {
            self.hold_until(begun + step.hold / 2);
            self.edge.reload();
        }
        match step.fault {
            Fault::Dns => {
                // First it is left, then it goes: that is how a node is retired.
                let left = (step.hold / 2).max(Duration::from_millis(2_200));
                self.hold_until(begun + left.min(step.hold * 9 / 10));
                victims.iter().for_each(|nth| self.cluster.kill(*nth));
            }
            Fault::Reloads => {
                let mut next = begun;
                while next < until {
                    self.hold_until(next);
                    self.edge.reload();
                    next += Duration::from_secs(1);
                }
            }
            _ => {}
        }
        self.hold_until(until);
        self.off(step.fault, &victims);
        let cleared = self.begin.elapsed();
        self.hold_until(cleared + step.recover);
        Span {
            step,
            victims,
            begun,
            cleared,
            ended: self.begin.elapsed(),
        }
    }

    fn on(&mut self, fault: Fault, victims: &[usize]) {
        for nth in victims {
            match fault {
                Fault::Kill(_) => self.cluster.kill(*nth),
                Fault::Stop => self.cluster.stop(*nth),
                _ => {}
            }
            if let Some(order) = fault.order() {
                self.cluster.order(*nth, order);
            }
        }
        if let (Fault::Dns, Some(dns)) = (fault, self.dns) {
            let left: Vec<IpAddr> = (0..NODES)
                .filter(|nth| !victims.contains(nth))
                .map(cluster::ip)
                .collect();
            dns.answer(&hosts(NAME, &left));
        }
    }

    fn off(&mut self, fault: Fault, victims: &[usize]) {
        for nth in victims {
            match fault {
                Fault::Kill(_) | Fault::Dns => self.cluster.up(*nth),
                Fault::Stop => self.cluster.go_on(*nth),
                _ => {}
            }
            if fault.order().is_some() {
                self.cluster.order(*nth, "clear");
            }
        }
        if let (Fault::Dns, Some(dns)) = (fault, self.dns) {
            let all: Vec<IpAddr> = (0..NODES).map(cluster::ip).collect();
            dns.answer(&hosts(NAME, &all));
        }
    }

    /// Lets the load run: its going on is what is tested.
    fn hold_until(&self, time: Duration) {
        wait::hold(time.saturating_sub(self.begin.elapsed()));
    }
}
