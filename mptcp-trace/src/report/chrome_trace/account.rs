//! What a trace says about the run as a whole: its origin, and what is missing.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use super::events::Args;
use crate::{
    model::{Facts, Loss},
    observe::State,
    report::{Ending, words::count},
};

/// Most network namespaces whose disagreement is listed.
const NAMESPACES_MAX: usize = 10;

/// The run behind a trace.
#[derive(Debug)]
pub struct Account<'a> {
    /// Title of the trace.
    pub title: &'a str,
    /// Facts recorded at the start of the capture.
    pub facts: &'a Facts,
    /// Losses and kernel counters.
    pub state: &'a State,
    /// How the capture ends.
    pub ending: &'a Ending,
    /// Findings were filtered.
    pub is_selection: bool,
}

impl Account<'_> {
    fn untraced(&self) -> u64 {
        let each = self.state.losses.sensors.iter().map(Loss::untraced);
        each.fold(0, u64::saturating_add)
    }

    fn differ(&self) -> u64 {
        let differ = |it: &&crate::model::Reconciliation| !it.agrees() && !it.unread;
        self.state.reconciled.iter().filter(differ).count() as u64
    }

    /// What is missing, in a few words.
    pub(super) fn title(&self) -> String {
        let mut words = Vec::new();
        match self.ending {
            Ending::Orderly => {}
            Ending::CutOff => words.push("the capture is cut off: losses are unknown".to_owned()),
            Ending::Damaged(_) => {
                words.push("the capture is damaged: losses are unknown".to_owned());
            }
        }
        let missing = [
            (
                self.untraced(),
                "event lost or not traced",
                "events lost or not traced",
            ),
            (
                self.state.undecodable,
                "record undecodable",
                "records undecodable",
            ),
            (
                self.state.evicted,
                "connection evicted",
                "connections evicted",
            ),
            (
                self.differ(),
                "network namespace in which the kernel counted other fallbacks",
                "network namespaces in which the kernel counted other fallbacks",
            ),
        ];
        let missing = missing.into_iter().filter(|(number, ..)| *number > 0);
        words.extend(missing.map(|(number, one, many)| count(number, one, many)));
        match words.is_empty() {
            true => "no losses".to_owned(),
            false => words.join(", "),
        }
    }

    /// Losses and the kernel's own counts.
    pub(super) fn losses(&self) -> Args {
        let state = self.state;
        let ending = match self.ending {
            Ending::Orderly => "orderly",
            Ending::CutOff => "cut off",
            Ending::Damaged(_) => "damaged",
        };
        let damage = match self.ending {
            Ending::Damaged(why) => Some(why),
            Ending::Orderly | Ending::CutOff => None,
        };
        let sensors = state
            .losses
            .sensors
            .iter()
            .fold(Args::default(), |args, loss| {
                let counters = loss.counters().into_iter();
                let counters = counters.fold(Args::default(), |args, (name, number)| {
                    args.number(name, number)
                });
                let counters = counters.flag("adds_up", loss.balances());
                args.object(loss.sensor.name(), counters)
            });
        let unread = state.reconciled.iter().filter(|it| it.unread).count() as u64;
        let agree = state.reconciled.len() as u64 - unread - self.differ();
        let complaints = state.reconciled.iter().filter(|it| !it.agrees());
        let complaints = complaints.take(NAMESPACES_MAX).map(|it| {
            Args::default()
                .number("netns", u64::from(it.netns))
                .text("why", it.why.as_deref().unwrap_or_default())
        });
        let counters = Args::default()
            .number("namespaces_agree", agree)
            .number("namespaces_differ", self.differ())
            .number("namespaces_unread", unread)
            .list("complaints", complaints);
        Args::default()
            .text("capture_end", ending)
            .maybe(damage, |args, why| args.text("damage", why))
            .number("untraced", self.untraced())
            .number("undecodable", state.undecodable)
            .number("evicted", state.evicted)
            .object("sensors", sensors)
            .object("kernel_counters", counters)
    }

    /// Origin of the trace, with the losses. `origin` is its zero on `CLOCK_BOOTTIME`.
    pub(super) fn other(&self, origin: Duration) -> Args {
        let epoch = self.facts.boot_epoch.checked_add(origin);
        let start = epoch.and_then(|epoch| SystemTime::UNIX_EPOCH.checked_add(epoch));
        let start = start.and_then(|start| Timestamp::try_from(start).ok());
        let origin = u64::try_from(origin.as_nanos()).unwrap_or(u64::MAX);
        let sensors = self.facts.sensors.iter().map(|it| {
            Args::default()
                .text("sensor", it.sensor.name())
                .text("attach_method", it.rung.name())
                .number("limits", it.limits.len() as u64)
        });
        Args::default()
            .text("title", self.title)
            .text("writer", concat!("mptcp-trace ", env!("CARGO_PKG_VERSION")))
            .text("captured_by", format!("mptcp-trace {}", self.facts.version))
            .text("kernel", &self.facts.kernel)
            .maybe(start, |args, start| {
                args.text("ts_zero_time", format!("{start:.9}"))
            })
            .number("ts_zero_boottime_ns", origin)
            .flag("is_selection", self.is_selection)
            .number("not_shown", self.state.not_shown)
            .list("sensors", sensors)
            .object("losses", self.losses())
    }
}
