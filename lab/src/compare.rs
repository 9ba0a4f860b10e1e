//! Compares the callers' answers with the traced ones. Pure.

use std::collections::BTreeMap;

use crate::{
    cells::{judged, mismatch, ok, skipped},
    report::{Asked, AskerLine, Cell, Endpoint, Truth},
    traced::{End, MISSED_MAX, Traced, TracedLine},
};

#[cfg(test)]
mod tests;

/// Compares one run of the asker with one run of the tracer: one cell per query, one per line
/// without a matching query, and one for the loss accounting.
pub(crate) fn compare(rung: &str, asked: &[AskerLine], traced: &[TracedLine]) -> Vec<Cell> {
    let mut cells = queries(rung, asked, traced);
    let is_unrecorded =
        |line: &&TracedLine| matches!(line, TracedLine::Verdict(_) | TracedLine::Closed(_));
    let unrecorded = traced.iter().filter(is_unrecorded).count() as u64;
    let ends: Vec<&End> = traced.iter().filter_map(TracedLine::end).collect();
    cells.push(identity(rung, unrecorded, &ends));
    cells
}

/// One cell per query, and one per line without a matching query.
pub(crate) fn queries(rung: &str, asked: &[AskerLine], traced: &[TracedLine]) -> Vec<Cell> {
    let mut threads: BTreeMap<(u32, u32), Vec<&Traced>> = BTreeMap::new();
    for query in traced.iter().filter_map(TracedLine::query) {
        // The asker uses it to identify its socket; not part of the comparison.
        if query.api != "SO_PROTOCOL" {
            let thread = (query.pid, query.tid);
            threads.entry(thread).or_default().push(query);
        }
    }
    // In reverse order of time, so that pop returns the oldest.
    for lines in threads.values_mut() {
        lines.reverse();
    }
    let mut asked: Vec<&AskerLine> = asked.iter().collect();
    asked.sort_by_key(|line| match line {
        AskerLine::Asked(asked) => asked.seq,
        // They make no query, so their position does not matter.
        AskerLine::Skipped { .. } => u64::MAX,
    });
    let mut open = Open::of(&asked);
    let mut cells: Vec<Cell> = Vec::new();
    for line in asked {
        match line {
            AskerLine::Skipped { case, why } => cells.push(skipped(case, rung, why)),
            AskerLine::Asked(asked) => {
                let lines = threads.entry((asked.pid, asked.tid)).or_default();
                while let Some(line) = lines.pop_if(|line| !open.has(line)) {
                    cells.push(extra(rung, line));
                }
                open.close(asked);
                cells.push(one(rung, asked, lines));
            }
        }
    }
    let left_over = threads
        .into_values()
        .flat_map(|lines| lines.into_iter().rev());
    cells.extend(left_over.map(|line| extra(rung, line)));
    cells
}

/// Number of queries not yet compared, by thread and socket: a line about a socket without open
/// queries is surplus, and the lines after it still match their queries.
struct Open(BTreeMap<(u32, u32, Option<u64>), u64>);

impl Open {
    fn of(asked: &[&AskerLine]) -> Self {
        let mut open = BTreeMap::new();
        for line in asked {
            if let AskerLine::Asked(asked) = line {
                *open.entry((asked.pid, asked.tid, asked.inode)).or_default() += 1;
            }
        }
        Self(open)
    }

    fn has(&self, line: &Traced) -> bool {
        // A line without an inode may be about any socket.
        line.inode.is_none()
            || self
                .0
                .get(&(line.pid, line.tid, line.inode))
                .is_some_and(|&count| count > 0)
    }

    fn close(&mut self, asked: &Asked) {
        let count = self.0.entry((asked.pid, asked.tid, asked.inode));
        count.and_modify(|count| *count = count.saturating_sub(1));
    }
}

fn extra(rung: &str, line: &Traced) -> Cell {
    let why = format!("a line without a query: {line:?}");
    mismatch("extra", rung, "no query", &line_said(line), why)
}

/// Compares one query with the next line of its thread.
fn one(rung: &str, asked: &Asked, lines: &mut Vec<&Traced>) -> Cell {
    let caller = caller_said(asked);
    if let Err(why) = sensible(asked) {
        return mismatch(&asked.case, rung, &caller, "not compared", why);
    }
    let is_query = match asked.truth {
        Truth::Mptcp | Truth::Tcp | Truth::Unsupported | Truth::Failed => true,
        Truth::OtherSocket | Truth::OtherOption => false,
    };
    // If a line is missing, the next one is about another socket: the remaining ones still match.
    let is_next = lines.last().is_some_and(|line| same_socket(asked, line));
    if !is_query {
        return match lines.pop_if(|_next| is_next) {
            None => ok(&asked.case, rung, &caller, "no line"),
            Some(line) => {
                let why = format!("an unexpected line: {line:?}");
                mismatch(&asked.case, rung, &caller, &line_said(line), why)
            }
        };
    }
    let Some(line) = lines.pop_if(|_next| is_next) else {
        let why = format!("the next line of the thread is {:?}", lines.last());
        return mismatch(&asked.case, rung, &caller, "no line", why);
    };
    let differences = differences(rung, asked, line);
    judged(&asked.case, rung, &caller, &line_said(line), differences)
}

