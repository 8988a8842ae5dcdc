//! Command line of `x0xd`.

use std::{net::SocketAddr, path::PathBuf};

use clap::Parser;

use crate::config::Overrides;

/// Environment variables that have no flag.
const ENVIRONMENT: &str = "\
Environment:
  RUST_LOG     log filter, wins over `log_level`
  X0X_LOG_DIR  also append log lines to x0xd-<pid>.log in this directory
  NO_COLOR     no colours in log lines

Files: keys in ~/.x0x[-NAME]; api.port and api-token in the data directory.";

/// The x0x daemon: an agent on the peer-to-peer network, with a local API.
#[derive(Debug, Parser)]
#[command(name = "x0xd", version, after_help = ENVIRONMENT)]
pub struct Args {
    /// Configuration file (TOML)
    #[arg(long, value_name = "PATH", env = "X0X_CONFIG")]
    config: Option<PathBuf>,

    /// Instance name: gives the daemon keys, data and ports of its own
    #[arg(long, value_name = "NAME", env = "X0X_NAME")]
    name: Option<String>,

    /// TCP port of the local API; 0 takes a free one
    #[arg(long, value_name = "PORT")]
    api_port: Option<u16>,

    /// UDP address of the QUIC endpoint
    #[arg(long, value_name = "IP:PORT")]
    bind: Option<SocketAddr>,

    /// Data directory
    #[arg(long, value_name = "PATH", env = "X0X_DATA_DIR")]
    data_dir: Option<PathBuf>,

    /// Machine to contact first, besides those of the configuration file; may be given more than once
    #[arg(long, value_name = "IP:PORT")]
    bootstrap: Vec<SocketAddr>,

    /// Ignore the bootstrap peers of the configuration file; known peers are still contacted
    #[arg(long, alias = "no-bootstrap")]
    no_hard_coded_bootstrap: bool,

    /// Print the configuration that would be used, and exit
    #[arg(long)]
    pub check: bool,

    /// List the instances of this user, and exit
    #[arg(long)]
    pub list: bool,
}

impl Args {
    /// What the flags set.
    #[must_use]
    pub fn overrides(&self) -> Overrides {
        Overrides {
            config: self.config.clone(),
            name: self.name.clone(),
            api_port: self.api_port,
            bind: self.bind,
            data_dir: self.data_dir.clone(),
            bootstrap: self.bootstrap.clone(),
            no_bootstrap: self.no_hard_coded_bootstrap,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
        let args = Args::parse_from(["x0xd", "--name", "a", "--api-port", "0", "--no-bootstrap"]);
        let overrides = args.overrides();
        assert_eq!(overrides.name.as_deref(), Some("a"));
        assert_eq!(overrides.api_port, Some(0));
        assert!(overrides.no_bootstrap && overrides.bootstrap.is_empty());
        let peers = ["--bootstrap", "192.0.2.1:5483", "--bootstrap=[::1]:9"];
        let args = Args::parse_from(["x0xd"].into_iter().chain(peers));
        let peers: Vec<_> = args.bootstrap.iter().map(SocketAddr::to_string).collect();
        assert_eq!(peers, ["192.0.2.1:5483", "[::1]:9"]);
        assert!(Args::try_parse_from(["x0xd", "--bootstrap", "example.org:5483"]).is_err());
    }
}
