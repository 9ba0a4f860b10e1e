//! Why a path failed: names and explanations. `path_end` has the ends of those that came up.
//!
//! A cause has the name of the kernel's counter where any kernel has one; the others are named in
//! the same style.

use super::{Cause, CauseGroup, Culprit, PATH_ENDS};

/// What all entries have in common: no fallback, and no counter that counts fallbacks.
pub(super) const BASE: Cause = Cause {
    name: "",
    enumerator: "",
    stage: None,
    is_fallback: false,
    group: CauseGroup::End,
    when: "",
    meaning: "",
    function: "",
    rfc_section: "",
    culprits: &[],
    next: &[],
};

const CONNECT: Cause = Cause {
    group: CauseGroup::Connect,
    when: "client, before the SYN/ACK",
    rfc_section: "3.1",
    ..BASE
};

const JOIN: Cause = Cause {
    group: CauseGroup::Join,
    rfc_section: "3.2",
    ..BASE
};

const REFUSAL: Cause = Cause {
    group: CauseGroup::Refusal,
    rfc_section: "3.2",
    ..BASE
};

const IN_PROCESS: &str = "this end, before its SYN is sent";
const AFTER_SYN: &str = "the end that joins, before the SYN/ACK";
const AT_SYN_ACK: &str = "the end that joins, when the SYN/ACK arrives";
const AFTER_THIRD: &str = "the end that joins, after its third ACK";
const AT_SYN: &str = "the end that is joined, when the SYN arrives";
const AT_THIRD: &str = "the end that is joined, when the third ACK arrives";

const SYNS: &str = "on both ends: tcpdump -ni any -v '(tcp[tcpflags] & (tcp-syn|tcp-rst) != 0) or (ip6[6] == 6 and ip6[53] & 6 != 0)' (does `mptcp join` arrive as it was sent?)";
const CAPABLE: &str = "on both ends: tcpdump -ni any -v '(tcp[tcpflags] & (tcp-syn|tcp-rst) != 0) or (ip6[6] == 6 and ip6[53] & 6 != 0)' (does `mptcp capable` arrive as it was sent?)";
pub(super) const PACKETS: &str =
    "on both ends: tcpdump -ni any -v tcp port PORT (is `mptcp` in every packet?)";
const PEER_SAYS: &str =
    "on the peer: mptcp-trace --kind path (its line names the cause), ip mptcp limits show";
const LIMITS: &str = "ip mptcp limits show (subflows: how many paths besides the first one)";
pub(super) const ENDPOINTS: &str = "ip mptcp endpoint show (which addresses may paths come from?)";
const JOINS: &str = "nstat -asz 'MPTcpExtMPJoin*' (how often?)";
pub(super) const ROUTES: &str =
    "ip route get REMOTE from LOCAL (is there a route from this address?)";
const SOCKETS: &str = "ss -tiM (which paths are up, and what do they carry?)";
const PLAIN_TCP: &str =
    "try it without MPTCP: GODEBUG=multipathtcp=0, curl without --mptcp, no mptcpize";

