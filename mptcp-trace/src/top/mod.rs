//! The interactive view: gathers findings, arranges them as the user selects, and draws them.
//! Depends on the model only; the source of findings and the effect of keys are decided by the
//! caller.

pub mod app;
pub mod board;
pub mod draw;
