//! Readings of the paths of one connection, on request.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use tokio::{sync::oneshot, task::spawn_blocking};

use super::Stages;
use crate::{
    decode::{DecodeError, Observation},
    kernel::Tracer,
    model::ConnectionId,
};

/// Begins a reading, and reports how long it took. A thread of its own walks, because the event loop
/// must not wait on a host with many files; the records arrive in the ring as all others do.
pub(super) fn begin(
    id: ConnectionId,
    to: oneshot::Sender<anyhow::Result<Duration>>,
    tracer: &mut Tracer,
) {
    match tracer.read_paths(id.socket) {
        Ok(walk) => {
            spawn_blocking(move || {
                let began = Instant::now();
                let done = walk.finish().map(|()| began.elapsed());
                // The requester may have gone.
                let _gone = to.send(done);
            });
        }
        Err(why) => {
            let _gone = to.send(Err(why));
        }
    }
}

impl<W: Write> Stages<W> {
    /// Hands a reading to the observers; false for any other observation. It is no event: neither
    /// lines nor captures depend on what is read when.
    pub(super) fn takes_reading(&mut self, observation: &Result<Observation, DecodeError>) -> bool {
        let Ok(Observation::PathReading(path)) = observation else {
            return false;
        };
        for observer in &mut self.view.observers {
            observer.reading(path);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, io::Seek as _, rc::Rc};

    use mptcp_trace_common::{
        numbers::AF_INET,
        record::{Kind, PathFlags, PathRecord, PathSite, RecordRung},
    };
    use zerocopy::{FromZeros as _, IntoBytes as _};

    use super::*;
    use crate::{
        capture::{Frame, Reader},
        model::{Facts, Finding, Path},
        observe::Observer,
        pipeline::View,
        sink::{Format, Source},
    };

    #[derive(Clone, Debug, Default)]
    struct Read(Rc<Cell<u32>>);

    impl Observer for Read {
        fn finding<'a>(&mut self, _: &'a Finding, _: &dyn Fn(u64) -> Option<&'a str>) {}

        fn reading(&mut self, _: &Path) {
            self.0.set(self.0.get() + 1);
        }
    }

    #[test]
    fn a_reading_goes_to_the_observers_and_is_neither_a_line_nor_in_a_capture() {
        let read = Read::default();
        let view = View {
            observers: vec![Box::new(read.clone())],
            ..View::default()
        };
        let file = tempfile::tempfile().unwrap();
        let capture = crate::capture::Writer::new(
            std::io::BufWriter::new(file.try_clone().unwrap()),
            &Facts::unknown(),
        )
        .unwrap();
        let mut stages = Stages::new(
            Facts::unknown(),
            Format::Json,
            Source::Live,
            Vec::new(),
            Some(capture),
            view,
            None,
        );
        let record = |site| PathRecord {
            kind: Kind::PATH_OPEN,
            site,
            family: AF_INET,
            rung: RecordRung::FEXIT,
            path: 7,
            socket: 5,
            flags: PathFlags::CONTEXT | PathFlags::LEDGER | PathFlags::ADMITTED,
            ..PathRecord::new_zeroed()
        };
        for site in [PathSite::READING, PathSite::SCAN] {
            stages.take(record(site).as_bytes()).unwrap();
            assert_eq!(read.0.get(), 1, "{site:?}");
        }
        assert!(stages.out.is_empty());
        drop(stages);
        let mut file = file;
        file.rewind().unwrap();
        let (mut reader, _facts) = Reader::open(file).unwrap();
        let mut records = 0;
        loop {
            match reader.next_frame().unwrap() {
                Frame::Record(_) => records += 1,
                Frame::CutOff | Frame::End(_) => break,
                Frame::Place(..) | Frame::Pod(..) | Frame::Clock(_) | Frame::Missed(..) => {}
            }
        }
        assert_eq!(records, 1);
    }
}
