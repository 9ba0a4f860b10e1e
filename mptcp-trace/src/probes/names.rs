//! Names of kernel functions, tracepoints, and programs of the BPF object.

/// Functions of the kernel.
pub mod function {
    /// `mptcp_getsockopt(sk, level, optname, optval, optlen)`: answers for an MPTCP socket, any
    /// option.
    pub const MPTCP_GETSOCKOPT: &str = "mptcp_getsockopt";
    /// `mptcp_getsockopt_sol_tcp(msk, optname, optval, optlen)`: its part for TCP options, before a
    /// fallback.
    pub const MPTCP_GETSOCKOPT_SOL_TCP: &str = "mptcp_getsockopt_sol_tcp";
    /// `tcp_getsockopt(sk, level, optname, optval, optlen)`: answers for a TCP socket, any option.
    pub const TCP_GETSOCKOPT: &str = "tcp_getsockopt";
    /// `do_tcp_getsockopt(sk, level, optname, ...)`: its part for TCP options.
    pub const DO_TCP_GETSOCKOPT: &str = "do_tcp_getsockopt";
    /// `sock_getsockopt(sock, level, optname, optval, optlen)`: answers for options of `SOL_SOCKET`
    /// on older kernels.
    pub const SOCK_GETSOCKOPT: &str = "sock_getsockopt";
    /// `sk_getsockopt(sk, level, optname, sockptr_t optval, sockptr_t optlen)`: replaces it on
    /// newer kernels. Trampolines of older kernels do not support that many argument words; those
    /// kernels have the other one.
    pub const SK_GETSOCKOPT: &str = "sk_getsockopt";
    /// `mptcp_setsockopt(sk, level, optname, sockptr_t optval, optlen)`: sets options of MPTCP
    /// sockets.
    pub const MPTCP_SETSOCKOPT: &str = "mptcp_setsockopt";
    /// `__sock_create(net, family, type, protocol, res, kern)`: creates sockets.
    pub const SOCK_CREATE: &str = "__sock_create";
    /// `mptcp_destroy(sk)`: an MPTCP socket ends.
    pub const MPTCP_DESTROY: &str = "mptcp_destroy";
    /// `mptcp_stream_accept(sock, newsock, ...)`: a process accepts a connection.
    pub const MPTCP_STREAM_ACCEPT: &str = "mptcp_stream_accept";
    /// `mptcp_subflow_drop_ctx(ssk)`: a child of an MPTCP listener becomes plain TCP.
    pub const MPTCP_SUBFLOW_DROP_CTX: &str = "mptcp_subflow_drop_ctx";
    /// `subflow_check_req(request, listener, skb)`: decides whether a SYN may open or join a
    /// connection.
    pub const SUBFLOW_CHECK_REQ: &str = "subflow_check_req";
    /// `subflow_add_reset_reason(skb, reason)`: an RST gets a reason (RFC 8684 section 3.6).
    pub const SUBFLOW_ADD_RESET_REASON: &str = "subflow_add_reset_reason";
    /// `mptcp_can_accept_new_subflow(msk)`: whether a connection takes one more path.
    pub const MPTCP_CAN_ACCEPT_NEW_SUBFLOW: &str = "mptcp_can_accept_new_subflow";
    /// `mptcp_pm_get_local_id(msk, socket)`: the address id of an own address.
    pub const MPTCP_PM_GET_LOCAL_ID: &str = "mptcp_pm_get_local_id";
    /// `mptcp_subflow_init_cookie_req(request, listener, skb)`: a packet answers a SYN cookie.
    pub const MPTCP_SUBFLOW_INIT_COOKIE_REQ: &str = "mptcp_subflow_init_cookie_req";
    /// `__mptcp_finish_join(msk, ssk)`: adds a path to a connection.
    pub const MPTCP_FINISH_JOIN: &str = "__mptcp_finish_join";
    /// `subflow_v4_req_destructor(request)`: a request of an MPTCP listener is freed, IPv4.
    pub const SUBFLOW_V4_REQ_DESTRUCTOR: &str = "subflow_v4_req_destructor";
    /// IPv6.
    pub const SUBFLOW_V6_REQ_DESTRUCTOR: &str = "subflow_v6_req_destructor";
    /// `tcp_syn_ack_timeout(request)`: the timer of a TCP request runs.
    pub const TCP_SYN_ACK_TIMEOUT: &str = "tcp_syn_ack_timeout";
    /// `tcp_check_req(listener, skb, request, ...)`: a packet for a TCP request.
    pub const TCP_CHECK_REQ: &str = "tcp_check_req";
    /// `mptcp_pm_subflow_established(msk)`: a path is fully established.
    pub const MPTCP_PM_SUBFLOW_ESTABLISHED: &str = "mptcp_pm_subflow_established";
    /// `__mptcp_subflow_connect(msk, local, remote)`: opens a path.
    pub const MPTCP_SUBFLOW_CONNECT: &str = "__mptcp_subflow_connect";
    /// `mptcp_pm_subflow_chk_stale(msk, ssk)`: notices paths on which nothing is acknowledged.
    pub const MPTCP_PM_SUBFLOW_CHK_STALE: &str = "mptcp_pm_subflow_chk_stale";
    /// `mptcp_pm_chk_stale(msk)`: replaces it on newer kernels.
    pub const MPTCP_PM_CHK_STALE: &str = "mptcp_pm_chk_stale";
    /// `mptcp_subflow_set_active(context)`: a path is not stale any more.
    pub const MPTCP_SUBFLOW_SET_ACTIVE: &str = "mptcp_subflow_set_active";
    /// `mptcp_pm_add_addr_received(ssk, address)`: the peer announced an address.
    pub const MPTCP_PM_ADD_ADDR_RECEIVED: &str = "mptcp_pm_add_addr_received";
    /// `mptcp_pm_add_addr_echoed(msk, address)`: the peer confirmed an announcement.
    pub const MPTCP_PM_ADD_ADDR_ECHOED: &str = "mptcp_pm_add_addr_echoed";
    /// `mptcp_pm_announce_addr(msk, address, echo)`: this host announces an address.
    pub const MPTCP_PM_ANNOUNCE_ADDR: &str = "mptcp_pm_announce_addr";
    /// `mptcp_pm_remove_addr(msk, ids)`: this host removes addresses.
    pub const MPTCP_PM_REMOVE_ADDR: &str = "mptcp_pm_remove_addr";
    /// `mptcp_pm_rm_addr_received(msk, ids)`: the peer removed addresses.
    pub const MPTCP_PM_RM_ADDR_RECEIVED: &str = "mptcp_pm_rm_addr_received";
    /// `mptcp_pm_mp_prio_send_ack(msk, local, remote, backup)`: this host changes the priority of a
    /// path.
    pub const MPTCP_PM_MP_PRIO_SEND_ACK: &str = "mptcp_pm_mp_prio_send_ack";
    /// Its older name.
    pub const MPTCP_PM_NL_MP_PRIO_SEND_ACK: &str = "mptcp_pm_nl_mp_prio_send_ack";
    /// `mptcp_pm_mp_prio_received(ssk, backup)`: the peer changes the priority of a path.
    pub const MPTCP_PM_MP_PRIO_RECEIVED: &str = "mptcp_pm_mp_prio_received";
    /// `mptcp_subflow_shutdown(msk, ssk, how)`: shuts down a path.
    pub const MPTCP_SUBFLOW_SHUTDOWN: &str = "mptcp_subflow_shutdown";
    /// `mptcp_subflow_reset(ssk)`: this host resets a path.
    pub const MPTCP_SUBFLOW_RESET: &str = "mptcp_subflow_reset";
    /// `tcp_reset(sk, skb)`: an RST arrived.
    pub const TCP_RESET: &str = "tcp_reset";
    /// `tcp_done_with_error(sk, err)`: a TCP connection ends with an error.
    pub const TCP_DONE_WITH_ERROR: &str = "tcp_done_with_error";
    /// `tcp_abort(sk, err)`: a TCP connection is killed (`ss -K`).
    pub const TCP_ABORT: &str = "tcp_abort";
    /// `mptcp_sendmsg(sk, msg, len)`: a process sends.
    pub const MPTCP_SENDMSG: &str = "mptcp_sendmsg";
    /// `mptcp_recvmsg(sk, msg, ...)`: a process receives.
    pub const MPTCP_RECVMSG: &str = "mptcp_recvmsg";
    /// `mptcp_init_sock(sk)`: an MPTCP socket is created.
    pub const MPTCP_INIT_SOCK: &str = "mptcp_init_sock";
    /// `mptcp_pm_mp_fail_received(sk, fail_seq)`: the peer reports a checksum failure (RFC 8684
    /// section 3.7).
    pub const MPTCP_PM_MP_FAIL_RECEIVED: &str = "mptcp_pm_mp_fail_received";
    /// `mptcp_active_disable(sk)`: disables MPTCP for a while in a network namespace.
    pub const MPTCP_ACTIVE_DISABLE: &str = "mptcp_active_disable";
    /// `__mptcp_try_fallback(msk, fb_mib)`: decides fallbacks. On newer kernels it takes the cause.
    pub const MPTCP_TRY_FALLBACK: &str = "__mptcp_try_fallback";
    /// Its parameter for the cause.
    pub const CAUSE_PARAMETER: &str = "fb_mib";
    /// `mptcp_connect(sock, ...)`: a client falls back before its SYN.
    pub const MPTCP_CONNECT: &str = "mptcp_connect";
    /// `mptcp_syn_options(sk, skb, ...)`: detects a simultaneous open.
    pub const MPTCP_SYN_OPTIONS: &str = "mptcp_syn_options";
    /// `subflow_state_change(sk)`: detects a simultaneous open, later.
    pub const SUBFLOW_STATE_CHANGE: &str = "subflow_state_change";
    /// `mptcp_active_detect_blackhole(ssk, expired)`: SYNs with `MP_CAPABLE` were lost.
    pub const MPTCP_ACTIVE_DETECT_BLACKHOLE: &str = "mptcp_active_detect_blackhole";
    /// `mptcp_dss_corruption(msk, ssk)`: some compilers inline a copy of the decision into it.
    pub const MPTCP_DSS_CORRUPTION: &str = "mptcp_dss_corruption";
    /// Present if trampolines can be attached to functions that ftrace patches
    /// (`CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS`). Not probed: tests use it to check their
    /// assumptions.
    pub const REGISTER_FTRACE_DIRECT: &str = "register_ftrace_direct";
    /// Functions that answer no query: a test of the self-test attaches misplaced probes to them.
    pub const DECOYS: [&str; 4] = [
        "tcp_setsockopt",
        "do_tcp_setsockopt",
        "sock_setsockopt",
        "sk_setsockopt",
    ];
}

