//! `mptcp-lab flood`: many threads that ask as fast as they can, each question about a socket of its own.
//!
//! Each socket is bound to an address of its own in 127.0.0.0/8, so that a line tells which question it is
//! about: thread, number, and the answer that it must have got.

use std::{
    io::{BufRead as _, BufReader},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::AsRawFd as _,
    path::PathBuf,
    process::{Command, Stdio},
    sync::Barrier,
    time::Instant,
};

use anyhow::{Context as _, ensure};

use crate::{
    ask::{SOL_TCP, TCP_IS_MPTCP},
    net::{Family, Kind, open},
    report::{Flooded, MatrixLine, Outcome, write_line},
    sys,
    traced::{End, Traced, TracedLine},
};

/// Questions of one thread at most: as many as there are addresses for it.
const QUERIES_MAX: u32 = 1 << 16;
/// Threads at most: the second byte of the address.
const THREADS_MAX: u32 = 200;
/// Port of every socket; what differs is the address.
const PORT: u16 = 7_777;

/// What to run.
#[derive(clap::Args)]
pub struct Args {
    /// The mptcp-trace to test
    #[arg(long, value_name = "PATH")]
    pub tracer: PathBuf,
    /// The rung
    #[arg(long, value_name = "RUNG", default_value = "auto")]
    pub attach: String,
    /// Threads that ask
    #[arg(long, default_value_t = 8)]
    pub threads: u32,
    /// Questions of each thread
    #[arg(long, default_value_t = 50_000)]
    pub queries: u32,
    /// More arguments for the tracer (repeatable)
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub tracer_arg: Vec<String>,
}

/// What to ask.
#[derive(clap::Args)]
pub struct AskerArgs {
    /// Threads that ask
    #[arg(long, default_value_t = 8)]
    pub threads: u32,
    /// Questions of each thread
    #[arg(long, default_value_t = 50_000)]
    pub queries: u32,
    /// One socket a thread instead of one a question: the highest rate
    #[arg(long)]
    pub same_socket: bool,
}

/// The address that question `number` of thread `thread` is about.
fn address(thread: u32, number: u32) -> Ipv4Addr {
    let [_, _, high, low] = number.to_be_bytes();
    Ipv4Addr::new(127, thread as u8 + 1, high, low)
}

/// Which question an address is about.
fn question(address: IpAddr) -> Option<(u32, u32)> {
    let IpAddr::V4(address) = address.to_canonical() else {
        return None;
    };
    let [127, thread, high, low] = address.octets() else {
        return None;
    };
    Some((
        u32::from(thread).checked_sub(1)?,
        u32::from(high) << 8 | u32::from(low),
    ))
}

/// The socket that question `number` is about.
fn kind(number: u32) -> (Kind, Family) {
    let kind = if number.is_multiple_of(2) {
        Kind::Mptcp
    } else {
        Kind::Tcp
    };
    let family = if number.is_multiple_of(3) {
        Family::Mapped
    } else {
        Family::V4
    };
    (kind, family)
}

/// The application.
///
/// # Errors
///
/// Fails if a socket cannot be made, or is answered otherwise than it must be.
pub fn ask(args: &AskerArgs) -> anyhow::Result<()> {
    ensure!(args.threads <= THREADS_MAX, "at most {THREADS_MAX} threads");
    ensure!(
        args.same_socket || args.queries <= QUERIES_MAX,
        "at most {QUERIES_MAX} questions a thread"
    );
    sys::enter_network_namespace().context("cannot make a network namespace; run it as root")?;
    let start = Barrier::new(args.threads as usize);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..args.threads)
            .map(|thread| {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    if args.same_socket {
                        same_socket(args.queries)
                    } else {
                        (0..args.queries).try_for_each(|number| one_socket(thread, number))
                    }
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .map_err(|_panic| anyhow::anyhow!("an asking thread panicked"))?
        })
    })
}

fn one_socket(thread: u32, number: u32) -> anyhow::Result<()> {
    let (kind, family) = kind(number);
    let socket = open(kind, family).context("cannot open a socket")?;
    let address = match family {
        Family::V4 => IpAddr::V4(address(thread, number)),
        Family::V6 | Family::Mapped => IpAddr::V6(address(thread, number).to_ipv6_mapped()),
    };
    socket
        .bind(&SocketAddr::new(address, PORT).into())
        .context("cannot bind a socket")?;
    query(socket.as_raw_fd());
    Ok(())
}

fn same_socket(queries: u32) -> anyhow::Result<()> {
    let socket = open(Kind::Mptcp, Family::V4).context("cannot open a socket")?;
    for _ in 0..queries {
        query(socket.as_raw_fd());
    }
    Ok(())
}

