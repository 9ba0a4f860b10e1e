//! Emits the headers of the packet that decided: read only once a connection or a path has lost
//! MPTCP, so that others cost nothing.

use aya_ebpf::maps::PerCpuArray;
use mptcp_trace_common::{counter, record::Kind};

use crate::{
    emit,
    kernel::{
        Sock, has_headers, packet_in_progress, put_earlier_ttl, put_first_path, put_headers,
        put_peer_token,
    },
};

/// Finds the packet for the TCP socket `sk` that led here, and emits its headers for the record that
/// follows, about the connection `msk` at the time `now`. `origin` is the context of the program, or
/// the packet.
#[inline(always)]
pub(crate) fn emit_in_progress(
    counters: &PerCpuArray<u64>,
    origin: u64,
    sk: Sock,
    msk: Sock,
    now: u64,
    flags: u32,
) {
    let skb = packet_in_progress(origin, sk.0, flags);
    if skb != 0 {
        emit_packet(counters, skb, sk, msk, now);
    }
}

/// Emits the headers of a packet.
#[inline(always)]
pub(crate) fn emit_packet(counters: &PerCpuArray<u64>, skb: u64, sk: Sock, msk: Sock, now: u64) {
    if has_headers() && write(skb, sk.0, msk.0, now) == 0 {
        emit::count_in(counters, counter::PACKETS);
    }
}

/// Writes the record; 0 if there is no room in the ring, or the headers cannot be read.
#[inline(never)]
fn write(skb: u64, sk: u64, msk: u64, now: u64) -> u32 {
    let Some(mut entry) = emit::reserve_packet() else {
        return 0;
    };
    let record = emit::blank(&mut entry);
    record.kind = Kind::PACKET;
    record.boottime_ns = now;
    record.socket = msk;
    record.path = sk;
    if !put_headers(skb, record) {
        entry.discard(0);
        return 0;
    }
    if sk != 0 {
        put_earlier_ttl(Sock(sk), Sock(msk), skb, record);
        put_peer_token(Sock(sk), record);
        if msk != 0 {
            put_first_path(Sock(sk), Sock(msk), record);
        }
    }
    entry.submit(0);
    1
}
