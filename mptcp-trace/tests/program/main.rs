//! The program from the outside: its processes, input, signals and output.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test")]

mod annotate;
mod bad_input;
mod bpf_side;
mod bundle;
mod common;
mod completions;
mod containers;
mod ends;
mod fallbacks;
mod honest;
mod live;
mod pid_namespace;
mod privileges;
mod recorder;
mod report;
mod serve;
mod several;
mod top;
mod views;

/// Not a test: the application that the other tests trace.
#[test]
fn asker_in_disguise() {
    common::play();
}
