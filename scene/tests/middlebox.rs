//! The middlebox in the kernel, and the reaction of the kernel's MPTCP to its changes.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "what fails in a test is a failed test, in its helpers too"
)]

use std::{
    fs,
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd as _, BorrowedFd},
    time::Duration,
};

use mptcp_trace_scene::{
    middlebox::{Done, Middlebox},
    net::{self, Family, Kind},
    netns,
    rules::{Rules, Treatment},
    sys,
    veth::{CLIENT_V4, CLIENT_V6, SERVER_V4, SERVER_V6},
};
use socket2::Socket;

const SOL_TCP: i32 = 6;
const TCP_IS_MPTCP: i32 = 43;

const NOTHING: Treatment = Treatment::NONE;

/// Creates a middlebox; none if the test cannot run here.
fn middlebox() -> Option<Middlebox> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root for network namespaces");
        return None;
    }
    if net::open(Kind::Mptcp, Family::V4).is_err() {
        println!("skipped: this kernel has no MPTCP");
        return None;
    }
    Some(Middlebox::new().unwrap())
}

/// Packets that TCP found corrupt: the sum of `InErrs` and `InCsumErrors`.
fn broken(namespace: BorrowedFd<'_>) -> u64 {
    let file = "/proc/thread-self/net/snmp";
    let text = netns::within(namespace, || Ok(fs::read_to_string(file)?)).unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, numbers) = (lines.next().unwrap(), lines.next().unwrap());
    names
        .split_whitespace()
        .zip(numbers.split_whitespace())
        .filter(|(name, _)| ["InErrs", "InCsumErrors"].contains(name))
        .map(|(_, number)| number.parse::<u64>().unwrap())
        .sum()
}

/// An MPTCP connection through a middlebox.
struct Connection<'a> {
    middlebox: &'a Middlebox,
    client: Socket,
    server: Socket,
}

impl<'a> Connection<'a> {
    fn open(middlebox: &'a Middlebox, family: Family) -> Self {
        let (near, far): (IpAddr, IpAddr) = match family {
            Family::V4 => (CLIENT_V4.into(), SERVER_V4.into()),
            Family::V6 => (CLIENT_V6.into(), SERVER_V6.into()),
            Family::Mapped => (
                CLIENT_V4.to_ipv6_mapped().into(),
                SERVER_V4.to_ipv6_mapped().into(),
            ),
        };
        let socket = |namespace, address| {
            netns::within(namespace, || {
                let socket = net::open(Kind::Mptcp, family)?;
                socket.bind(&SocketAddr::new(address, 0).into())?;
                Ok(socket)
            })
            .unwrap()
        };
        let listener = socket(middlebox.far(), far);
        listener.listen(1).unwrap();
        let client = socket(middlebox.near(), near);
        client.connect(&listener.local_addr().unwrap()).unwrap();
        let (server, _) = net::accept(&listener).unwrap();
        Self {
            middlebox,
            client,
            server,
        }
    }

    /// Sends this number of data packets in each direction.
    fn talk(&self, times: u32) -> &Self {
        for _ in 0..times {
            net::say(&self.client, &self.server).unwrap();
            net::say(&self.server, &self.client).unwrap();
        }
        self
    }

    /// Whether client and server are MPTCP, according to the kernel.
    fn is_mptcp(&self) -> [bool; 2] {
        [&self.client, &self.server].map(|socket| {
            let (mut value, mut length) = (-1_i32, 4_u32);
            let returned = sys::getsockopt(
                socket.as_raw_fd(),
                SOL_TCP,
                TCP_IS_MPTCP,
                (&raw mut value).addr(),
                (&raw mut length).addr(),
            );
            match returned.errno {
                0 => value == 1,
                // Before Linux had the option, an MPTCP socket answered with this error.
                libc::EOPNOTSUPP => true,
                libc::ENOPROTOOPT => false,
                errno => panic!("errno {errno}"),
            }
        })
    }

    /// Checks that client and server incremented at least these counters, and that no packet was
    /// corrupt.
    fn counted(&self, near: &[&str], far: &[&str]) {
        for (names, namespace) in [(near, self.middlebox.near()), (far, self.middlebox.far())] {
            let counters = netns::counters(namespace).unwrap();
            for name in names {
                // Older kernels lack some counters.
                assert_ne!(counters.get(*name), Some(&0), "{name} in {counters:?}");
            }
            assert_eq!(broken(namespace), 0);
            let unnamed: Vec<_> = counters
                .iter()
                .filter(|(name, count)| {
                    name.contains("Fallback") && !names.contains(&name.as_str()) && **count != 0
                })
                .collect();
            assert!(unnamed.is_empty(), "{unnamed:?}");
        }
    }
}

fn both(treatment: Treatment) -> Rules {
    Rules {
        to_server: treatment,
        to_client: treatment,
    }
}

