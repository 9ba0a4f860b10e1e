//! The sensors: one folder a question, one file a way of asking it.

mod family;
mod query;
