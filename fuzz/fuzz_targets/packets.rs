#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mptcp_trace_fuzz::checks::packets(bytes));