fn to_server(treatment: Treatment) -> Rules {
    Rules {
        to_server: treatment,
        to_client: NOTHING,
    }
}

#[test]
fn what_nothing_is_ordered_for_passes_untouched() {
    for family in Family::ALL {
        let Some(middlebox) = middlebox() else { return };
        let connection = Connection::open(&middlebox, family);
        assert_eq!(connection.talk(5).is_mptcp(), [true, true]);
        connection.counted(&["MPCapableSYNACKRX"], &["MPCapableACKRX"]);
        assert_eq!(middlebox.done().unwrap(), Done::default());
    }
}

#[test]
fn a_stripped_syn_gives_tcp_from_the_start() {
    for family in Family::ALL {
        let Some(middlebox) = middlebox() else { return };
        let rules = to_server(Treatment {
            strip_syn: true,
            ..NOTHING
        });
        middlebox.set(rules).unwrap();
        let connection = Connection::open(&middlebox, family);
        assert_eq!(connection.talk(5).is_mptcp(), [false, false]);
        connection.counted(&["MPCapableFallbackSYNACK"], &[]);
        let stripped = Done {
            stripped: 1,
            ..Done::default()
        };
        assert_eq!(middlebox.done().unwrap(), stripped);
    }
}

#[test]
fn a_stripped_syn_ack_gives_tcp_from_the_third_packet_on() {
    for family in Family::ALL {
        let Some(middlebox) = middlebox() else { return };
        let rules = Rules {
            to_server: NOTHING,
            to_client: Treatment {
                strip_syn: true,
                ..NOTHING
            },
        };
        middlebox.set(rules).unwrap();
        let connection = Connection::open(&middlebox, family);
        assert_eq!(connection.talk(5).is_mptcp(), [false, false]);
        connection.counted(&["MPCapableFallbackSYNACK"], &["MPCapableFallbackACK"]);
    }
}

#[test]
fn stripped_from_the_fourth_data_packet_on_both_ends_fall_back_then() {
    for family in Family::ALL {
        let Some(middlebox) = middlebox() else { return };
        let rules = both(Treatment {
            strip_from: Some(4),
            ..NOTHING
        });
        middlebox.set(rules).unwrap();
        let connection = Connection::open(&middlebox, family);
        assert_eq!(connection.talk(3).is_mptcp(), [true, true]);
        assert_eq!(middlebox.done().unwrap(), Done::default());
        assert_eq!(connection.talk(1).is_mptcp(), [false, false]);
        connection.counted(&["DssFallback"], &["DssFallback"]);
        connection.talk(3);
    }
}

#[test]
fn rules_of_one_connection_do_not_count_packets_of_another() {
    let Some(middlebox) = middlebox() else { return };
    let rules = both(Treatment {
        strip_from: Some(4),
        ..NOTHING
    });
    middlebox.set(rules).unwrap();
    for _ in 0..3 {
        let connection = Connection::open(&middlebox, Family::V4);
        assert_eq!(connection.talk(3).is_mptcp(), [true, true]);
    }
    assert_eq!(middlebox.done().unwrap(), Done::default());
}

#[test]
fn everything_after_the_handshake_can_be_stripped_later() {
    for family in Family::ALL {
        let Some(middlebox) = middlebox() else { return };
        let connection = Connection::open(&middlebox, family);
        assert_eq!(connection.talk(2).is_mptcp(), [true, true]);
        let rules = both(Treatment {
            strip_from: Some(0),
            ..NOTHING
        });
        middlebox.set(rules).unwrap();
        assert_eq!(connection.talk(1).is_mptcp(), [false, false]);
        connection.counted(&["DssFallback"], &["DssFallback"]);
    }
}

#[test]
fn a_flipped_byte_is_seen_by_the_mptcp_checksum_alone() {
    for family in Family::ALL {
        let Some(middlebox) = middlebox() else { return };
        for namespace in [middlebox.near(), middlebox.far()] {
            assert!(netns::set_sysctl(namespace, "net.mptcp.checksum_enabled", "1").unwrap());
        }
        let rules = to_server(Treatment {
            flip_payload_at: Some(4),
            ..NOTHING
        });
        middlebox.set(rules).unwrap();
        let connection = Connection::open(&middlebox, family);
        assert_eq!(connection.talk(3).is_mptcp(), [true, true]);
        // The receiver gets other data than was sent: TCP has not noticed.
        assert!(net::say(&connection.client, &connection.server).is_err());
        let flipped = Done {
            flipped: 1,
            ..Done::default()
        };
        assert_eq!(middlebox.done().unwrap(), flipped);
        assert_eq!(connection.talk(2).is_mptcp(), [false, false]);
        connection.counted(
            &["MPFailRx", "InfiniteMapTx"],
            &["DataCsumErr", "MPFailTx", "InfiniteMapRx", "DssFallback"],
        );
    }
}

