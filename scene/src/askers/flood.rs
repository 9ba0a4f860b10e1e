//! The application of the flood: threads that query as fast as possible, each query on a separate
//! socket.
//!
//! Each socket is bound to a unique address in 127.0.0.0/8, so that a line identifies its query:
//! the thread, the number, and the expected answer.

use std::{
    collections::BTreeMap,
    fs::File,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    os::fd::AsRawFd as _,
    path::PathBuf,
    sync::Barrier,
};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use super::asker::thread_id;
use crate::{
    lines::write_line,
    link,
    net::{Family, Kind, open},
    query::{SOL_TCP, TCP_IS_MPTCP},
    side_by_side,
    sys::{self, errno_name},
};

/// Maximum number of queries per thread: the addresses available to it.
const QUERIES_MAX: u32 = 1 << 16;
/// Maximum number of threads: the second byte of the address.
const THREADS_MAX: u32 = 200;
/// Ports differ too, so that a tracer that mixes them up is detected.
const PORT_FIRST: u16 = 10_000;
const PORT_COUNT: u16 = 50_000;
/// Maximum number of distinct answers counted per thread; a kernel gives one to each kind of
/// socket.
const ANSWERS_MAX: usize = 16;

/// Arguments of `mptcp-lab flood-asker`.
#[derive(clap::Args)]
pub struct Args {
    /// Querying threads
    #[arg(long, default_value_t = 8)]
    pub threads: u32,
    /// Queries per thread
    #[arg(long, default_value_t = 50_000)]
    pub queries: u32,
    /// Write the queries and answers to FILE
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Queries made, and the kernel's answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Told {
    /// Querying process.
    pub pid: u32,
    /// Its threads, in order.
    pub tids: Vec<u32>,
    /// Distinct answers of the kernel.
    pub answers: Vec<Answer>,
}

/// How often a kind of socket got an answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// Kind of socket.
    pub kind: Kind,
    /// Errno, or none if the call succeeded.
    pub errno: Option<String>,
    /// Value that the kernel wrote.
    pub value: i32,
    /// Number of occurrences.
    pub count: u64,
}

/// Answers of one thread, by kind of socket, errno and value, with their number.
type Answers = BTreeMap<(Kind, i32, i32), u64>;

/// Local address for query `number` of thread `thread`.
pub fn address(thread: u32, number: u32) -> SocketAddrV4 {
    let [_, _, high, low] = number.to_be_bytes();
    let port = PORT_FIRST + (number % u32::from(PORT_COUNT)) as u16;
    SocketAddrV4::new(Ipv4Addr::new(127, thread as u8 + 1, high, low), port)
}

/// Thread and number of the query with this address.
pub fn number_of(address: SocketAddr) -> Option<(u32, u32)> {
    let IpAddr::V4(v4) = address.ip().to_canonical() else {
        return None;
    };
    let [127, thread, high, low] = v4.octets() else {
        return None;
    };
    let thread = u32::from(thread).checked_sub(1)?;
    let number = u32::from(high) << 8 | u32::from(low);
    let is_its_port = self::address(thread, number).port() == address.port();
    (thread < THREADS_MAX && is_its_port).then_some((thread, number))
}

/// Kind of socket for query `number`.
pub fn kind(number: u32) -> (Kind, Family) {
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

/// Runs the application.
pub fn run(args: &Args) -> anyhow::Result<()> {
    ensure!(
        (1..=THREADS_MAX).contains(&args.threads),
        "cannot query with {} threads: between 1 and {THREADS_MAX} have addresses",
        args.threads
    );
    ensure!(
        args.queries <= QUERIES_MAX,
        "cannot make {} queries per thread: only {QUERIES_MAX} have addresses",
        args.queries
    );
    link::enter_network_namespace().context("cannot make a network namespace; run it as root")?;
    let start = Barrier::new(args.threads as usize);
    let threads: Vec<(u32, Answers)> = side_by_side::all(0..args.threads, |thread| {
        start.wait();
        let answers = many_sockets(thread, args.queries)?;
        Ok((thread_id(), answers))
    })?;
    let mut all = Answers::new();
    for (_tid, answers) in &threads {
        for (answer, count) in answers {
            *all.entry(*answer).or_default() += count;
        }
    }
    let told = Told {
        pid: std::process::id(),
        tids: threads.iter().map(|(tid, _answers)| *tid).collect(),
        answers: all
            .into_iter()
            .map(|((kind, errno, value), count)| Answer {
                kind,
                errno: (errno != 0).then(|| errno_name(errno)),
                value,
                count,
            })
            .collect(),
    };
    let path = args.out.display();
    let mut file = File::create(&args.out).with_context(|| format!("cannot write to {path}"))?;
    write_line(&mut file, &told)
}

fn many_sockets(thread: u32, queries: u32) -> anyhow::Result<Answers> {
    let mut answers = Answers::new();
    for number in 0..queries {
        let (kind, family) = kind(number);
        let socket = open(kind, family).context("cannot open a socket")?;
        let v4 = address(thread, number);
        let address: SocketAddr = match family {
            Family::V4 => v4.into(),
            Family::V6 | Family::Mapped => (v4.ip().to_ipv6_mapped(), v4.port()).into(),
        };
        socket
            .bind(&address.into())
            .with_context(|| format!("cannot bind a socket to {address}"))?;
        let (errno, value) = query(socket.as_raw_fd());
        count(&mut answers, (kind, errno, value))?;
    }
    Ok(answers)
}

fn count(answers: &mut Answers, answer: (Kind, i32, i32)) -> anyhow::Result<()> {
    *answers.entry(answer).or_default() += 1;
    ensure!(answers.len() <= ANSWERS_MAX, "the kernel answers at random");
    Ok(())
}

/// Return value of the call, and the value that the kernel wrote.
fn query(fd: i32) -> (i32, i32) {
    let mut value = -1_i32;
    let mut length = 4_i32;
    let (optval, optlen) = (&raw mut value as usize, &raw mut length as usize);
    let returned = sys::getsockopt(fd, SOL_TCP, TCP_IS_MPTCP, optval, optlen);
    // The kernel writes it without the compiler's knowledge.
    std::hint::black_box(&raw const value);
    (returned.errno, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_tells_its_question_and_another_port_does_not() {
        for (thread, number) in [(0, 0), (7, 49_999), (7, 50_000), (199, 65_535)] {
            let v4 = address(thread, number);
            let mapped = SocketAddr::from((v4.ip().to_ipv6_mapped(), v4.port()));
            for address in [SocketAddr::V4(v4), mapped] {
                assert_eq!(number_of(address), Some((thread, number)));
                let other = SocketAddr::new(address.ip(), address.port() + 1);
                assert_eq!(number_of(other), None);
            }
        }
        for foreign in ["127.0.0.1:10000", "10.1.0.0:10000", "[::1]:10000"] {
            assert_eq!(number_of(foreign.parse().unwrap()), None, "{foreign}");
        }
    }
}
