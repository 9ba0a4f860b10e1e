//! Captures of this repository, and what a replay of one finds: for tests.

use std::{cell::RefCell, fs, io, path::Path, rc::Rc, time::Duration};

use super::{Stages, View, play};
use crate::{
    capture::{Frame, Reader},
    model::{Facts, Finding, LossReport},
    observe::Observer,
};

/// Findings, each with its time and all that is known of it.
pub(crate) type Timed = Vec<(Duration, String)>;

#[derive(Clone, Debug, Default)]
pub(crate) struct Findings(Rc<RefCell<Timed>>);

impl Observer for Findings {
    fn finding<'a>(&mut self, finding: &'a Finding, _path_of: &dyn Fn(u64) -> Option<&'a str>) {
        let mut finding = finding.clone();
        if let Finding::Connection(event) = &mut finding {
            // It rests on all connections before, and a recording that began later has fewer.
            event.history = None;
        }
        let text = format!("{finding:?}");
        self.0.borrow_mut().push((finding.at(), text));
    }
}

impl Findings {
    /// Stages that print nothing and add their findings to these.
    pub(crate) fn stages(&self, facts: Facts) -> Stages<io::Sink> {
        let view = View {
            observers: vec![Box::new(self.clone())],
            ..View::default()
        };
        Stages::silent(facts, view)
    }

    pub(crate) fn all(&self) -> Timed {
        self.0.borrow().clone()
    }
}

/// A file below `captures/`.
pub(crate) fn file(name: &str) -> Vec<u8> {
    let captures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../captures");
    fs::read(captures.join(name)).unwrap()
}

/// Its frames.
pub(crate) fn frames(name: &str) -> (Facts, Vec<Frame>) {
    let file = file(name);
    let (mut reader, facts) = Reader::open(&file[..]).unwrap();
    let mut frames = Vec::new();
    while frames.last().is_none_or(|last: &Frame| !last.is_last()) {
        frames.push(reader.next_frame().unwrap());
    }
    (facts, frames)
}

/// Replays a capture to its end; returns its facts, its findings and its losses.
pub(crate) fn replayed(capture: &[u8]) -> (Facts, Timed, Option<LossReport>) {
    let (mut reader, facts) = Reader::open(capture).unwrap();
    let findings = Findings::default();
    let mut stages = findings.stages(facts.clone());
    let played = play(&mut stages, &mut reader).unwrap();
    assert_eq!(stages.outcome().undecodable, 0);
    match &played.losses {
        Some(losses) => stages.finish(losses).unwrap(),
        None => stages.cut_off().unwrap(),
    }
    (facts, findings.all(), played.losses)
}
