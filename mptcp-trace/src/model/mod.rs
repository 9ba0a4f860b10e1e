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
mod history;
mod loss;
mod packet;
mod path;
mod path_cause;
mod path_end;
mod query;
mod refusal;
mod sensor;
mod subject;
mod sum;
mod term;
mod verdict;
mod words;

pub use cause::{
    CAUSES, Cause, CauseGroup, Culprit, all as all_causes, fallback_causes, find as find_cause,
    name_of_enumerator,
};
pub use connection::{
    CauseCertainty, Connection, ConnectionEvent, ConnectionId, ConnectionKind, Current, Evidence,
    Owner, Place, Pod, Side, Stage, SwitchedOff, Via,
};
pub use event::{Change, ChangeEvent, ChangeKind, Event};
pub use facts::{Dump, Facts, Rung, SensorState};
pub use finding::{Finding, Severity};
pub use history::{PeerCounts, PeerHistory, Spoke, Whose};
pub use loss::{
    Counted, Growth, Loss, LossReport, MissedRuns, NetnsCounters, Reconciliation, Reconciliations,
};
pub use packet::{
    Certainty, Conclusion, FINGERPRINTS, Negotiated, Packet, PacketKey, Shown, TcpFlags, TcpOption,
};
pub use path::{
    Closed, ClosedEvent, DecidedBy, Ledger, Marks, NeverTried, Outcome, Path, PathEvent, PathId,
    PathKind, PathManager, PathRole, PathSummary, ResetReason,
};
pub use path_cause::{CONNECT_CAUSES, JOIN_CAUSES, JOIN_REFUSALS, path_causes};
pub use path_end::PATH_ENDS;
pub use query::{
    Answer, Api, Errno, Family, Process, Protocol, Query, QueryEvent, Socket, SocketId, TcpState,
    displayed,
};
pub use refusal::{Refusal, RefusalEvent, Refused};
pub use sensor::{PerSensor, SensorId};
pub use subject::{Prefix, Subject};
pub use sum::{By, PathSum, Sum, SumRow, SumTable};
pub use term::{NEVER_TRIED, RESET_REASONS, Term, find_term};
pub use verdict::{ClosedBy, Judgement, LastAsked, Verdict, VerdictEvent};
pub use words::{amount, parts, short};
