//! Compares the expected lives of paths with the traced lines. Pure.

use super::{
    Played, Wanted, counts, end_word,
    line::{Line, PathWord},
    way_word,
};
use crate::{
    cells::{mismatch, ok, shown, skipped},
    recipes::{
        End,
        paths::{Begins, Fate, Moment, NO_RESET, Way},
    },
    report::{Cell, Endpoint},
    traced::{ClosedLine, PathLine, TracedLine},
};

/// The cell of one recipe.
pub(super) fn cell(rung: &str, played: &Played, all: &[TracedLine]) -> Cell {
    let case = played.case();
    if let Some(why) = &played.scene.skipped {
        return skipped(&case, rung, why);
    }
    let is_unasked = TracedLine::limits(all).any(|limit| limit.contains(WRONG_HMAC));
    let lines: Vec<Line> = all
        .iter()
        .filter_map(line)
        .map(|line| Line {
            is_doubtful: is_unasked && line.path.cause.as_deref() == Some("MPJoinRejected"),
            ..line
        })
        .filter(|line| {
            played.end(line.path.netns).is_some() && !line.path.is_before(played.scene.since_ns)
        })
        .collect();
    let closed: Vec<&ClosedLine> = all
        .iter()
        .filter_map(TracedLine::closed)
        .filter(|closed| {
            played.end(closed.netns).is_some() && !closed.is_before(played.scene.since_ns)
        })
        .collect();
    let caller = said_of(played.wanted.iter().map(Wanted::said));
    let traced = said_of(lines.iter().filter_map(|line| said(played, line)));
    let mut wrong = played.scene.wrong.clone();
    wrong.extend(counts::unlike_the_table(played));
    if !wrong.is_empty() {
        let why = format!("deviates from the recipe: {}", shown(wrong));
        return mismatch(&case, rung, &caller, &traced, why);
    }
    let mut wrong = matched(rung, played, &lines);
    wrong.extend(ended(rung, played, &closed));
    wrong.extend(counts::miscounted(rung, played, &lines));
    wrong.extend(counts::disagreements(played, all));
    match wrong.is_empty() {
        true => ok(&case, rung, &caller, &traced),
        false => mismatch(&case, rung, &caller, &traced, shown(wrong)),
    }
}

pub(super) fn line(line: &TracedLine) -> Option<Line<'_>> {
    let with = |what, path| {
        Some(Line {
            what,
            path,
            is_doubtful: false,
        })
    };
    match line {
        TracedLine::PathUp(path) => with(PathWord::Up, path),
        TracedLine::PathFailed(path) => with(PathWord::Failed, path),
        TracedLine::ConnectFailed(path) => with(PathWord::ConnectFailed, path),
        TracedLine::PathDown(path) => with(PathWord::Down, path),
        TracedLine::PathStale(path) => with(PathWord::Stale, path),
        TracedLine::PathRecovered(path) => with(PathWord::Recovered, path),
        TracedLine::PathPriority(path) => with(PathWord::Priority, path),
        TracedLine::Start(_)
        | TracedLine::Query(_)
        | TracedLine::Fallback(_)
        | TracedLine::Refused(_)
        | TracedLine::Plain(_)
        | TracedLine::Existing(_)
        | TracedLine::Blackhole(_)
        | TracedLine::Verdict(_)
        | TracedLine::OptionRefused(_)
        | TracedLine::SocketRefused(_)
        | TracedLine::Address(_)
        | TracedLine::Closed(_)
        | TracedLine::End(_) => None,
    }
}

impl Wanted {
    /// What the lines about this path report.
    ///
    /// How often a path gets stale while it is cut is the scheduler's choice, and which one: as many
    /// lines as the kernel counted.
    pub(super) fn whats(&self, played: &Played) -> Vec<PathWord> {
        let is_first = self.fate.way == Way::First;
        let counted = |name| played.count(self.fate.at, name).max(1) as usize;
        let moments = self.fate.moments.iter().flat_map(|moment| match moment {
            Moment::Stale => vec![PathWord::Stale; counted("SubflowStale")],
            Moment::Recovered => vec![PathWord::Recovered; counted("SubflowRecover")],
            Moment::Priority => vec![PathWord::Priority],
        });
        match self.fate.begins {
            Begins::Up => std::iter::once(PathWord::Up)
                .chain(moments)
                .chain([PathWord::Down])
                .collect(),
            Begins::Fails if is_first => vec![PathWord::ConnectFailed],
            Begins::Fails => vec![PathWord::Failed],
        }
    }

    fn said(&self) -> String {
        let fate = self.fate;
        let (end, way) = (end_word(fate.at), way_word(fate.way));
        format!("{end} {way} {}", fate.causes.join(" or "))
    }
}

