//! What a reader needs that is no record: control groups, and when a record happened.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use crate::{
    capture::Frame,
    decode::{Observation, decode},
    history::{History, HistoryLimits},
    model::{Facts, Pod},
};

/// Size of a record with what belongs to it in a file, bytes; no record is larger.
pub(super) const RECORD_BYTES: u64 = 320;
/// Most control groups whose path is kept for later segments.
const PLACES_MAX: usize = 8192;

/// What a reader needs who lacks the frames so far.
#[derive(Debug)]
pub(super) struct Known {
    /// Earlier records of open connections.
    pub(super) history: History,
    pub(super) places: Places,
    /// The newest [`Frame::Missed`].
    pub(super) missed: Option<(Duration, u64)>,
}

impl Known {
    pub(super) fn new(limits: HistoryLimits) -> Self {
        Self {
            history: History::new(limits),
            places: Places::default(),
            missed: None,
        }
    }

    pub(super) fn note(&mut self, frame: &Frame, facts: &Facts) {
        match frame {
            Frame::Record(bytes) => {
                if let Ok(observation) = decode(bytes, facts) {
                    self.history.note(&observation, bytes);
                }
            }
            Frame::Place(cgroup_id, path) => self.places.path(*cgroup_id, path),
            Frame::Pod(cgroup_id, pod) => self.places.pod(*cgroup_id, pod),
            Frame::Missed(by, count) => self.missed = Some((*by, *count)),
            Frame::Clock(_) | Frame::End(_) | Frame::CutOff => {}
        }
    }
}

/// Paths and pods of control groups.
#[derive(Debug, Default)]
pub(super) struct Places {
    known: BTreeMap<u64, (String, Option<Pod>)>,
    /// Oldest first.
    order: VecDeque<u64>,
}

impl Places {
    pub(super) fn path(&mut self, cgroup_id: u64, path: &str) {
        let place = (path.to_owned(), None);
        if self.known.insert(cgroup_id, place).is_none() {
            self.order.push_back(cgroup_id);
        }
        if self.order.len() > PLACES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    pub(super) fn pod(&mut self, cgroup_id: u64, pod: &Pod) {
        if let Some(known) = self.known.get_mut(&cgroup_id) {
            known.1 = Some(pod.clone());
        }
    }

    /// The newest of them, with at most that many bytes.
    pub(super) fn frames(&self, bytes_max: u64) -> Vec<Frame> {
        let mut frames = Vec::new();
        let mut bytes = 0;
        for cgroup_id in self.order.iter().rev() {
            let Some((path, pod)) = self.known.get(cgroup_id) else {
                continue;
            };
            bytes += path.len() as u64 + RECORD_BYTES;
            if bytes > bytes_max {
                break;
            }
            frames.push(Frame::Place(*cgroup_id, path.clone()));
            frames.extend(pod.iter().map(|pod| Frame::Pod(*cgroup_id, pod.clone())));
        }
        frames
    }
}

/// When it happened, on `CLOCK_BOOTTIME`; `None` for what is no event.
pub(super) fn at(observation: &Observation) -> Option<Duration> {
    match observation {
        Observation::Query(it) => Some(it.answered_at()),
        Observation::Connection(it) => Some(it.at),
        Observation::Change(it) => Some(it.at),
        Observation::Refusal(it) => Some(it.at),
        Observation::Path(it) => Some(it.at),
        Observation::Counters(it) => Some(it.at),
        Observation::Packet(key, _) => Some(key.at),
        Observation::Canary(_)
        | Observation::CanaryConnection(_)
        | Observation::CanaryChange(_)
        | Observation::CanaryPath(_)
        | Observation::PathReading(_)
        | Observation::CountersAtStart(_) => None,
    }
}
