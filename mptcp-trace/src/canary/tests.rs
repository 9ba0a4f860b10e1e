//! What a self-test concludes from its own connections.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::model::{Finding, fixture::Row};

#[test]
fn a_failure_passes_where_the_host_is_short_of_something() {
    let error = |number: i32| {
        anyhow::Error::from(io::Error::from_raw_os_error(number))
            .context("cannot open an MPTCP socket")
    };
    for passing in [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS] {
        assert!(is_passing(&error(passing)), "{passing}");
    }
    for lasting in [libc::EPERM, libc::EINVAL, libc::EPROTONOSUPPORT] {
        assert!(!is_passing(&error(lasting)), "{lasting}");
    }
    let of_rustix = anyhow::Error::from(rustix::io::Errno::MFILE);
    assert!(is_passing(&of_rustix));
    assert!(!is_passing(&anyhow::anyhow!("Too many open files")));
}

#[test]
fn a_fallback_is_held_to_the_cause_that_the_kernel_counted() {
    let complains = |grown: &[&str], cause: Option<&'static str>, known: CauseCertainty| {
        let Finding::Connection(event) = (Row {
            cause,
            ..Row::default()
        })
        .connection() else {
            unreachable!()
        };
        let mut seen = event.connection;
        seen.known = known;
        let fallen = Fallen {
            local: seen.socket.local,
            remote: seen.socket.remote,
            grown: grown.iter().map(|&it| it.to_owned()).collect(),
        };
        fallen.complaint(&[&seen]).is_some()
    };
    const TOKEN: &str = "MPFallbackTokenInit";
    for known in [CauseCertainty::Reported, CauseCertainty::Inferred] {
        assert!(!complains(&[CAUSE], Some(CAUSE), known));
        assert!(complains(&[CAUSE], Some(TOKEN), known));
        assert!(!complains(&[], Some(CAUSE), known));
        assert!(complains(&[], Some(TOKEN), known));
        assert!(!complains(&[TOKEN], Some(TOKEN), known));
    }
    // If the kernel does not report the cause, a different one is no proof of a defect.
    assert!(!complains(&[TOKEN], Some(CAUSE), CauseCertainty::Inferred));
    assert!(!complains(&[TOKEN], None, CauseCertainty::Unknown));
    assert!(complains(&[TOKEN], Some(CAUSE), CauseCertainty::Reported));
}

#[test]
fn every_socket_is_marked_before_it_is_used() {
    let marked = AtomicUsize::new(0);
    let mark = |_socket: BorrowedFd<'_>| {
        marked.fetch_add(1, Ordering::Relaxed);
    };
    let Ok((queries, _inside)) = ask(&mark) else {
        return;
    };
    // Listeners and additional connections as well as queried sockets; accepted sockets inherit the
    // mark.
    let accepted = queries
        .asked
        .iter()
        .filter(|it| it.what.contains("accepted"));
    let asked = queries.asked.len() - accepted.count();
    assert!(marked.load(Ordering::Relaxed) >= asked, "{queries:?}");
}

#[test]
fn a_bit_of_what_the_kernel_plans_to_do_is_not_taken_for_the_fallback() {
    let bits_of = |stayed: u64, fell_back: u64| {
        let mut queries = SelfTestQueries::default();
        let mut seen = Vec::new();
        for (inode, state_bits) in [(1, stayed), (2, fell_back)] {
            queries.asked.push(SelfTestQuery {
                what: "a socket",
                protocol: Protocol::Mptcp,
                fell_back: inode == 2,
                answer: Ok(1),
                inode,
                local: None,
            });
            let Finding::Query(event) = Row::default().query() else {
                unreachable!()
            };
            let mut query = event.query;
            query.socket.inode = Some(inode);
            query.state_bits = Some(state_bits);
            seen.push(query);
        }
        queries.fallback_bits(&seen)
    };
    assert_eq!(only_bit(bits_of(0, 0b100)), Some(2));
    assert_eq!(only_bit(bits_of(0b1010, 0b1110)), Some(2));
    // MPTCP_WORK_CLOSE_SUBFLOW is set too: which of the two bits it is remains ambiguous.
    assert_eq!(bits_of(0, 0b1100), 0b1100);
    assert_eq!(only_bit(0b1100), None);
    assert_eq!(only_bit(bits_of(0, 0)), None);
}

#[test]
fn the_setting_is_written_as_it_is_looked_for() {
    let text = format!("{BLACKHOLE_TIMEOUT}\n");
    let (_, written) = settings::SETTINGS[1];
    assert_eq!(text.as_bytes(), written);
    // The kernel parses it as a signed number.
    assert!(i32::try_from(BLACKHOLE_TIMEOUT).is_ok());
}
