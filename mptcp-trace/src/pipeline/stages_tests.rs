use std::{fs::File, io, path::Path};

use super::*;
use crate::{
    capture::{Frame, Reader},
    model::PerSensor,
    sink::TextOptions,
};

/// A full disk.
struct Full;

impl Write for Full {
    fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::StorageFull.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_account_is_drawn_where_the_first_write_of_all_is_that_of_the_end() {
    let captures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../captures");
    let file = File::open(captures.join("6.12-fexit/verdicts.mpt")).unwrap();
    let (mut reader, facts) = Reader::open(file).unwrap();
    let format = Format::text(TextOptions::default());
    let view = View::default();
    let mut stages = Stages::new(facts, format, Source::Replay, Full, None, view, None);
    let losses = loop {
        match reader.next_frame().unwrap() {
            Frame::End(losses) => break losses,
            Frame::CutOff => panic!("cut off"),
            frame @ (Frame::Record(_) | Frame::Place(..) | Frame::Clock(_) | Frame::Missed(..)) => {
                stages.replay(&frame).unwrap();
            }
        }
    };
    // With a full buffer, the next line is written immediately.
    stages.lines.resize(64 * 1024, b'\n');
    let ended = stages.finish(&losses);
    assert!(matches!(ended, Err(Stop::Failed(_))), "{ended:?}");
    let outcome = stages.outcome();
    assert_eq!(
        (outcome.findings, outcome.by_sensor, outcome.verdicts),
        (0, PerSensor::default(), 0)
    );
    assert!(outcome.unwritten > 2, "{outcome:?}");
    assert!(!outcome.reconciled.is_empty(), "{outcome:?}");
}
