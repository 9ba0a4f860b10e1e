//! What a finding or a connection says in a trace: names, arguments, phases.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use super::events::Args;
use crate::{
    model::{
        ConnectionEvent, ConnectionId, ConnectionKind, Finding, Judgement, Owner, Process,
        QueryEvent, RefusalEvent, Refused, Rung, Side, Socket, Stage, VerdictEvent, displayed,
    },
    report::{
        gather::ReportedConnection,
        lanes::begin,
        words::{name, outcome},
    },
};

/// The earliest time that a finding contains.
pub(super) fn earliest(finding: &Finding) -> Duration {
    let at = finding.at();
    let (id, connected_at) = match finding {
        Finding::Query(event) => (event.query.id, event.query.connected_at),
        Finding::Connection(event) => {
            let connection = &event.connection;
            let since = connection.since_connect;
            (Some(connection.id), since.map(|it| at.saturating_sub(it)))
        }
        Finding::Verdict(event) => (Some(event.id), None),
        Finding::Refusal(_) => (None, None),
    };
    let begin = connected_at.or(id.map(|id| id.born_at));
    begin.map_or(at, |begin| begin.min(at))
}

/// Name and arguments of a finding.
pub(super) fn described(finding: &Finding) -> (String, Args) {
    match finding {
        Finding::Query(event) => query(event),
        Finding::Connection(event) => connection(event),
        Finding::Verdict(event) => verdict(event),
        Finding::Refusal(event) => refusal(event),
    }
}

fn query(event: &QueryEvent) -> (String, Args) {
    let query = &event.query;
    let answer = query.answer.word().unwrap_or("unknown");
    let judgement = event.judgement.as_ref();
    let verdict = judgement.map(|it| format!(" ({})", it.verdict.name()));
    let named = format!(
        "{}: {answer}{}",
        query.api.name(),
        verdict.unwrap_or_default()
    );
    let mut args = begun(event.time, query.id, Some(query.rung));
    args.text("api", query.api.name());
    args.text("answer", answer);
    args.maybe_text("errno", query.errno.map(|it| it.to_string()).as_deref());
    if let Some(fell_back) = query.fell_back {
        args.flag("fell_back", fell_back);
    }
    args.maybe_number("latency_ns", query.latency.map(ns));
    args.maybe_number("repeats", Some(event.repeats).filter(|it| *it > 0));
    if let Some(judgement) = judgement {
        judged(&mut args, judgement);
    }
    caller(&mut args, &query.process);
    socket(&mut args, &query.socket);
    (named, args)
}

fn connection(event: &ConnectionEvent) -> (String, Args) {
    let connection = &event.connection;
    let cause = connection.cause.as_deref();
    let because = cause.map_or(String::new(), |cause| format!(": {}", name(cause)));
    let named = match connection.kind {
        ConnectionKind::Fallback => format!("fallback{because}"),
        ConnectionKind::FallbackDenied => format!("fallback refused{because}"),
        ConnectionKind::Plain => "TCP client of an MPTCP listener".to_owned(),
        ConnectionKind::Existing => match connection.fell_back {
            Some(true) => "open before, fallen back".to_owned(),
            Some(false) | None => "open before".to_owned(),
        },
        ConnectionKind::Blackhole => "blackhole: MPTCP switched off".to_owned(),
    };
    let evidence: Vec<&str> = connection.evidence.iter().map(|it| it.name()).collect();
    let evidence = Some(evidence.join(" ")).filter(|it| !it.is_empty());
    let switched_off = event.switched_off.as_ref().map(|it| it.id.to_string());
    let mut args = begun(event.time, Some(connection.id), Some(connection.rung));
    args.maybe_text("cause", cause);
    args.text("known", connection.known.name());
    args.maybe_text("side", connection.side.map(Side::name));
    args.maybe_text("stage", connection.stage.map(Stage::name));
    args.maybe_number("since_connect_ns", connection.since_connect.map(ns));
    args.maybe_number("bytes_sent", connection.bytes.map(|it| it.0));
    args.maybe_number("bytes_received", connection.bytes.map(|it| it.1));
    args.maybe_text("evidence", evidence.as_deref());
    args.maybe_number("off_ns", connection.off_for.map(ns));
    args.maybe_text("switched_off_by", switched_off.as_deref());
    args.flag("late", connection.late);
    owner(&mut args, connection.owner.as_ref());
    socket(&mut args, &connection.socket);
    (named, args)
}

fn verdict(event: &VerdictEvent) -> (String, Args) {
    let named = format!("closing verdict: {}", event.judgement.verdict.name());
    let mut args = begun(event.time, Some(event.id), None);
    judged(&mut args, &event.judgement);
    args.text("closed_by", event.closed_by.name());
    args.number("queries", event.queries);
    args.maybe_text("doubt", event.doubt.as_deref());
    owner(&mut args, event.owner.as_ref());
    socket(&mut args, &event.socket);
    (named, args)
}

