//! Files, flags and what wins.

use std::fs;

use super::*;

struct Place {
    directory: tempfile::TempDir,
    paths: Paths,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let paths = Paths::below(directory.path());
        Self { directory, paths }
    }

    fn load(&self, text: &str, overrides: Overrides) -> Result<Config, ConfigError> {
        let path = self.directory.path().join("given.toml");
        fs::write(&path, text).expect("the file can be written");
        Config::load_with(&Overrides { config: Some(path), ..overrides }, &self.paths)
    }
}

fn refusal(text: &str) -> String {
    Place::new().load(text, Overrides::default()).expect_err("refused").to_string()
}

#[test]
fn defaults_are_the_documented_ones() {
    let place = Place::new();
    let config = Config::load_with(&Overrides::default(), &place.paths).expect("no file is fine");
    assert_eq!(config.bind_address.to_string(), "[::]:5483");
    assert_eq!(config.api_address.to_string(), "127.0.0.1:12700");
    assert_eq!(config.log_level, LogLevel::Warn);
    assert!(config.bootstrap_peers.is_empty());
    assert_eq!(config.heartbeat.as_secs(), 300);
    assert_eq!(config.identity_ttl.as_secs(), 900);
    assert_eq!(config.data_dir, place.directory.path().join("share/x0x"));
    assert_eq!(config.identity_dir, place.directory.path().join(".x0x"));
}

#[test]
fn a_name_moves_everything_that_is_not_set() {
    let place = Place::new();
    let overrides = Overrides { name: Some("alice".into()), ..Overrides::default() };
    let config = place.load("", overrides.clone()).expect("valid");
    assert_eq!(config.bind_address.to_string(), "[::]:0");
    assert_eq!(config.api_address.to_string(), "127.0.0.1:0");
    assert_eq!(config.data_dir, place.directory.path().join("share/x0x-alice"));
    assert_eq!(config.identity_dir, place.directory.path().join(".x0x-alice"));

    let text = "api_address = '127.0.0.1:4000'\ninstance_name = 'bob'";
    let config = place.load(text, overrides).expect("valid");
    assert_eq!(config.api_address.to_string(), "127.0.0.1:4000");
    assert_eq!(config.instance_name.as_deref(), Some("alice"));
    let config = place.load(text, Overrides::default()).expect("valid");
    assert_eq!(config.instance_name.as_deref(), Some("bob"));
}

#[test]
fn the_platform_file_is_found_by_name() {
    let place = Place::new();
    let path = place.paths.config_file(Some("alice"));
    fs::create_dir_all(path.parent().expect("has one")).expect("can be made");
    fs::write(&path, "log_level = 'debug'").expect("can be written");
    let overrides = Overrides { name: Some("alice".into()), ..Overrides::default() };
    let config = Config::load_with(&overrides, &place.paths).expect("valid");
    assert_eq!(config.log_level, LogLevel::Debug);
}

#[test]
fn flags_win_over_the_file() {
    let place = Place::new();
    let overrides = Overrides {
        api_port: Some(0),
        bind: Some("127.0.0.1:7000".parse().expect("an address")),
        no_bootstrap: true,
        data_dir: Some("elsewhere".into()),
        ..Overrides::default()
    };
    let text =
        "api_address = '[::1]:9'\nbind_address = '0.0.0.0:1'\nbootstrap_peers = ['192.0.2.1:5483']";
    let config = place.load(text, overrides).expect("valid");
    assert_eq!(config.api_address.to_string(), "[::1]:0");
    assert_eq!(config.bind_address.to_string(), "127.0.0.1:7000");
    assert!(config.bootstrap_peers.is_empty());
    assert_eq!(config.data_dir, Path::new("elsewhere"));
}

#[test]
fn bootstrap_flags_add_to_the_file() {
    let place = Place::new();
    let peer = |n: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, n));
    let text = "bootstrap_peers = ['127.0.0.1:1', '127.0.0.1:2']";
    let overrides = Overrides { bootstrap: vec![peer(2), peer(3)], ..Overrides::default() };
    let config = place.load(text, overrides.clone()).expect("valid");
    assert_eq!(config.bootstrap_peers, [peer(1), peer(2), peer(3)]);
    let only_flags = Overrides { no_bootstrap: true, ..overrides };
    let config = place.load(text, only_flags).expect("valid");
    assert_eq!(config.bootstrap_peers, [peer(2), peer(3)]);
    let bootstrap = (1..=65).map(peer).collect();
    let many = Overrides { bootstrap, ..Overrides::default() };
    let error = place.load("", many).expect_err("too many");
    assert!(error.to_string().contains("bootstrap_peers"));
}

