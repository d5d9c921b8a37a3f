//! Redis and Valkey, through our own RESP3 connection.

mod address;
mod backoff;
mod command;
mod connection;
mod link;
mod resp;
