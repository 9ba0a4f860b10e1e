//! The data path, through the MPTCP tracepoints that every kernel has.
//!
//! `subflow_check_data_avail` fires with the status of a mapping right before the kernel decides on
//! a fallback, in the same context and under the same lock. Where the decision itself cannot be
//! probed, the program predicts it from the same state that the kernel checks next.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use mptcp_trace_common::{
    layout::NO_NUMBER,
    record::{EvidenceBits, NO_MIB, Site, SubflowBits},
};

use super::{add_evidence, fell_back, look, report, report_refused};
use crate::{
    kernel::{
        Sock, has_infinite_mapping, msk_of_context, now_ns, sends_infinite_map, sock_of_skb,
        subflow_bits,
    },
    maps::{DATA_OF, DECISION_PROBED, numbers},
    sensors::owner::this_run,
    turns::in_turns,
};

/// True if this kernel has the value `number`, and `status` equals it.
#[inline(always)]
fn is(status: u8, number: u8) -> bool {
    number != NO_NUMBER && status == number
}

in_turns! {
    fallback: #[raw_tracepoint]
    fallback_tp_data(RawTracePointContext), fallback_tp_data_2, fallback_tp_data_3
}
/// `subflow_check_data_avail(u8 status, struct sk_buff *skb)`.
#[inline(never)]
fn fallback_tp_data(ctx: RawTracePointContext) -> i32 {
    let status = ctx.arg::<u64>(0) as u8;
    let numbers = numbers();
    let evidence = if is(status, numbers.mapping_invalid) {
        EvidenceBits::INVALID_MAPPING
    } else if is(status, numbers.mapping_nodss) {
        EvidenceBits::NO_DSS
    } else if is(status, numbers.mapping_bad_csum) {
        EvidenceBits::BAD_CHECKSUM
    } else if is(status, numbers.mapping_dummy) && DECISION_PROBED.load() == 0 {
        EvidenceBits::empty()
    } else {
        return 0;
    };
    let Some(subflow) = sock_of_skb(ctx.arg(1)) else {
        return 0;
    };
    let Some(context) = subflow.subflow_context() else {
        return 0;
    };
    let Some(msk) = msk_of_context(context) else {
        return 0;
    };
    if evidence.is_empty() {
        // It fell back, on this packet or an earlier one.
        look(msk, Site::LATER, || ctx.arg(1));
    } else {
        bad_data(ctx.arg(1), msk, subflow, context, evidence);
    }
    0
}

#[inline(always)]
fn bad_data(skb: u64, msk: Sock, subflow: Sock, context: u64, mut evidence: EvidenceBits) {
    if evidence == EvidenceBits::INVALID_MAPPING
        && has_infinite_mapping(skb, numbers().skb_ext_mptcp)
    {
        evidence |= EvidenceBits::INFINITE_RECEIVED;
    }
    let fallen = fell_back(msk);
    if fallen == Some(true) {
        return;
    }
    // After a valid checksum, a bad one first causes an MP_FAIL; the fallback follows later.
    if evidence.contains(EvidenceBits::BAD_CHECKSUM)
        && subflow_bits(context)
            .intersects(SubflowBits::MP_JOIN.union(SubflowBits::VALID_CSUM_SEEN))
    {
        note_evidence(
            msk.0,
            u32::from((evidence | EvidenceBits::MP_FAIL_SENT).bits()),
        );
        return;
    }
    note_evidence(msk.0, u32::from(evidence.bits()));
    if DECISION_PROBED.load() != 0 {
        let _full = DATA_OF.insert(this_run(), subflow.0, 0);
    }
    if DECISION_PROBED.load() != 0 || fallen.is_none() {
        return;
    }
    if msk.msk_may_fall_back() {
        report(
            msk.0,
            u32::from(Site::DATA_AVAILABLE.0),
            NO_MIB,
            now_ns(),
            skb,
        );
    } else {
        report_refused(msk, Site::DATA_AVAILABLE, NO_MIB, subflow.0);
    }
}

/// Not inlined: the verifier forgets the evidence after the call, and walks the code that follows
/// once instead of once per kind of evidence.
#[inline(never)]
fn note_evidence(msk: u64, evidence: u32) -> u32 {
    add_evidence(Sock(msk), EvidenceBits::from_bits_retain(evidence as u16));
    0
}

in_turns! {
    fallback: #[raw_tracepoint]
    fallback_tp_send(RawTracePointContext), fallback_tp_send_2, fallback_tp_send_3
}
/// `mptcp_subflow_get_send(struct mptcp_subflow_context *context)`: the subflow chosen for the next
/// transmission.
#[inline(never)]
fn fallback_tp_send(ctx: RawTracePointContext) -> i32 {
    let context: u64 = ctx.arg(0);
    if sends_infinite_map(context)
        && let Some(msk) = msk_of_context(context)
    {
        add_evidence(msk, EvidenceBits::INFINITE_SENT);
    }
    0
}