#[test]
fn keys_that_change_nothing_are_named_not_fatal() {
    let text = "presence_beacon_interval_secs = 30\nmoons = 2\nuser_key_path = '/x/user.key'\n\
                [update]\nenabled = false\n[gossip]\nactive_view_size = 6\nactive = 1\n\
                [sessions]\nmax = 9\nrelay = false\nmin = 1";
    let config = Place::new().load(text, Overrides::default()).expect("valid");
    let sorted = |mut keys: Vec<String>| {
        keys.sort();
        keys
    };
    assert!(!config.relay);
    assert_eq!(sorted(config.unknown_keys), ["gossip.active", "moons", "sessions.min"]);
    let known = ["gossip.active_view_size", "presence_beacon_interval_secs", "update"];
    assert_eq!(sorted(config.keys_without_effect), known);
    assert_eq!(config.user_key_path.as_deref(), Some("/x/user.key".as_ref()));
}

#[test]
fn sessions_are_capped() {
    let place = Place::new();
    let config = place.load("", Overrides::default()).expect("valid");
    assert_eq!((config.max_sessions, config.max_sessions_per_network), (256, 32));
    let text = "[sessions]\nmax = 100\nmax_per_network = 200";
    let config = place.load(text, Overrides::default()).expect("valid");
    assert_eq!((config.max_sessions, config.max_sessions_per_network), (100, 100));
    let config = place.load("[sessions]\nmax = 8", Overrides::default()).expect("valid");
    assert_eq!((config.max_sessions, config.max_sessions_per_network), (8, 8));
    for (text, key) in [("max = 0", "sessions.max"), ("max_per_network = 300", "per_network")] {
        assert!(refusal(&format!("[sessions]\n{text}")).contains(key), "{text}");
    }
    assert!(refusal("sessions = 7").contains("sessions"));
}

#[test]
fn what_gossip_keeps_is_set_within_bounds() {
    let place = Place::new();
    let text = "[gossip]\nretention_secs = 3600\ntopic_bytes = 2000000\nlog_bytes = 4000000\n\
                topic_entries = 5000\nstore_bytes = 50000000";
    let config = place.load(text, Overrides::default()).expect("valid");
    assert_eq!(config.gossip.retention, Duration::from_secs(3600));
    assert_eq!((config.gossip.topic_bytes, config.gossip.log_bytes), (2_000_000, 4_000_000));
    assert_eq!((config.gossip.topic_entries, config.store_bytes), (5000, 50_000_000));
    for (text, key) in [
        ("retention_secs = 59", "gossip.retention_secs"),
        ("topic_bytes = 1000", "gossip.topic_bytes"),
        ("topic_bytes = 50000000", "more (50000000) than all together"),
        ("topic_entries = 5", "gossip.topic_entries"),
        ("log_bytes = 2000000000000", "gossip.log_bytes"),
        ("store_bytes = 5", "gossip.store_bytes"),
        ("topic_bytes = 'much'", "topic_bytes"),
    ] {
        let refused = refusal(&format!("[gossip]\n{text}"));
        assert!(refused.contains(key), "{text}: {refused}");
    }
}

#[test]
fn bad_values_are_refused_by_name() {
    assert!(refusal("api_address = 'nonsense'").contains("api_address"));
    assert!(refusal("heartbeat_interval_secs = 0").contains("heartbeat_interval_secs"));
    assert!(refusal("heartbeat_interval_secs = -1").contains("heartbeat_interval_secs"));
    assert!(refusal("log_level = 'loud'").contains("log_level"));
    assert!(refusal("heartbeat_interval_secs = 60\nidentity_ttl_secs = 30").contains("ttl"));
    assert!(refusal("network = ''").contains("network"));
    assert!(refusal("instance_name = '-x'").contains("instance name"));
    assert!(refusal("instance_name = '../x'").contains("instance name"));
    assert!(refusal("a = ").contains("given.toml"));
    let missing = Overrides { config: Some("/nonexistent/x.toml".into()), ..Overrides::default() };
    let error = Config::load_with(&missing, &Place::new().paths).expect_err("refused");
    assert!(error.to_string().contains("/nonexistent/x.toml"));
}

