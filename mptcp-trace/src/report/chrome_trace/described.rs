//! What a finding or a connection says in a trace: names, arguments, phases.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use super::events::Args;
use crate::{
    model::{
        ConnectionEvent, ConnectionId, ConnectionKind, Finding, Judgement, Owner, Process,
        QueryEvent, RefusalEvent, Refused, Side, Socket, VerdictEvent,
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
    let args = Args::default()
        .text("time", moment(event.time))
        .text("api", query.api.name())
        .text("answer", answer)
        .maybe(query.errno, |args, it| args.text("errno", it.to_string()))
        .maybe(query.fell_back, |args, it| args.flag("fell_back", it))
        .maybe(query.latency, |args, it| args.number("latency_ns", ns(it)))
        .maybe(Some(event.repeats).filter(|it| *it > 0), |args, it| {
            args.number("repeats", it)
        })
        .maybe(query.id, with_id)
        .maybe(judgement, with_judgement)
        .text("attach_method", query.rung.name());
    (named, socket(caller(args, &query.process), &query.socket))
}

fn connection(event: &ConnectionEvent) -> (String, Args) {
    let connection = &event.connection;
    let cause = connection.cause.as_deref();
    let because = || cause.map_or(String::new(), |cause| format!(": {}", name(cause)));
    let named = match connection.kind {
        ConnectionKind::Fallback => format!("fallback{}", because()),
        ConnectionKind::FallbackDenied => format!("fallback refused{}", because()),
        ConnectionKind::Plain => "TCP client of an MPTCP listener".to_owned(),
        ConnectionKind::Existing => match connection.fell_back {
            Some(true) => "open before, fallen back".to_owned(),
            Some(false) | None => "open before".to_owned(),
        },
        ConnectionKind::Blackhole => "blackhole: MPTCP switched off".to_owned(),
    };
    let evidence: Vec<&str> = connection.evidence.iter().map(|it| it.name()).collect();
    let switched_off = event.switched_off.as_ref();
    let args = with_id(Args::default(), connection.id)
        .text("time", moment(event.time))
        .maybe(cause, |args, it| args.text("cause", it))
        .text("known", connection.known.name())
        .maybe(connection.side, |args, it| args.text("side", it.name()))
        .maybe(connection.stage, |args, it| args.text("stage", it.name()))
        .maybe(connection.since_connect, |args, it| {
            args.number("since_connect_ns", ns(it))
        })
        .maybe(connection.bytes, |args, (sent, received)| {
            args.number("bytes_sent", sent)
                .number("bytes_received", received)
        })
        .maybe((!evidence.is_empty()).then_some(evidence), |args, it| {
            args.text("evidence", it.join(" "))
        })
        .maybe(connection.off_for, |args, it| args.number("off_ns", ns(it)))
        .maybe(switched_off, |args, it| {
            args.text("switched_off_by", it.id.to_string())
        })
        .flag("late", connection.late)
        .maybe(connection.owner.as_ref(), owner)
        .text("attach_method", connection.rung.name());
    (named, socket(args, &connection.socket))
}

fn verdict(event: &VerdictEvent) -> (String, Args) {
    let named = format!("closing verdict: {}", event.judgement.verdict.name());
    let args = with_judgement(with_id(Args::default(), event.id), &event.judgement)
        .text("time", moment(event.time))
        .text("closed_by", event.closed_by.name())
        .number("queries", event.queries)
        .maybe(event.doubt.as_deref(), |args, it| args.text("doubt", it))
        .maybe(event.owner.as_ref(), owner);
    (named, socket(args, &event.socket))
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
    let args = Args::default()
        .text("time", moment(event.time))
        .text("errno", refusal.errno.to_string())
        .text("why", refusal.why())
        .text("attach_method", refusal.rung.name());
    let args = caller(args, &refusal.process);
    let args = match &refusal.what {
        Refused::Option {
            socket: about,
            level,
            optname,
            is_set: _,
        } => socket(args, about)
            .number("level", u64::from(*level))
            .number("optname", u64::from(*optname)),
        Refused::Socket { family: _, netns } => args.number("netns", u64::from(*netns)),
    };
    (named, args)
}

fn with_id(args: Args, id: ConnectionId) -> Args {
    args.text("id", id.to_string())
}

fn with_judgement(args: Args, judgement: &Judgement) -> Args {
    args.text("verdict", judgement.verdict.name())
        .text("why", &judgement.sentence)
        .maybe(judgement.cause.as_deref(), |args, it| {
            args.text("cause", it)
        })
        .maybe(judgement.delay, |args, it| args.number("delay_ns", ns(it)))
}

fn caller(args: Args, process: &Process) -> Args {
    args.text("comm", &process.comm)
        .text("pid", process.number())
        .number("host_pid", u64::from(process.host_pid))
}

fn owner(args: Args, owner: &Owner) -> Args {
    caller(args, &owner.process).text("owner_via", owner.via.name())
}

fn socket(args: Args, socket: &Socket) -> Args {
    args.text("local", socket.local.to_string())
        .text("remote", socket.remote.to_string())
        .number("netns", u64::from(socket.netns))
        .maybe(socket.inode, |args, it| args.number("inode", it))
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
    Args::default()
        .maybe(id, with_id)
        .text("outcome", word)
        .text("meaning", meaning)
        .flag("in_doubt", life.is_doubtful)
        .number("queries", life.queries)
        .maybe(life.cause.as_ref(), |args, cause| {
            args.text("cause", cause).text("known", life.known.name())
        })
        .maybe(life.side, |args, it| args.text("side", it.name()))
        .maybe(life.process.as_ref(), |args, (pid, comm)| {
            args.text("comm", comm).text("pid", pid)
        })
        .text("local", life.local.to_string())
        .text("remote", life.remote.to_string())
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
