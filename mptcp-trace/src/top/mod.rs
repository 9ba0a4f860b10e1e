//! The interactive view: gathers findings, arranges them as the user selects, and draws them.
//! Depends on the model, sums and text of findings; the source of findings and the effect of keys
//! are decided by the caller.

pub mod app;
pub mod board;
pub mod draw;
pub mod explain;
pub mod hits;
pub mod keys;
pub mod paint;
pub mod table;