#[test]
fn a_shorter_data_level_length_is_a_fallback() {
    for family in Family::ALL {
        let Some(middlebox) = middlebox() else { return };
        let rules = to_server(Treatment {
            shorten_dss_from: Some(4),
            ..NOTHING
        });
        middlebox.set(rules).unwrap();
        let connection = Connection::open(&middlebox, family);
        assert_eq!(connection.talk(3).is_mptcp(), [true, true]);
        assert_eq!(connection.talk(2).is_mptcp(), [false, false]);
        connection.counted(&["DssFallback"], &["DSSCorruptionFallback"]);
        assert!(middlebox.done().unwrap().shortened > 0);
    }
}

#[test]
fn a_wrong_subflow_sequence_number_is_a_fallback() {
    for family in Family::ALL {
        let Some(middlebox) = middlebox() else { return };
        let rules = to_server(Treatment {
            skew_subflow_seq_from: Some(4),
            ..NOTHING
        });
        middlebox.set(rules).unwrap();
        let connection = Connection::open(&middlebox, family);
        assert_eq!(connection.talk(3).is_mptcp(), [true, true]);
        assert_eq!(connection.talk(2).is_mptcp(), [false, false]);
        connection.counted(&["DssFallback"], &["DssFallback"]);
        assert!(middlebox.done().unwrap().skewed > 0);
    }
}

#[test]
fn dropped_mptcp_syns_make_the_client_try_without() {
    for family in Family::ALL {
        let Some(middlebox) = middlebox() else { return };
        let name = "net.mptcp.syn_retrans_before_tcp_fallback";
        if !netns::set_sysctl(middlebox.near(), name, "0").unwrap() {
            println!("skipped: this kernel does not let say how soon to give up");
            return;
        }
        let rules = to_server(Treatment {
            drop_capable_syn: true,
            ..NOTHING
        });
        middlebox.set(rules).unwrap();
        let connection = Connection::open(&middlebox, family);
        assert_eq!(connection.talk(5).is_mptcp(), [false, false]);
        connection.counted(&["MPCapableSYNTXDrop"], &[]);
        let dropped = Done {
            dropped: 1,
            ..Done::default()
        };
        assert_eq!(middlebox.done().unwrap(), dropped);
    }
}

/// Tries to connect for a moment.
fn attempt(middlebox: &Middlebox, family: Family) -> std::io::Result<()> {
    const PATIENCE: Duration = Duration::from_millis(2_500);
    let listener = middlebox.listen(Kind::Mptcp, family).unwrap();
    let socket = netns::within(middlebox.near(), || Ok(net::open(Kind::Mptcp, family)?)).unwrap();
    socket.connect_timeout(&listener.local_addr().unwrap(), PATIENCE)
}

#[test]
fn a_rejected_syn_is_refused_and_a_dropped_one_is_not_answered() {
    let reject = Treatment {
        reject: true,
        ..NOTHING
    };
    let drop_syn = Treatment {
        drop_syn: true,
        ..NOTHING
    };
    let drop_all = Treatment {
        drop_all: true,
        ..NOTHING
    };
    let rows = [
        (Family::V4, reject, ErrorKind::ConnectionRefused),
        (Family::V6, reject, ErrorKind::ConnectionRefused),
        (Family::V4, drop_syn, ErrorKind::TimedOut),
        (Family::V4, drop_all, ErrorKind::TimedOut),
    ];
    for (family, treatment, wanted) in rows {
        let Some(middlebox) = middlebox() else { return };
        middlebox.set(to_server(treatment)).unwrap();
        let why = attempt(&middlebox, family).unwrap_err();
        assert_eq!(why.kind(), wanted, "{family:?} {treatment:?}");
        let Done {
            dropped, rejected, ..
        } = middlebox.done().unwrap();
        let is_reject = wanted == ErrorKind::ConnectionRefused;
        assert_eq!((rejected > 0, dropped > 0), (is_reject, !is_reject));
        assert_eq!(broken(middlebox.near()), 0);
    }
}

#[test]
fn rules_of_the_second_path_leave_the_first_one_alone() {
    if middlebox().is_none() {
        return;
    }
    let middlebox = Middlebox::with_two_paths().unwrap();
    let drop_all = Treatment {
        drop_all: true,
        ..NOTHING
    };
    middlebox.set_on(1, both(drop_all)).unwrap();
    let connection = Connection::open(&middlebox, Family::V4);
    assert_eq!(connection.talk(2).is_mptcp(), [true, true]);
    middlebox.set_on(0, to_server(drop_all)).unwrap();
    assert!(attempt(&middlebox, Family::V4).is_err());
    assert!(middlebox.set_on(2, Rules::NONE).is_err());
}