/// Tracepoints of the kernel.
pub mod tracepoint {
    /// A system call returns.
    pub const SYS_EXIT: &str = "sys_exit";
    /// A system call begins: a test of the self-test attaches the probes of [`SYS_EXIT`] here.
    pub const SYS_ENTER: &str = "sys_enter";
    /// The BTF types of the arguments of these two.
    pub const TYPES: [&str; 2] = ["btf_trace_sys_exit", "btf_trace_sys_enter"];
    /// An `io_uring` request completed.
    pub const IO_URING_COMPLETE: &str = "io_uring_complete";
    /// A TCP or MPTCP socket changes its state.
    pub const INET_SOCK_SET_STATE: &str = "inet_sock_set_state";
    /// A TCP socket received an RST.
    pub const TCP_RECEIVE_RESET: &str = "tcp_receive_reset";
    /// An RST is sent.
    pub const TCP_SEND_RESET: &str = "tcp_send_reset";
    /// A TCP socket ends.
    pub const TCP_DESTROY_SOCK: &str = "tcp_destroy_sock";
    /// A subflow checks received data.
    pub const SUBFLOW_CHECK_DATA_AVAIL: &str = "subflow_check_data_avail";
    /// The scheduler picks a subflow to send on.
    pub const MPTCP_SUBFLOW_GET_SEND: &str = "mptcp_subflow_get_send";
    /// A process has sent data.
    pub const SOCK_SEND_LENGTH: &str = "sock_send_length";
    /// A process has received data.
    pub const SOCK_RECV_LENGTH: &str = "sock_recv_length";
    /// A process forks.
    pub const SCHED_PROCESS_FORK: &str = "sched_process_fork";
    /// A process was freed.
    pub const SCHED_PROCESS_FREE: &str = "sched_process_free";
}

