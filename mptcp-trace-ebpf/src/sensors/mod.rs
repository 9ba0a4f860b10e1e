//! The sensors: one folder per sensor, one file per attach method.

mod connection_record;
mod counted;
mod fallback;
mod family;
mod owner;
mod packet;
mod query;
mod subflow;
