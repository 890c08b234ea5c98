//! Downloads from a server on the loopback interface.

mod downloads;
mod failures;
mod server;
mod settings;
mod support;