fn query(fd: i32) {
    let mut value = -1_i32;
    let mut length = 4_i32;
    let (optval, optlen) = (&raw mut value as usize, &raw mut length as usize);
    let _what_it_says = sys::getsockopt(fd, SOL_TCP, TCP_IS_MPTCP, optval, optlen);
}

/// Runs one flood; true if nothing is wrong.
///
/// # Errors
///
/// Fails if the tracer cannot be run or what it prints cannot be read.
pub fn run(args: &Args) -> anyhow::Result<bool> {
    let flooded = flood(args)?;
    let right = flooded.outcome == Outcome::Ok;
    write_line(&mut std::io::stdout(), &MatrixLine::Flood(flooded))?;
    Ok(right)
}

/// Runs one flood.
pub(crate) fn flood(args: &Args) -> anyhow::Result<Flooded> {
    let me = std::env::current_exe().context("cannot find myself")?;
    eprintln!(
        "mptcp-lab: flood of {} x {} on rung {}",
        args.threads, args.queries, args.attach
    );
    let start = Instant::now();
    let mut tracer = Command::new(&args.tracer)
        .args(["live", "--json", "--attach", &args.attach])
        .args(&args.tracer_arg)
        .arg("--")
        .arg(me)
        .args(["flood-asker", "--threads", &args.threads.to_string()])
        .args(["--queries", &args.queries.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", args.tracer.display()))?;
    let lines = BufReader::new(tracer.stdout.take().context("the tracer has no stdout")?).lines();
    let mut books = Books::new(args.threads, args.queries);
    for line in lines {
        let line = line.context("cannot read the tracer's lines")?;
        let line: TracedLine =
            serde_json::from_str(&line).with_context(|| format!("cannot read {line:?}"))?;
        books.take(&line);
    }
    let status = tracer.wait().context("cannot wait for the tracer")?;
    ensure!(status.success(), "the tracer ended with {status}");
    Ok(books.close(&args.attach, start.elapsed().as_secs_f64()))
}

/// Which questions were printed.
struct Books {
    threads: u32,
    queries: u32,
    /// One byte a question.
    printed: Vec<u8>,
    /// Thread id of each thread, as its first line has it.
    tids: Vec<Option<u32>>,
    lines: u64,
    duplicates: u64,
    mixed_up: u64,
    wrong_answer: u64,
    examples: Vec<String>,
    end: Option<End>,
    has_option: bool,
}

impl Books {
    fn new(threads: u32, queries: u32) -> Self {
        Self {
            threads,
            queries,
            printed: vec![0; threads as usize * queries as usize],
            tids: vec![None; threads as usize],
            lines: 0,
            duplicates: 0,
            mixed_up: 0,
            wrong_answer: 0,
            examples: Vec::new(),
            end: None,
            has_option: true,
        }
    }

    fn take(&mut self, line: &TracedLine) {
        match line {
            TracedLine::Start(_) => {}
            TracedLine::End(end) => self.end = Some(end.clone()),
            TracedLine::Query(query) => self.take_query(query),
        }
    }

    fn take_query(&mut self, query: &Traced) {
        self.lines += 1;
        let asked = query
            .local
            .addr
            .parse()
            .ok()
            .and_then(question)
            .filter(|(thread, number)| *thread < self.threads && *number < self.queries);
        let Some((thread, number)) = asked.filter(|_| query.local.port == PORT) else {
            self.mixed_up += 1;
            self.example(query);
            return;
        };
        let tid = *self.tids[thread as usize].get_or_insert(query.tid);
        let (kind, family) = kind(number);
        let protocol = match kind {
            Kind::Mptcp => "mptcp",
            Kind::Tcp => "tcp",
        };
        let of_family = match family {
            Family::V4 => "ipv4",
            Family::V6 | Family::Mapped => "ipv6",
        };
        if tid != query.tid || query.protocol != protocol || query.family != of_family {
            self.mixed_up += 1;
            self.example(query);
        }
        self.has_option &= query.answer.as_deref() != Some("unsupported");
        let errno = if kind == Kind::Mptcp {
            "EOPNOTSUPP"
        } else {
            "ENOPROTOOPT"
        };
        let right = match query.answer.as_deref() {
            Some("unsupported") => query.errno.as_deref() == Some(errno),
            answer => answer == Some(protocol) && query.errno.is_none(),
        };
        if !right {
            self.wrong_answer += 1;
            self.example(query);
        }
        let slot = &mut self.printed[thread as usize * self.queries as usize + number as usize];
        *slot = slot.saturating_add(1);
        self.duplicates += u64::from(*slot > 1);
    }

    fn example(&mut self, query: &Traced) {
        if self.examples.len() < 3 {
            self.examples.push(format!("{query:?}"));
        }
    }

    fn close(self, rung: &str, seconds: f64) -> Flooded {
        let queries = u64::from(self.threads) * u64::from(self.queries);
        let losses = self.end.as_ref().and_then(|end| end.losses.first());
        let lost = losses.map_or(0, |losses| losses.lost() + losses.missed);
        let unaccounted = queries.cast_signed() - (self.lines + lost).cast_signed();
        let balanced = losses.is_some_and(crate::traced::Losses::balances);
        let right = self.duplicates == 0
            && self.mixed_up == 0
            && self.wrong_answer == 0
            && unaccounted == 0
            && balanced;
        let why = if right {
            String::new()
        } else {
            format!("{losses:?} {}", self.examples.join(" "))
        };
        Flooded {
            rung: rung.to_owned(),
            outcome: if right {
                Outcome::Ok
            } else {
                Outcome::Mismatch
            },
            threads: u64::from(self.threads),
            queries,
            lines: self.lines,
            lost,
            duplicates: self.duplicates,
            mixed_up: self.mixed_up,
            wrong_answer: self.wrong_answer,
            unaccounted,
            seconds,
            caller: format!("{queries} queries"),
            traced: format!("{} lines + {lost} lost", self.lines),
            why,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{report::Endpoint, traced::Losses};

    fn line(thread: u32, number: u32) -> Traced {
        let (kind, family) = kind(number);
        let word = if kind == Kind::Mptcp { "mptcp" } else { "tcp" };
        let v4 = address(thread, number);
        let mapped = family == Family::Mapped;
        Traced {
            pid: 1,
            tid: 100 + thread,
            inode: None,
            protocol: word.into(),
            family: if mapped { "ipv6" } else { "ipv4" }.into(),
            state: "CLOSE".into(),
            local: Endpoint {
                addr: if mapped {
                    v4.to_ipv6_mapped().to_string()
                } else {
                    v4.to_string()
                },
                port: PORT,
            },
            remote: Endpoint {
                addr: "0.0.0.0".into(),
                port: 0,
            },
            answer: Some(word.into()),
            errno: None,
            fell_back: Some(false),
            rung: "fexit".into(),
        }
    }

    fn flooded(lines: Vec<Traced>, ring_full: u64) -> Flooded {
        let mut books = Books::new(2, 10);
        let emitted = lines.len() as u64;
        for line in lines {
            books.take(&TracedLine::Query(Box::new(line)));
        }
        let losses = Losses {
            seen: emitted + ring_full,
            emitted,
            filtered: 0,
            ring_full,
            faulted: 0,
            table_full: 0,
            unfinished: 0,
            missed: 0,
        };
        books.take(&TracedLine::End(End {
            findings: emitted,
            losses: vec![losses],
        }));
        books.close("fexit", 0.0)
    }

    fn all() -> Vec<Traced> {
        (0..2)
            .flat_map(|thread| (0..10).map(move |number| line(thread, number)))
            .collect()
    }

    #[test]
    fn every_question_once_or_counted_as_lost() {
        assert_eq!(flooded(all(), 0).outcome, Outcome::Ok);
        assert_eq!(flooded(all().split_off(3), 3).outcome, Outcome::Ok);
        assert_eq!(flooded(all().split_off(3), 0).unaccounted, 3);
        assert_eq!(flooded(all(), 1).unaccounted, -1);
    }

    #[test]
    fn doubled_mixed_up_and_wrong_lines_are_counted() {
        let with = |line: Traced| {
            let mut lines = all();
            lines[4] = line;
            flooded(lines, 0)
        };
        assert_eq!(with(line(0, 3)).duplicates, 1);
        assert_eq!(
            with(Traced {
                tid: 7,
                ..line(0, 4)
            })
            .mixed_up,
            1
        );
        assert_eq!(
            with(Traced {
                family: "ipv6".into(),
                ..line(0, 4)
            })
            .mixed_up,
            1
        );
        assert_eq!(
            with(Traced {
                answer: Some("tcp".into()),
                ..line(0, 4)
            })
            .wrong_answer,
            1
        );
        assert_eq!(
            with(Traced {
                answer: None,
                ..line(0, 4)
            })
            .wrong_answer,
            1
        );
        let elsewhere = Endpoint {
            addr: "10.0.0.1".into(),
            port: PORT,
        };
        assert_eq!(
            with(Traced {
                local: elsewhere,
                ..line(0, 4)
            })
            .mixed_up,
            1
        );
        assert_eq!(with(line(0, 3)).outcome, Outcome::Mismatch);
    }

    #[test]
    fn an_address_tells_its_question() {
        for (thread, number) in [(0, 0), (7, 49_999), (199, 65_535)] {
            let v4 = address(thread, number);
            assert_eq!(question(IpAddr::V4(v4)), Some((thread, number)));
            assert_eq!(
                question(IpAddr::V6(v4.to_ipv6_mapped())),
                Some((thread, number))
            );
        }
    }
}
