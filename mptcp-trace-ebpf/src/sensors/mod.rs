//! The sensors: one folder a question, one file a way of asking it.

mod counted;
mod fallback;
mod family;
mod owner;
mod query;
mod tell;