/// First paths that failed: there is no connection.
pub const CONNECT_CAUSES: &[Cause] = &[
    Cause {
        name: "MPCapableSynTimeout",
        meaning: "No SYN was answered, with MPTCP or without: the server is down or unreachable, \
                  or a firewall drops the SYNs.",
        function: "tcp_write_timeout",
        culprits: &[Culprit::Path, Culprit::Peer],
        next: &[ROUTES, CAPABLE, PLAIN_TCP],
        ..CONNECT
    },
    Cause {
        name: "MPCapableSynRejected",
        meaning: "The peer's MPTCP answered the SYN with an RST that gives a reason.",
        function: "tcp_reset",
        rfc_section: "3.1, 3.6",
        culprits: &[Culprit::Peer],
        next: &[PEER_SAYS, CAPABLE],
        ..CONNECT
    },
    Cause {
        name: "MPCapableSynRefused",
        meaning: "An RST without an MPTCP reason answered the SYN: nothing listens on the port, or \
                  a firewall refuses it. If TCP without MPTCP gets through, the firewall refuses \
                  the option.",
        function: "tcp_reset",
        culprits: &[Culprit::Peer, Culprit::Path],
        next: &[
            "on the server: ss -tlnM (does the port listen?)",
            PLAIN_TCP,
            CAPABLE,
        ],
        ..CONNECT
    },
    Cause {
        name: "MPCapableSynUnreachable",
        meaning: "The kernel could not send the SYN, or an ICMP message answered it: no route, or \
                  a router or firewall that refuses it.",
        function: "tcp_v4_err, tcp_v6_err",
        culprits: &[Culprit::Path, Culprit::Host],
        next: &[ROUTES, "tcpdump -ni any -v icmp or icmp6 (who says so?)"],
        ..CONNECT
    },
    Cause {
        name: "MPCapableClosedMeanwhile",
        meaning: "The application closed the socket before the SYN was answered, for example after \
                  a timeout of its own.",
        function: "mptcp_close",
        culprits: &[Culprit::Application, Culprit::Path],
        next: &["strace -f -e trace=network,close PROGRAM (how long does it wait?)"],
        ..CONNECT
    },
];