/// The end of a path as reported.
fn said(played: &Played, line: &Line) -> Option<String> {
    let Line { what, path, .. } = line;
    let end = played.end(path.netns).map_or("?", end_word);
    let cause = path.cause.as_deref().unwrap_or("?");
    match what {
        PathWord::Failed | PathWord::ConnectFailed | PathWord::Down => {
            Some(format!("{end} {} {cause} ({})", path.role, path.known))
        }
        PathWord::Up | PathWord::Stale | PathWord::Recovered | PathWord::Priority => None,
    }
}

fn said_of(words: impl Iterator<Item = String>) -> String {
    let mut words: Vec<String> = words.collect();
    words.sort();
    match words.is_empty() {
        true => "nothing".to_owned(),
        false => words.join("; "),
    }
}

/// Each expected path takes its lines; the remaining ones are surplus.
fn matched(rung: &str, played: &Played, lines: &[Line]) -> Vec<String> {
    let mut left: Vec<Line> = lines.to_vec();
    let mut wrong = Vec::new();
    for wanted in &played.wanted {
        for what in wanted.whats(played) {
            let is_it = |line: &Line| line.what == what && wanted.is_about_line(line);
            match left.iter().position(is_it) {
                Some(index) => {
                    let line = left.remove(index);
                    let is_repeat = |other: &Line| {
                        wanted.fate.repeats && is_it(other) && other.path.cause == line.path.cause
                    };
                    left.retain(|other| !is_repeat(other));
                    wrong.extend(wanted.different(rung, played, &line));
                }
                None if rung == TRACEPOINT && wanted.may_be_unseen(what, lines) => {}
                None => wrong.push(format!("{}: no {what:?} line", wanted.said())),
            }
        }
    }
    let surplus = |line: &Line| format!("surplus {:?}: {:?}", line.what, line.path);
    wrong.extend(left.iter().map(surplus));
    wrong
}

/// Word of the limit of a tracer that cannot tell a refused join from one with a wrong HMAC.
const WRONG_HMAC: &str = "wrong HMAC";
/// The attach method that cannot see every cause.
pub(super) const TRACEPOINT: &str = "tracepoint";
/// A path that this attach method can miss while it is up: it looks for new ones once a second, on a
/// slow machine less often.
const SCANNED_NS: u64 = 10_000_000_000;

impl Wanted {
    /// Whether tracepoints alone may miss a line.
    fn may_be_unseen(&self, what: PathWord, lines: &[Line]) -> bool {
        let is_brief = |line: &Line| {
            let lifetime = line.path.lifetime_ns;
            line.what == PathWord::Down
                && self.is_about(line.path)
                && lifetime.is_some_and(|ns| ns < SCANNED_NS)
        };
        let is_active_join = self.fate.at == End::Client && self.fate.way != Way::First;
        match what {
            PathWord::Up => is_active_join && lines.iter().any(is_brief),
            PathWord::Stale | PathWord::Recovered | PathWord::Priority => true,
            PathWord::Failed => self.fate.hidden,
            PathWord::ConnectFailed | PathWord::Down => false,
        }
    }

    /// Which of two paths the scheduler gives up is its own choice.
    fn is_about_line(&self, line: &Line) -> bool {
        match line.what {
            PathWord::Stale | PathWord::Recovered => line.path.netns == self.netns,
            PathWord::Up
            | PathWord::Failed
            | PathWord::ConnectFailed
            | PathWord::Down
            | PathWord::Priority => self.is_about(line.path),
        }
    }

    fn is_about(&self, path: &PathLine) -> bool {
        let same = |right: &Endpoint, traced: &Endpoint| {
            right.addr == traced.addr
                && (right.port == 0 || traced.port == 0 || right.port == traced.port)
        };
        let role = match self.fate.way {
            Way::First => "first",
            Way::Second | Way::Third | Way::Foreign | Way::Announced(_) => "join",
        };
        // The address of a join that could not begin is the endpoint's.
        path.netns == self.netns
            && path.role == role
            && same(&self.local, &path.local)
            && same(&self.remote, &path.remote)
    }

