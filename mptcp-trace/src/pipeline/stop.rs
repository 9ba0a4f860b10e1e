//! Why a run ends.

use std::{fmt, io};

/// Reasons for the pipeline to stop; only the last is a failure.
#[derive(Debug)]
pub enum Stop {
    /// `--stop-after` findings were printed.
    Enough,
    /// The reader of the output has gone: a quiet, ordered end.
    ReaderGone,
    /// The run cannot continue.
    Failed(anyhow::Error),
}

impl Stop {
    /// Classifies a failed write to the output.
    #[must_use]
    pub fn from_output(why: io::Error) -> Self {
        if why.kind() == io::ErrorKind::BrokenPipe {
            Self::ReaderGone
        } else {
            Self::Failed(anyhow::Error::new(why).context("cannot write the findings"))
        }
    }
}

impl From<io::Error> for Stop {
    fn from(why: io::Error) -> Self {
        Self::Failed(why.into())
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enough => f.write_str("enough findings"),
            Self::ReaderGone => f.write_str("the reader closed the output"),
            Self::Failed(why) => write!(f, "{why:#}"),
        }
    }
}