/// Joins that this end began and that failed.
pub const JOIN_CAUSES: &[Cause] = &[
    Cause {
        name: "MPJoinSynTxCreatSkErr",
        when: IN_PROCESS,
        meaning: "The kernel could not create the socket of the path: memory is short, a security \
                  module forbids it, or a server has not accepted the connection yet.",
        function: "mptcp_subflow_create_socket",
        culprits: &[Culprit::Host],
        next: &["dmesg", JOINS],
        ..JOIN
    },
    Cause {
        name: "MPJoinSynTxBindErr",
        when: IN_PROCESS,
        meaning: "The kernel could not bind the path to its local address: the address of the \
                  endpoint is not on this host any more, or is in use with this port.",
        function: "__mptcp_subflow_connect (kernel_bind)",
        culprits: &[Culprit::Host],
        next: &[ENDPOINTS, "ip address show"],
        ..JOIN
    },
    Cause {
        name: "MPJoinSynTxConnectErr",
        when: IN_PROCESS,
        meaning: "The kernel could not connect the path, mostly because there is no route from its \
                  local address to the peer.",
        function: "__mptcp_subflow_connect (kernel_connect)",
        culprits: &[Culprit::Host],
        next: &[ROUTES, "ip rule show", ENDPOINTS],
        ..JOIN
    },
    Cause {
        name: "MPJoinSynTimeout",
        when: AFTER_SYN,
        meaning: "No SYN of the join was answered: the addresses cannot reach each other, a \
                  firewall drops the SYNs, or the peer has SYN cookies and no room for a path.",
        function: "tcp_write_timeout",
        culprits: &[Culprit::Path, Culprit::Peer],
        next: &[ROUTES, SYNS, PEER_SAYS],
        ..JOIN
    },
    Cause {
        name: "MPJoinSynRejected",
        when: AFTER_SYN,
        meaning: "The peer's MPTCP answered the SYN with an RST that gives a reason: it does not \
                  know the connection (mptcp-error), or does not expect the join on this port \
                  (prohibited).",
        function: "tcp_reset",
        rfc_section: "3.2, 3.6",
        culprits: &[Culprit::Peer, Culprit::Path],
        next: &[
            "is a load balancer in the path, which sends the join to another server?",
            PEER_SAYS,
            SYNS,
        ],
        ..JOIN
    },
    Cause {
        name: "MPJoinSynRefused",
        when: AFTER_SYN,
        meaning: "An RST without an MPTCP reason answered the SYN: the server does not listen on \
                  this address (it is bound to another one), or a firewall refuses the join.",
        function: "tcp_reset",
        culprits: &[Culprit::Peer, Culprit::Path],
        next: &[
            "on the server: ss -tlnM (is the listener bound to one address?)",
            SYNS,
        ],
        ..JOIN
    },
    Cause {
        name: "MPJoinSynUnreachable",
        when: AFTER_SYN,
        meaning: "An ICMP message answered the SYN of the join: a router has no route, or a \
                  firewall refuses it.",
        function: "tcp_v4_err, tcp_v6_err",
        culprits: &[Culprit::Path],
        next: &[ROUTES, "tcpdump -ni any -v icmp or icmp6 (who says so?)"],
        ..JOIN
    },
    Cause {
        name: "MPJoinClosedMeanwhile",
        when: AFTER_SYN,
        meaning: "The connection ended while the SYN of the join was under way. This is normal for \
                  connections that are shorter than a second; if the SYN was retransmitted, nobody \
                  answered it: a firewall drops it, or the addresses cannot reach each other.",
        function: "mptcp_subflow_shutdown",
        culprits: &[Culprit::Application, Culprit::Path, Culprit::Peer],
        next: &[
            "was the SYN retransmitted? if not: is a second path of use to connections that are this \
             short?",
            ROUTES,
            SYNS,
            PEER_SAYS,
        ],
        ..JOIN
    },
    Cause {
        name: "MPJoinSynAckNoMPJoin",
        when: AT_SYN_ACK,
        meaning: "The SYN/ACK came without MP_JOIN: a middlebox strips the option on this path, or \
                  a TCP listener answers on this address.",
        function: "subflow_finish_connect",
        culprits: &[Culprit::Path, Culprit::Peer],
        next: &[
            SYNS,
            "on the server: ss -tlnM (does a TCP socket listen there?)",
        ],
        ..JOIN
    },
    Cause {
        name: "MPJoinSynAckHMacFailure",
        when: AT_SYN_ACK,
        meaning: "The code in the SYN/ACK that proves who sent it is wrong: a middlebox rewrites \
                  the option, or another host answers. Linux up to 6.19, unless the fix was \
                  backported, counts this as MPJoinAckHMacFailure.",
        function: "subflow_finish_connect",
        rfc_section: "3.2, 5",
        culprits: &[Culprit::Path, Culprit::Peer],
        next: &[SYNS, JOINS],
        ..JOIN
    },
    Cause {
        name: "MPJoinNotEstablished",
        when: "either end, at the end of the handshake",
        meaning: "The connection was closing when the handshake of the path completed. This is \
                  normal for short connections.",
        function: "mptcp_finish_join",
        culprits: &[Culprit::Application],
        next: &[JOINS],
        ..JOIN
    },
    Cause {
        name: "MPJoinFallbackUnderWay",
        when: AT_SYN_ACK,
        meaning: "The connection falls back to TCP, or has to (MP_FAIL): it takes no more paths.",
        function: "mptcp_finish_join",
        rfc_section: "3.2, 3.7",
        culprits: &[Culprit::Path],
        next: &["look for the line `fallback` of the same connection (--columns id)"],
        ..JOIN
    },
    Cause {
        name: "MPJoinAckRejected",
        when: AFTER_THIRD,
        meaning: "The peer answered the third ACK with an RST: it has no room for another path \
                  (prohibited: its limit is reached or 0, or no program manages its paths), or the \
                  ACK arrived without MP_JOIN or with a wrong one (mptcp-error).",
        function: "check_fully_established (mptcp_subflow_reset)",
        rfc_section: "3.2, 3.6",
        culprits: &[Culprit::Peer, Culprit::Path],
        next: &[
            "on the peer: ip mptcp limits show, nstat -asz 'MPTcpExtMPJoin*'",
            PEER_SAYS,
            PACKETS,
        ],
        ..JOIN
    },
    Cause {
        name: "MPJoinFourthAckNoDss",
        when: AFTER_THIRD,
        meaning: "The packet that answers the third ACK came without the MPTCP option: a middlebox \
                  passes it on SYNs only.",
        function: "check_fully_established",
        culprits: &[Culprit::Path],
        next: &[PACKETS],
        ..JOIN
    },
    Cause {
        name: "MPJoinFourthAckMissing",
        when: AFTER_THIRD,
        meaning: "Nothing answered the third ACK until the path ended, so it never carried data: \
                  packets are lost, or the connection was too short.",
        function: "check_fully_established (never reached)",
        culprits: &[Culprit::Path, Culprit::Application],
        next: &[PACKETS, SOCKETS],
        ..JOIN
    },
];