fn refusal(event: &RefusalEvent) -> (String, Args) {
    let refusal = &event.refusal;
    let option = refusal.option().map(|option| format!(" {option}"));
    let named = format!(
        "refused: {}{}, {}",
        refusal.call(),
        option.unwrap_or_default(),
        refusal.errno
    );
    let mut args = begun(event.time, None, Some(refusal.rung));
    args.text("errno", &refusal.errno.to_string());
    args.text("why", refusal.why());
    caller(&mut args, &refusal.process);
    match &refusal.what {
        Refused::Option {
            socket: about,
            level,
            optname,
            is_set: _,
        } => {
            socket(&mut args, about);
            args.number("level", u64::from(*level));
            args.number("optname", u64::from(*optname));
        }
        Refused::Socket { family: _, netns } => args.number("netns", u64::from(*netns)),
    }
    (named, args)
}

/// The arguments that all findings have.
fn begun(time: SystemTime, id: Option<ConnectionId>, rung: Option<Rung>) -> Args {
    let mut args = Args::default();
    args.text("time", &moment(time));
    args.maybe_text("id", id.map(|id| id.to_string()).as_deref());
    args.maybe_text("attach_method", rung.map(Rung::name));
    args
}

fn judged(args: &mut Args, judgement: &Judgement) {
    args.text("verdict", judgement.verdict.name());
    args.text("why", &judgement.sentence);
    args.maybe_text("cause", judgement.cause.as_deref());
    args.maybe_number("delay_ns", judgement.delay.map(ns));
}

fn caller(args: &mut Args, process: &Process) {
    args.text("comm", &process.comm);
    args.text("pid", &process.number());
    args.number("host_pid", u64::from(process.host_pid));
}

fn owner(args: &mut Args, owner: Option<&Owner>) {
    if let Some(Owner { process, via }) = owner {
        caller(args, process);
        args.text("owner_via", via.name());
    }
}

fn socket(args: &mut Args, socket: &Socket) {
    args.text("local", &displayed(socket.local).to_string());
    args.text("remote", &displayed(socket.remote).to_string());
    args.number("netns", u64::from(socket.netns));
    args.maybe_number("inode", socket.inode);
}

/// Name of a connection's track.
pub(super) fn title(life: &ReportedConnection, names_process: bool) -> String {
    let arrow = match life.side {
        Some(Side::Active) => "->",
        Some(Side::Passive) => "<-",
        None => "--",
    };
    let addresses = match life.remote.ip().is_unspecified() {
        true => format!("{} (no remote address)", life.local),
        false => format!("{} {arrow} {}", life.local, life.remote),
    };
    match &life.process {
        Some((pid, comm)) if names_process => format!("{addresses} ({} {pid})", name(comm)),
        Some(_) | None => addresses,
    }
}

/// Arguments of each phase of a connection.
pub(super) fn phase_args(life: &ReportedConnection, id: Option<ConnectionId>) -> Args {
    let (word, _, meaning) = outcome(life.awareness());
    let mut args = Args::default();
    args.maybe_text("id", id.map(|id| id.to_string()).as_deref());
    args.text("outcome", word);
    args.text("meaning", meaning);
    args.flag("in_doubt", life.is_doubtful);
    args.number("queries", life.queries);
    args.maybe_text("cause", life.cause.as_deref());
    args.maybe_text("known", life.cause.as_ref().map(|_| life.known.name()));
    args.maybe_text("side", life.side.map(Side::name));
    if let Some((pid, comm)) = &life.process {
        args.text("comm", comm);
        args.text("pid", pid);
    }
    args.text("local", &life.local.to_string());
    args.text("remote", &life.remote.to_string());
    args
}

/// A span in which a connection was one thing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Phase {
    pub(super) name: &'static str,
    pub(super) from: Duration,
    pub(super) to: Duration,
    /// A colour that the format reserves.
    pub(super) colour: &'static str,
}

/// The phases of a connection until `end`, in order. Each ends a nanosecond before the next one
/// begins: readers that add binary fractions would see an overlap else.
pub(super) fn phases(life: &ReportedConnection, end: Duration) -> Vec<Phase> {
    let first = life.asked.first().map(|asked| asked.at);
    let from = [begin(life), first, life.fell_at, Some(end)];
    let from = from.into_iter().flatten().min().unwrap_or(end);
    let phase = |name, from, to, colour| Phase {
        name,
        from,
        to,
        colour,
    };
    match life.fell_at.map(|at| at.clamp(from, end)) {
        Some(fell_at) => {
            let before = fell_at.saturating_sub(Duration::from_nanos(1));
            let mptcp = (from < fell_at).then(|| phase("MPTCP", from, before, "good"));
            let tcp = phase("TCP after fallback", fell_at, end, "bad");
            mptcp.into_iter().chain([tcp]).collect()
        }
        None if life.state.has_fallen => vec![phase("fell back unseen", from, end, "bad")],
        None if life.state.is_mptcp => vec![phase("MPTCP", from, end, "good")],
        None => vec![phase("TCP, never MPTCP", from, end, "grey")],
    }
}

fn moment(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or_else(|_| "?".to_owned(), |it| format!("{it:.9}"))
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
