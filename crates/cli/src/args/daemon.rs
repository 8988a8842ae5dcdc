//! Grammar of the daemon itself.

use std::net::SocketAddr;

use clap::{Args, Subcommand};

#[derive(Args, Debug)]
pub(crate) struct StartArguments {
    /// Machine to contact first; may be given more than once
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) bootstrap: Vec<SocketAddr>,
    /// Stay attached to the terminal until the daemon ends
    #[arg(long)]
    pub(crate) foreground: bool,
}

#[derive(Subcommand, Debug)]
pub(crate) enum WsCommand {
    Sessions,
    /// Print the address of the WebSocket that carries direct messages
    Direct,
}