#[test]
fn a_remote_api_must_be_allowed_by_name() {
    assert!(refusal("api_address = '0.0.0.0:12700'").contains("allow_remote_api"));
    let text = "api_address = '0.0.0.0:12700'\nallow_remote_api = true";
    assert!(Place::new().load(text, Overrides::default()).is_ok());
}

#[test]
fn what_check_prints_gives_the_same_configuration() {
    let place = Place::new();
    let text = "instance_name = 'a'\nnetwork = 'my \"net\"'\nbootstrap_peers = ['[::1]:5', '192.0.2.1:6']\n\
                role = 'bootstrap'\nmdns = false\nmdns_announce_id = true\npure_pq = true\n\
                log_format = 'json'\ndata_dir = '/with \"quotes\"'\nheartbeat_interval_secs = 7\n\
                [sessions]\nmax = 50\nmax_per_network = 5\n[relay]\nuse_others = false\ntcp = 443\n[gossip]\nretention_secs = 600\nstore_bytes = 90000000";
    let config = place.load(text, Overrides::default()).expect("valid");
    let again = place.load(&config.to_string(), Overrides::default()).expect("valid");
    assert_eq!(again, config);
}

#[test]
fn machines_without_udp_are_taken_where_the_role_or_the_file_says() {
    let port = |text: &str| {
        let config = Place::new().load(text, Overrides::default()).expect("valid");
        assert!(config.relay_by_others);
        config.relay_tcp.port(config.role)
    };
    assert_eq!(port(""), None);
    assert_eq!(port("role = 'bootstrap'"), Some(0));
    assert_eq!(port("role = 'bootstrap'\n[relay]\ntcp = false"), None);
    assert_eq!(port("[relay]\ntcp = true"), Some(0));
    assert_eq!(port("[relay]\ntcp = 443"), Some(443));
    assert!(refusal("[relay]\ntcp = 70000").contains("tcp"));
    let overrides = Overrides { relay_tcp: Some(TcpRelay::Port(8443)), ..Overrides::default() };
    let config = Place::new().load("[relay]\nuse_others = false", overrides).expect("valid");
    assert_eq!(config.relay_tcp.port(config.role), Some(8443));
    assert!(!config.relay_by_others);
}

#[test]
fn ports_are_asked_of_gateways_unless_the_file_says_no() {
    let by_default = Place::new().load("", Overrides::default()).expect("valid");
    assert!(by_default.port_mapping);
    let config = Place::new().load("[nat]\nport_mapping = false", Overrides::default());
    let config = config.expect("valid");
    assert!(!config.port_mapping && config.to_string().contains("[nat]\nport_mapping = false\n"));
}

/// The rows of the document's tables: each key with its tables before it, and its default.
fn documented() -> std::collections::BTreeMap<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let text = fs::read_to_string(path).expect("the document is there");
    let (mut table, mut rows) = (String::new(), std::collections::BTreeMap::new());
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            let name = heading.trim_matches(|c: char| "`[]".contains(c));
            table = if heading.starts_with('`') { format!("{name}.") } else { String::new() };
        } else if let Some(row) = line.strip_prefix("| `") {
            let mut cells = row.split(" | ");
            let key = cells.next().expect("a key").trim_end_matches('`');
            let default = cells.next().expect("a default").trim_matches('`').to_owned();
            assert!(rows.insert(format!("{table}{key}"), default).is_none(), "{key} twice");
        }
    }
    rows
}

#[test]
fn the_document_names_every_key_with_its_default() {
    let rows = documented();
    let documented: std::collections::BTreeSet<String> = rows.keys().cloned().collect();
    assert_eq!(documented, file::keys(), "docs/configuration.md is out of step");
    let by_default = Config::load_with(&Overrides::default(), &Place::new().paths).expect("valid");
    let shown: toml::Table = toml::from_str(&by_default.to_string()).expect("TOML");
    let mut compared = 0;
    for (key, default) in &rows {
        let mut value = Some(toml::Value::Table(shown.clone()));
        for part in key.split('.') {
            value = value.and_then(|value| value.get(part).cloned());
        }
        let of_platform = ["data_dir", "identity_dir"].contains(&key.as_str());
        match value {
            Some(value) if !of_platform => {
                assert_eq!(&value.to_string(), default, "{key}");
                compared += 1;
            }
            Some(_) => {}
            None => assert!(["none", "needed", "by role"].contains(&default.as_str()), "{key}"),
        }
    }
    assert!(compared > 25, "{compared} defaults are compared");
}
