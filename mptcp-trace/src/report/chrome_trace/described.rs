//! What a finding or a connection says in a trace: names, arguments, phases.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use super::events::Args;
use crate::{
    model::{
        ClosedEvent, ConnectionEvent, ConnectionId, ConnectionKind, DecidedBy, Finding, Judgement,
        Ledger, NeverTried, Outcome, Owner, PathEvent, Process, QueryEvent, RefusalEvent, Refused,
        Rung, Side, Socket, Stage, VerdictEvent, displayed,
    },
    paths::KnownPath,
    report::{
        gather::ReportedConnection,
        lanes::{begin, end_of},
        path_lanes::path_cause,
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
        Finding::Path(event) => (event.path.connection, event.path.began_at),
        Finding::Closed(event) => (Some(event.closed.id), None),
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
        Finding::Path(event) => path(event),
        Finding::Closed(event) => closed(event),
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
    let packet = event.packet.as_ref().map(|it| it.description());
    args.maybe_text("packet", packet.as_deref());
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

fn path(event: &PathEvent) -> (String, Args) {
    let path = &event.path;
    let cause = path.cause.as_deref();
    let because = cause.map_or(String::new(), |cause| format!(": {}", name(cause)));
    let named = format!("{}{because}", path.kind.name().replace('_', " "));
    let mut args = begun(event.time, path.connection, Some(path.rung));
    args.maybe_text("path_id", path.path.map(|it| it.to_string()).as_deref());
    args.text("role", path.role.name());
    args.maybe_text("cause", cause);
    args.text("known", path.known.name());
    args.maybe_text("decided_by", path.decided_by.map(DecidedBy::name));
    args.maybe_text("reset", path.reset.map(|it| it.to_string()).as_deref());
    args.maybe_text("errno", path.errno.map(|it| it.to_string()).as_deref());
    args.maybe_text("side", path.side.map(Side::name));
    args.maybe_number("local_id", path.local_id.map(u64::from));
    args.maybe_number("remote_id", path.remote_id.map(u64::from));
    args.flag("backup_here", path.backup_here);
    args.flag("backup_peer", path.backup_peer);
    args.flag("late", path.late);
    if let Some(ledger) = &path.ledger {
        carried(&mut args, ledger);
    }
    owner(&mut args, path.owner.as_ref());
    socket(&mut args, &path.socket);
    (named, args)
}

fn closed(event: &ClosedEvent) -> (String, Args) {
    let closed = &event.closed;
    let cause = match &closed.outcome {
        Outcome::FellBack { at: _, cause } => cause.as_deref(),
        Outcome::Mptcp | Outcome::Unknown => None,
    };
    let mut args = begun(event.time, Some(closed.id), None);
    args.text("outcome", closed.outcome.name());
    args.maybe_text("cause", cause);
    args.maybe_text("side", closed.side.map(Side::name));
    args.maybe_number("duration_ns", closed.duration.map(ns));
    args.number("paths_tried", u64::from(closed.paths_tried));
    args.number("paths_up", u64::from(closed.paths_up));
    args.number("paths_failed", u64::from(closed.paths_failed));
    args.number("paths_most", u64::from(closed.paths_most));
    args.number("bytes_sent", closed.bytes.0);
    args.number("bytes_received", closed.bytes.1);
    args.number("queries", closed.queries);
    args.maybe_text("never_tried", closed.never_tried.map(NeverTried::name));
    args.flag("incomplete", closed.incomplete);
    owner(&mut args, closed.owner.as_ref());
    socket(&mut args, &closed.socket);
    (format!("closed: {}", closed.outcome.name()), args)
}

fn carried(args: &mut Args, ledger: &Ledger) {
    args.number("bytes_sent", ledger.bytes_sent);
    args.number("bytes_received", ledger.bytes_received);
    args.number("bytes_retransmitted", ledger.bytes_retransmitted);
    args.number("retransmissions", u64::from(ledger.retransmissions));
    args.maybe_number("rtt_ns", ledger.rtt.map(ns));
    args.maybe_number("rtt_min_ns", ledger.rtt_min.map(ns));
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
        None if life.is_not_opened => vec![phase("could not be opened", from, end, "terrible")],
        None if life.state.has_fallen => vec![phase("fell back unseen", from, end, "bad")],
        None if life.state.is_mptcp => vec![phase("MPTCP", from, end, "good")],
        None => vec![phase("TCP, never MPTCP", from, end, "grey")],
    }
}

/// Name of the track of a path.
pub(super) fn path_title(path: &KnownPath) -> String {
    let arrow = match path.side {
        Some(Side::Active) => "->",
        Some(Side::Passive) => "<-",
        None => "--",
    };
    let (local, remote) = (path.local, path.remote);
    format!("path {local} {arrow} {remote} ({})", path.role_words())
}

/// Arguments of each span of a path.
pub(super) fn path_args(path: &KnownPath, of: &ReportedConnection) -> Args {
    let mut args = Args::default();
    args.maybe_text("path_id", path.id.map(|id| id.to_string()).as_deref());
    args.text("role", path.role.name());
    args.text("ids", &path.ids_words());
    args.flag("backup", path.is_backup);
    args.flag("existing", path.existing);
    args.text("state", path.state());
    match &path.end {
        Some(end) => {
            args.maybe_text("cause", end.cause.as_deref());
            args.text("known", end.known.name());
            args.maybe_text("decided_by", end.decided_by.map(DecidedBy::name));
            args.text("end", &path_cause(end));
        }
        None => args.text("end", "open when last seen"),
    }
    if let Some(ledger) = &path.ledger {
        carried(&mut args, ledger);
        args.number("bytes_of_all_paths", of.paths.carried());
    }
    args.text("local", &path.local.to_string());
    args.text("remote", &path.remote.to_string());
    args
}

/// The spans of a path: the whole one, and within it its handshake and when it was stale. A span
/// within another one ends before it, and begins after the one before.
pub(super) fn path_spans(path: &KnownPath, of: &ReportedConnection) -> Vec<(String, Phase)> {
    let step = Duration::from_nanos(1);
    let (from, to) = (path.from, end_of(of, path));
    let span = |name, from, to, colour| Phase {
        name,
        from,
        to,
        colour,
    };
    let (title, colour) = match &path.end {
        Some(end) if end.is_failed => (format!("failed: {}", path_cause(end)), "terrible"),
        Some(end) if end.is_failure => (format!("up, then down: {}", path_cause(end)), "bad"),
        Some(end) => (format!("up, then down: {}", path_cause(end)), "good"),
        None => ("up".to_owned(), "good"),
    };
    let mut spans = vec![(title, span("path", from, to, colour))];
    let mut after = from;
    let last = to.saturating_sub(step);
    let is_failed = path.end.as_ref().is_some_and(|end| end.is_failed);
    let up_at = path.up_at.filter(|at| !is_failed && *at > from);
    if let Some(up_at) = up_at.map(|at| at.min(last)).filter(|at| *at > from) {
        let inner = span("handshake", from, up_at.saturating_sub(step), "grey");
        spans.push(("handshake".to_owned(), inner));
        after = up_at;
    }
    for (stale, recovered) in &path.stale {
        let begin = (*stale).clamp(after, last.max(after));
        let end = recovered.map_or(last, |at| at.saturating_sub(step).min(last));
        if end > begin {
            spans.push(("stale".to_owned(), span("stale", begin, end, "yellow")));
            after = end + step;
        }
    }
    spans
}

fn moment(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or_else(|_| "?".to_owned(), |it| format!("{it:.9}"))
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