/// Checks that the kernel did what the case meant to provoke; otherwise there is nothing to
/// compare.
fn sensible(asked: &Asked) -> Result<(), String> {
    let provoked = match asked.truth {
        Truth::Mptcp => !asked.fell_back && asked.so_protocol == Some(libc::IPPROTO_MPTCP),
        Truth::Tcp => asked.fell_back || asked.so_protocol == Some(libc::IPPROTO_TCP),
        // The errno distinguishes the two kinds of MPTCP socket.
        Truth::Unsupported => {
            let still = asked.so_protocol == Some(libc::IPPROTO_MPTCP) && !asked.fell_back;
            let expected = if still { "EOPNOTSUPP" } else { "ENOPROTOOPT" };
            asked.errno.as_deref() == Some(expected)
        }
        Truth::Failed | Truth::OtherSocket | Truth::OtherOption => true,
    };
    if provoked {
        Ok(())
    } else {
        Err(format!(
            "the kernel did not do what the case provokes: {asked:?}"
        ))
    }
}

fn same_socket(asked: &Asked, line: &Traced) -> bool {
    match (asked.inode, line.inode) {
        (Some(asked), Some(traced)) => asked == traced,
        (None, Some(_)) => false,
        (_, None) => true,
    }
}

fn differences(rung: &str, asked: &Asked, line: &Traced) -> Vec<String> {
    let Traced {
        boottime_ns: _,
        id: _,
        socket: _,
        netns: _,
        api: _,
        verdict: _,
        why: _,
        cause: _,
        delay_ns: _,
        pid: _,
        tid: _,
        inode,
        protocol,
        family,
        state,
        local,
        remote,
        answer,
        errno,
        fell_back,
        rung: traced_rung,
    } = line;
    let mut differences = Vec::new();
    let mut expect = |name: &str, told: &dyn std::fmt::Debug, traced: &dyn std::fmt::Debug| {
        let (told, traced) = (format!("{told:?}"), format!("{traced:?}"));
        if told != traced {
            differences.push(format!("{name}: caller {told}, traced {traced}"));
        }
    };
    expect("answer", &Some(answer_word(asked.truth)), answer);
    expect("errno", &asked.errno, errno);
    expect("rung", &rung, traced_rung);
    let is_mptcp = asked.so_protocol == Some(libc::IPPROTO_MPTCP);
    expect(
        "protocol",
        &if is_mptcp { "mptcp" } else { "tcp" },
        protocol,
    );
    // An unknown inode is acceptable in principle, but not on the kernels we test.
    expect("inode", &asked.inode, inode);
    expect("fell back", &Some(asked.fell_back), fell_back);
    expect("family", &asked.family.as_deref().unwrap_or("none"), family);
    expect("state", &asked.state.as_deref().unwrap_or("none"), state);
    let local_told = asked.local.as_ref();
    expect("local", &local_told, &Some(local));
    // While connecting, the kernel knows the target but has no peer yet: both are right.
    let connecting = |target: &Endpoint| target == remote;
    if !asked.connecting_to.as_ref().is_some_and(connecting) {
        expect("remote", &asked.remote.as_ref(), &Some(remote));
    }
    differences
}

/// The counters must add up, nothing may be lost, and every record must be a line, or routine;
/// verdicts and ends of connections have no record.
fn identity(rung: &str, unrecorded: u64, ends: &[&End]) -> Cell {
    let [end] = ends else {
        let why = format!("{} end lines", ends.len());
        return mismatch("identity", rung, "one end line", "otherwise", why);
    };
    if end.losses.is_empty() {
        let why = "the end line has no counters".to_owned();
        return mismatch("identity", rung, "counters", "none", why);
    }
    for losses in &end.losses {
        // A query is visible only once; paths are also found in the kernel's list of sockets.
        let missed = losses.gone(rung) - losses.lost();
        let may_miss = match losses.sensor.as_str() {
            "subflow" => MISSED_MAX,
            _ => 0,
        };
        if !losses.balances() || losses.lost() > 0 || missed > may_miss {
            let why = format!("{losses:?}");
            return mismatch("identity", rung, "nothing lost", "otherwise", why);
        }
    }
    let emitted: u64 = end.losses.iter().map(|losses| losses.emitted).sum();
    if emitted + unrecorded != end.findings + end.routine {
        let why = format!("{} findings of {:?}", end.findings, end.losses);
        return mismatch("identity", rung, "every record a line", "otherwise", why);
    }
    ok("identity", rung, "nothing lost", "nothing lost")
}

/// The tracer's word for the caller's answer.
pub(crate) fn answer_word(truth: Truth) -> &'static str {
    match truth {
        Truth::Mptcp => "mptcp",
        Truth::Tcp => "tcp",
        Truth::Unsupported => "unsupported",
        Truth::Failed => "failed",
        Truth::OtherSocket => "other socket:",
        Truth::OtherOption => "other option:",
    }
}

fn caller_said(asked: &Asked) -> String {
    let word = answer_word(asked.truth);
    match (&asked.errno, asked.truth) {
        (Some(errno), _) => format!("{word} {errno}"),
        (None, Truth::OtherSocket | Truth::OtherOption) => format!("{word} success"),
        (None, Truth::Mptcp | Truth::Tcp | Truth::Unsupported | Truth::Failed) => word.to_owned(),
    }
}

fn line_said(line: &Traced) -> String {
    match (&line.answer, &line.errno) {
        (Some(answer), Some(errno)) => format!("{answer} {errno}"),
        (Some(answer), None) => answer.clone(),
        (None, _) => "?".to_owned(),
    }
}
