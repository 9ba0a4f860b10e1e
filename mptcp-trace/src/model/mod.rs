//! The types that the stages of mptcp-trace exchange.
//!
//! Standard library only. One word, one meaning: a *query* is an application's query about its
//! socket, an *answer* is the kernel's reply, a *rung* is an attach method, a *finding* is what
//! reaches the reader.

mod cause;
mod connection;
mod event;
mod facts;
mod finding;
#[cfg(test)]
pub(crate) mod fixture;
mod loss;
mod query;
mod refusal;
mod sensor;
mod subject;
mod sum;
mod verdict;
mod words;

pub use cause::{
    CAUSES, Cause, Culprit, all as all_causes, fallback_causes, find as find_cause,
    name_of_enumerator,
};
pub use connection::{
    CauseCertainty, Connection, ConnectionEvent, ConnectionId, ConnectionKind, Current, Evidence,
    Owner, Place, Side, Stage, SwitchedOff, Via,
};
pub use event::{Change, ChangeEvent, ChangeKind, Event};
pub use facts::{Facts, Rung, SensorState};
pub use finding::{Finding, Severity};
pub use loss::{Counted, Loss, LossReport, MissedRuns, NetnsCounters, Reconciliation};
pub use query::{
    Answer, Api, Errno, Family, Process, Protocol, Query, QueryEvent, Socket, SocketId, TcpState,
    displayed,
};
pub use refusal::{Refusal, RefusalEvent, Refused};
pub use sensor::{PerSensor, SensorId};
pub use subject::{Prefix, Subject};
pub use sum::{By, Sum, SumRow, SumTable};
pub use verdict::{ClosedBy, Judgement, LastAsked, Verdict, VerdictEvent};
pub use words::{parts, short};
