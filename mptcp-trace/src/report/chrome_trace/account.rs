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
        let fallbacks = self.state.reconciled.fallbacks.iter();
        fallbacks.filter(|it| it.differs()).count() as u64
    }

    fn paths_differ(&self) -> u64 {
        let paths = self.state.reconciled.paths.iter();
        paths.filter(|it| it.differs()).count() as u64
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
            (
                self.paths_differ(),
                "network namespace in which the kernel counted other events of paths",
                "network namespaces in which the kernel counted other events of paths",
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
        let mut sensors = Args::default();
        for loss in &state.losses.sensors {
            let mut counters = Args::default();
            for (name, number) in loss.counters() {
                counters.number(name, number);
            }
            counters.flag("adds_up", loss.balances());
            sensors.object(loss.sensor.name(), &counters);
        }
        let unread = state
            .reconciled
            .fallbacks
            .iter()
            .filter(|it| it.unread)
            .count() as u64;
        let agree = state.reconciled.fallbacks.len() as u64 - unread - self.differ();
        let all = state.reconciled.fallbacks.iter();
        let all = all.chain(&state.reconciled.paths);
        let complaints = all.filter(|it| !it.agrees());
        let complaints: Vec<Args> = complaints
            .take(NAMESPACES_MAX)
            .map(|it| {
                let mut args = Args::default();
                args.number("netns", u64::from(it.netns));
                args.maybe_text("why", it.why.as_deref());
                args
            })
            .collect();
        let mut counters = Args::default();
        counters.number("namespaces_agree", agree);
        counters.number("namespaces_differ", self.differ());
        counters.number("namespaces_differ_in_paths", self.paths_differ());
        counters.number("namespaces_unread", unread);
        counters.list("complaints", &complaints);
        let mut args = Args::default();
        args.text("capture_end", ending);
        args.maybe_text("damage", damage.map(String::as_str));
        args.number("untraced", self.untraced());
        args.number("undecodable", state.undecodable);
        args.number("evicted", state.evicted);
        args.object("sensors", &sensors);
        args.object("kernel_counters", &counters);
        args
    }

    /// Origin of the trace, with the losses. `origin` is its zero on `CLOCK_BOOTTIME`.
    pub(super) fn other(&self, origin: Duration) -> Args {
        let epoch = self.facts.boot_epoch.checked_add(origin);
        let start = epoch.and_then(|epoch| SystemTime::UNIX_EPOCH.checked_add(epoch));
        let start = start.and_then(|start| Timestamp::try_from(start).ok());
        let origin = u64::try_from(origin.as_nanos()).unwrap_or(u64::MAX);
        let sensors: Vec<Args> = self
            .facts
            .sensors
            .iter()
            .map(|it| {
                let mut args = Args::default();
                args.text("sensor", it.sensor.name());
                args.text("attach_method", it.rung.name());
                args.number("limits", it.limits.len() as u64);
                args
            })
            .collect();
        let start = start.map(|start| format!("{start:.9}"));
        let mut args = Args::default();
        args.text("title", self.title);
        args.text("writer", concat!("mptcp-trace ", env!("CARGO_PKG_VERSION")));
        args.text(
            "captured_by",
            &format!("mptcp-trace {}", self.facts.version),
        );
        args.text("kernel", &self.facts.kernel);
        args.maybe_text("ts_zero_time", start.as_deref());
        args.number("ts_zero_boottime_ns", origin);
        args.flag("is_selection", self.is_selection);
        args.number("not_shown", self.state.not_shown);
        args.list("sensors", &sensors);
        args.object("losses", &self.losses());
        args
    }
}