/// Joins of the peer that this end refused, or that stopped half-way.
pub const JOIN_REFUSALS: &[Cause] = &[
    Cause {
        name: "MPJoinNoTokenFound",
        when: AT_SYN,
        meaning: "No connection of this host has the token of the join: the connection has ended, \
                  or a load balancer sent the join to the wrong server.",
        function: "subflow_check_req (subflow_token_join_request)",
        culprits: &[Culprit::Path, Culprit::Peer],
        next: &[
            "is a load balancer in the path, which spreads by address or port?",
            JOINS,
        ],
        ..REFUSAL
    },
    Cause {
        name: "MPJoinNoIdFound",
        when: AT_SYN,
        meaning: "This end has no address id left for the local address of the path: the table of \
                  endpoints is full, or memory is short.",
        function: "subflow_check_req (mptcp_pm_get_local_id)",
        culprits: &[Culprit::Host],
        next: &[ENDPOINTS, JOINS],
        ..REFUSAL
    },
    Cause {
        name: "MD5SigReset",
        when: AT_SYN,
        meaning: "The listener signs its segments (TCP_MD5SIG), which leaves no room for MPTCP \
                  options.",
        function: "subflow_check_req",
        culprits: &[Culprit::Application],
        next: &["use a plain TCP socket where segments must be signed"],
        ..REFUSAL
    },
    Cause {
        name: "MismatchPortSynRx",
        when: AT_SYN,
        meaning: "The join came to another port than that of the connection, and no endpoint \
                  announces this port.",
        function: "subflow_check_req (subflow_token_join_request)",
        culprits: &[Culprit::Peer, Culprit::Host],
        next: &[ENDPOINTS, "nstat -asz 'MPTcpExtMismatchPort*'"],
        ..REFUSAL
    },
    Cause {
        name: "MismatchPortAckRx",
        when: AT_THIRD,
        meaning: "The third ACK came to another port than that of the connection, and no endpoint \
                  announces this port.",
        function: "subflow_syn_recv_sock",
        culprits: &[Culprit::Peer, Culprit::Host],
        next: &[ENDPOINTS, "nstat -asz 'MPTcpExtMismatchPort*'"],
        ..REFUSAL
    },
    Cause {
        name: "MPJoinRejected",
        when: "the end that is joined, when the SYN or the third ACK arrives",
        meaning: "The path manager accepts no more paths: the limit is reached or 0, a program \
                  that does not run should manage the paths (net.mptcp.pm_type, \
                  net.mptcp.path_manager), or the connection is not complete yet.",
        function: "subflow_syn_recv_sock",
        culprits: &[Culprit::Host],
        next: &[
            "ip mptcp limits show, then: ip mptcp limits set subflows N",
            "sysctl net.mptcp.pm_type (1: a program manages the paths)",
            JOINS,
        ],
        ..REFUSAL
    },
    Cause {
        name: "MPJoinLateRejected",
        when: "the end that is joined, after the third ACK",
        meaning: "The connection was locked when the third ACK arrived; when it was released, it \
                  took no more paths: the limit was reached, it was closing, or it fell back.",
        function: "__mptcp_flush_join_list (__mptcp_finish_join)",
        culprits: &[Culprit::Host, Culprit::Application],
        next: &[LIMITS, JOINS],
        ..REFUSAL
    },
    Cause {
        name: "MPJoinSynNoMPJoin",
        when: "the end that is joined, after its SYN/ACK",
        meaning: "The SYN of a join arrived without MP_JOIN, so this end answered with plain TCP, \
                  and the peer reset that: a middlebox strips the option. Only the reason in the \
                  peer's RST shows that it was a join, so its connection is unknown.",
        function: "tcp_check_req",
        rfc_section: "3.2, 3.6",
        culprits: &[Culprit::Path],
        next: &[SYNS, PEER_SAYS],
        ..REFUSAL
    },
    Cause {
        name: "MPJoinAckNoMPJoin",
        when: AT_THIRD,
        meaning: "The third ACK came without MP_JOIN: a middlebox strips the option from packets \
                  other than SYNs.",
        function: "subflow_syn_recv_sock",
        culprits: &[Culprit::Path],
        next: &[PACKETS, JOINS],
        ..REFUSAL
    },
    Cause {
        name: "MPJoinAckHMacFailure",
        when: AT_THIRD,
        meaning: "The code in the third ACK that proves who sent it is wrong: a middlebox rewrites \
                  the option, or somebody else tries to join.",
        function: "subflow_syn_recv_sock",
        rfc_section: "3.2, 5",
        culprits: &[Culprit::Path, Culprit::Peer],
        next: &[PACKETS, JOINS],
        ..REFUSAL
    },
    Cause {
        name: "MPJoinAckNoCtx",
        when: AT_THIRD,
        meaning: "The kernel had no memory for the path.",
        function: "subflow_syn_recv_sock (subflow_ulp_clone)",
        culprits: &[Culprit::Host],
        next: &["dmesg", "free -m"],
        ..REFUSAL
    },
    Cause {
        name: "MPJoinThirdAckMissing",
        when: "the end that is joined, after its SYN/ACK",
        meaning: "The SYN/ACK was sent, and no third ACK came: packets are lost in one direction, \
                  or the other end gave up.",
        function: "reqsk_timer_handler",
        culprits: &[Culprit::Path, Culprit::Peer],
        next: &[SYNS, "nstat -asz TcpExtTCPSynRetrans"],
        ..REFUSAL
    },
    Cause {
        name: "MPJoinNoListener",
        when: AT_SYN,
        meaning: "A join arrived at an address and port on which nothing listens: the server is \
                  bound to another address, or has closed its listener. Linux before 6.12 does not \
                  show it.",
        function: "tcp_v4_rcv, tcp_v6_rcv",
        culprits: &[Culprit::Application, Culprit::Host],
        next: &[
            "ss -tlnM (to which address is the listener bound?)",
            ENDPOINTS,
        ],
        ..REFUSAL
    },
    Cause {
        name: "MPJoinCookieLost",
        when: AT_THIRD,
        meaning: "The SYN was answered with a SYN cookie, and what the kernel remembered of the \
                  join was gone when the third ACK came: too many joins at once.",
        function: "mptcp_subflow_init_cookie_req",
        culprits: &[Culprit::Host],
        next: &["sysctl net.ipv4.tcp_syncookies, net.ipv4.tcp_max_syn_backlog, net.core.somaxconn"],
        ..REFUSAL
    },
];

/// All causes of paths, in the order of a path's life.
pub fn path_causes() -> impl Iterator<Item = &'static Cause> {
    CONNECT_CAUSES
        .iter()
        .chain(JOIN_CAUSES)
        .chain(JOIN_REFUSALS)
        .chain(PATH_ENDS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::all_causes;

    #[test]
    fn every_cause_of_a_path_says_everything_and_its_name_is_its_own() {
        for cause in path_causes() {
            let name = cause.name;
            for text in [
                name,
                cause.when,
                cause.meaning,
                cause.function,
                cause.rfc_section,
            ] {
                assert!(!text.is_empty(), "{name}");
            }
            assert!(
                cause.meaning.ends_with('.')
                    && !cause.culprits.is_empty()
                    && !cause.next.is_empty()
                    && !cause.is_fallback,
                "{name}"
            );
            let same = all_causes().filter(|it| it.name == name);
            assert_eq!(same.count(), 1, "{name}");
        }
    }
}
