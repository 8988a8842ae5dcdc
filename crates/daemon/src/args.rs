//! Command line of `x0xd`.

use std::{net::SocketAddr, path::PathBuf};

use clap::Parser;
use x0x_api::instance::{CONFIG_VARIABLE, DATA_VARIABLE, NAME_VARIABLE};

use crate::config::{Overrides, TcpRelay};

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
    #[arg(long, value_name = "PATH", env = CONFIG_VARIABLE)]
    config: Option<PathBuf>,

    /// Instance name: gives the daemon keys, data and ports of its own
    #[arg(long, value_name = "NAME", env = NAME_VARIABLE)]
    name: Option<String>,

    /// TCP port of the local API; 0 takes a free one
    #[arg(long, value_name = "PORT")]
    api_port: Option<u16>,

    /// UDP address of the QUIC endpoint
    #[arg(long, value_name = "IP:PORT")]
    bind: Option<SocketAddr>,

    /// Data directory
    #[arg(long, value_name = "PATH", env = DATA_VARIABLE)]
    data_dir: Option<PathBuf>,

    /// Machine to contact first, besides those of the configuration file; may be given more than once
    #[arg(long, value_name = "IP:PORT")]
    bootstrap: Vec<SocketAddr>,

    /// Relay for machines without UDP: take them at this TCP port, or at the number of the UDP port
    #[arg(long, value_name = "PORT", num_args = 0..=1, require_equals = true, default_missing_value = "0")]
    relay_tcp: Option<u16>,

    /// Ignore the bootstrap peers of the configuration file; known peers are still contacted
    #[arg(long, alias = "no-bootstrap")]
    no_hard_coded_bootstrap: bool,

    /// Print the configuration that would be used, and exit
    #[arg(long)]
    check: bool,

    /// List the instances of this user, and exit
    #[arg(long)]
    pub list: bool,

    #[command(flatten)]
    original: Original,
}

/// What the original daemon takes and this version has nothing to do for. Scripts and service files
/// that pass it go on working, and are told.
#[derive(Debug, clap::Args)]
struct Original {
    #[arg(long, hide = true)]
    skip_update_check: bool,
    #[arg(long, hide = true)]
    check_updates: bool,
    #[arg(long, hide = true)]
    doctor: bool,
    #[arg(long, hide = true, value_name = "PATH")]
    exec_acl: Option<PathBuf>,
}

impl Args {
    /// What to tell of flags that change nothing.
    pub fn notes(&self) -> impl Iterator<Item = &'static str> {
        let Original { skip_update_check, check_updates, doctor, ref exec_acl } = self.original;
        [
            (skip_update_check, "--skip-update-check changes nothing: x0xd never replaces itself"),
            (check_updates, "--check-updates: x0xd does not look for updates"),
            (
                doctor,
                "--doctor: printing the configuration, as --check does; see also `x0x doctor`",
            ),
            (exec_acl.is_some(), "--exec-acl changes nothing: x0xd runs no commands for others"),
        ]
        .into_iter()
        .filter_map(|(given, note)| given.then_some(note))
    }

    /// Whether to print the configuration, and exit.
    #[must_use]
    pub const fn only_checks(&self) -> bool {
        self.check || self.original.doctor
    }

    /// Whether there is nothing to do but to answer.
    #[must_use]
    pub const fn only_asks(&self) -> bool {
        self.original.check_updates
    }

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
            relay_tcp: self.relay_tcp.map(TcpRelay::Port),
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
        let relay = |flag: &str| Args::parse_from(["x0xd", flag]).overrides().relay_tcp;
        assert_eq!(relay("--relay-tcp"), Some(TcpRelay::Port(0)));
        assert_eq!(relay("--relay-tcp=443"), Some(TcpRelay::Port(443)));
        let peers = ["--bootstrap", "192.0.2.1:5483", "--bootstrap=[::1]:9"];
        let args = Args::parse_from(["x0xd"].into_iter().chain(peers));
        let peers: Vec<_> = args.bootstrap.iter().map(SocketAddr::to_string).collect();
        assert_eq!(peers, ["192.0.2.1:5483", "[::1]:9"]);
        assert!(Args::try_parse_from(["x0xd", "--bootstrap", "example.org:5483"]).is_err());
    }

    #[test]
    fn flags_of_the_original_are_taken_and_told() {
        let args = Args::parse_from(["x0xd"]);
        assert!(args.notes().next().is_none() && !args.only_checks() && !args.only_asks());
        let args = Args::parse_from(["x0xd", "--skip-update-check", "--exec-acl", "/etc/acl.toml"]);
        assert_eq!(args.notes().count(), 2);
        assert!(!args.only_checks() && !args.only_asks());
        assert!(Args::parse_from(["x0xd", "--doctor"]).only_checks());
        assert!(Args::parse_from(["x0xd", "--check-updates"]).only_asks());
        assert!(Args::try_parse_from(["x0xd", "--moons"]).is_err());
    }
}
