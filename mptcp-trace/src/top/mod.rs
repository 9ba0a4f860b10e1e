//! What is so now, on a terminal: findings gathered, arranged as the reader wants them, drawn. Knows the model, and no
//! stage: where findings come from, and what a key press does to the tracer, is decided elsewhere.

pub mod app;
pub mod board;
pub mod draw;