    fn different(&self, rung: &str, played: &Played, line: &Line) -> Vec<String> {
        let path = line.path;
        let fate = self.fate;
        let mut wrong = Vec::new();
        let about = format!("{} {:?}", self.said(), line.what);
        let mut expect = |is_right: bool, what: &str, traced: &dyn std::fmt::Debug| {
            if !is_right {
                wrong.push(format!("{about}: {what}, traced {traced:?}"));
            }
        };
        let is_weak = rung == TRACEPOINT;
        expect(path.rung == rung, "another attach method", &path.rung);
        expect(!path.existing, "not existing", &path.existing);
        let side = match fate.at {
            End::Client => "active",
            End::Server => "passive",
        };
        let is_side = path.side.as_deref() == Some(side);
        expect(is_side, side, &path.side);
        let has_connection = path.id.is_some();
        expect(
            has_connection != fate.stray || fate.nameless && is_weak,
            if fate.stray {
                "no connection"
            } else {
                "its connection"
            },
            &path.id,
        );
        let ends = match line.what {
            PathWord::Failed | PathWord::ConnectFailed | PathWord::Down => true,
            PathWord::Up | PathWord::Stale | PathWord::Recovered | PathWord::Priority => false,
        };
        if ends {
            let cause = path.cause.as_deref();
            let is_among = |all: &[&str]| cause.is_some_and(|cause| all.contains(&cause));
            let is_accepted = is_among(fate.causes) || is_weak && is_among(fate.inferred);
            expect(is_accepted, "the cause", &(&path.cause, &path.known));
            let may_be_inferred = is_weak || line.is_doubtful;
            let is_known = path.known == "reported" || may_be_inferred && path.known == "inferred";
            expect(is_known, "the cause is reported", &path.known);
            let name = path.reset.as_ref().map(|reset| reset.name.as_deref());
            let is_reset = match name {
                None => fate.resets.is_empty() || fate.resets.contains(&NO_RESET) || is_weak,
                Some(name) => name.is_some_and(|name| fate.resets.contains(&name)),
            };
            expect(
                is_reset,
                &format!("reset {}", fate.resets.join(" or ")),
                &path.reset,
            );
        }
        if let Some(owner) = &path.owner {
            let is_it = match fate.by_kernel {
                true => owner.pid == 0 && owner.via == "kernel",
                false => played.owns(fate.at, owner.pid),
            };
            expect(is_it, "the owner", owner);
        } else {
            expect(
                fate.nameless && is_weak || fate.stray && !fate.by_kernel,
                "an owner",
                &path.owner,
            );
        }
        wrong
    }
}

/// Both ends report once that the connection closed, with as many paths as there were.
fn ended(rung: &str, played: &Played, closed: &[&ClosedLine]) -> Vec<String> {
    let mut wrong = Vec::new();
    for at in [End::Client, End::Server] {
        let lines: Vec<_> = closed
            .iter()
            .filter(|line| played.end(line.netns) == Some(at))
            .collect();
        let end = end_word(at);
        let fates = || {
            let fates = played.wanted.iter().map(|wanted| wanted.fate);
            fates.filter(move |fate| fate.at == at)
        };
        // The tracer need not follow a connection that never was.
        let is_vain = fates().any(|fate| fate.way == Way::First && fate.begins == Begins::Fails);
        let number = match fates().next() {
            None => 0..=0,
            Some(_) if is_vain => 0..=1,
            Some(_) => 1..=1,
        };
        if !number.contains(&lines.len()) {
            let count = lines.len();
            wrong.push(format!("{end}: {count} closed lines, not {number:?}"));
            continue;
        }
        let up = fates().filter(|fate| fate.begins == Begins::Up).count();
        let fails = |fate: &&Fate| fate.begins == Begins::Fails && !fate.stray;
        let failed = fates().filter(fails).count();
        let hides = rung == TRACEPOINT && fates().any(|fate| fate.hidden || fate.nameless);
        for line in lines {
            let counted = (line.paths_up as usize, line.paths_failed as usize);
            if counted != (up, failed) && !hides {
                wrong.push(format!(
                    "{end}: closed after {up} paths up and {failed} failed, traced {counted:?}"
                ));
            }
            if line.outcome != "mptcp" && !is_vain {
                wrong.push(format!("{end}: closed as mptcp, traced {}", line.outcome));
            }
            if let Some(owner) = &line.owner
                && !played.owns(at, owner.pid)
            {
                wrong.push(format!("{end}: closed by the owner, traced {owner:?}"));
            }
            let never = line.never_tried.as_deref();
            let wanted: Vec<&str> = match (at, rung) {
                (End::Client, TRACEPOINT) => {
                    [played.recipe.never_tried, played.recipe.never_inferred].concat()
                }
                (End::Client, _) => played.recipe.never_tried.to_vec(),
                // Without functions, the tracer does not know of which connection a join was refused.
                (End::Server, TRACEPOINT) => Vec::new(),
                (End::Server, _) if (up, failed) == (1, 0) => vec!["no-join-came"],
                (End::Server, _) => Vec::new(),
            };
            let is_right = match never {
                Some(never) => wanted.contains(&never),
                None => wanted.is_empty(),
            };
            if !is_right && !hides {
                wrong.push(format!("{end}: never tried: {wanted:?}, traced {never:?}"));
            }
        }
    }
    wrong
}
