//! Applications that query: each is a subcommand of the lab, whose judges compare the answers
//! with what the tracer saw. The product does without them.

pub mod ask;
pub mod asker;
pub mod bench;
mod cases;
pub mod flood;
pub mod load;