/// Programs that are not attached, or belong to no sensor.
pub mod alone {
    use crate::model::SensorId;

    /// Iterates over the files of all tasks ([`FILES`]), and lists MPTCP sockets.
    pub const LISTER: &str = "listed_task_file";
    /// Iterates over the same, and reads the paths of one connection.
    pub const READER: &str = "read_task_file";
    /// The target of these iterators (`bpf_iter`).
    pub const FILES: &str = "task_file";
    /// The BTF type of that target.
    pub const FILES_TYPE: &str = "bpf_iter_task_file";
    /// Reads the kernel's counters of a recorded network namespace.
    pub const COUNTED_NOW: &str = "counted_now";
    /// Reads the kernel's counters of the next namespace in the list of all.
    pub const COUNTED_NEXT: &str = "counted_next";
    /// Finds MPTCP's data of a namespace.
    pub const COUNTED_PERNET: &str = "counted_pernet";
    /// Returns the nesting level of the tracer's PID namespace.
    pub const PIDNS_LEVEL: &str = "pidns_level";
    /// Adds the children of wanted processes (`--follow`).
    pub const FAMILY_FORK: &str = "family_fork";
    /// Removes them when they end.
    pub const FAMILY_FREE: &str = "family_free";
    /// All of these programs, each with the sensor that is incomplete if the kernel skips a run of
    /// it: the family decides which queries are traced.
    pub const ALL: [(&str, SensorId); 8] = [
        (LISTER, SensorId::Fallback),
        (READER, SensorId::Subflow),
        (COUNTED_NOW, SensorId::Fallback),
        (COUNTED_NEXT, SensorId::Fallback),
        (COUNTED_PERNET, SensorId::Fallback),
        (PIDNS_LEVEL, SensorId::Query),
        (FAMILY_FORK, SensorId::Query),
        (FAMILY_FREE, SensorId::Query),
    ];
}
