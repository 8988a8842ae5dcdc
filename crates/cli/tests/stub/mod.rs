//! A daemon made of canned answers, and the command run against it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use tempfile::TempDir;

/// A request as the stub saw it.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Such as `GET /health`.
    pub(crate) line: String,
    pub(crate) authorization: Option<String>,
    pub(crate) media_type: Option<String>,
    pub(crate) body: String,
}

/// What the stub answers to one request line.
#[derive(Clone)]
pub(crate) struct Canned {
    status: u16,
    media_type: &'static str,
    body: String,
    /// The connection stays open behind the body, until the client closes it.
    endless: bool,
}

impl Canned {
    pub(crate) fn json(status: u16, body: &str) -> Self {
        Self { status, media_type: "application/json", body: body.to_owned(), endless: false }
    }

    pub(crate) fn events(body: &str) -> Self {
        Self { status: 200, media_type: "text/event-stream", body: body.to_owned(), endless: false }
    }

    pub(crate) fn endless_events(body: &str) -> Self {
        Self { endless: true, ..Self::events(body) }
    }
}

/// The stub: answers until it is dropped with the process.
pub(crate) struct Stub {
    pub(crate) address: SocketAddr,
    seen: Receiver<Seen>,
    home: TempDir,
}

impl Stub {
    /// Starts a stub that knows these request lines and answers 404 to all others.
    pub(crate) fn start(answers: &[(&str, Canned)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, seen) = sync_channel(64);
        let answers: BTreeMap<String, Canned> =
            answers.iter().map(|(line, answer)| ((*line).to_owned(), answer.clone())).collect();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (answers, sender) = (answers.clone(), sender.clone());
                thread::spawn(move || serve(stream.unwrap(), &answers, &sender));
            }
        });
        Self { address, seen, home: tempfile::tempdir().unwrap() }
    }

    /// A command aimed at this stub, in a home of its own.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = x0x(self.home.path());
        command.env("X0X_API_TOKEN", "secret").args(["--api", &self.address.to_string()]);
        command.args(arguments);
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.try_iter().collect()
    }
}

/// The command in a home that holds nothing else.
pub(crate) fn x0x(home: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_x0x"));
    for name in ["X0X_API_TOKEN", "X0X_NAME", "X0X_DATA_DIR", "NO_COLOR", "XDG_CONFIG_HOME"] {
        command.env_remove(name);
    }
    command.env("HOME", home).env("XDG_DATA_HOME", home.join("data"));
    command
}

fn serve(stream: TcpStream, answers: &BTreeMap<String, Canned>, seen: &SyncSender<Seen>) {
    let mut reader = BufReader::new(stream);
    loop {
        let Some(request) = read_request(&mut reader) else { return };
        let missing = Canned::json(404, r#"{"ok":false,"error":"no stub","code":"not_found"}"#);
        let answer = answers.get(&request.line).cloned().unwrap_or(missing);
        let _ = seen.send(request);
        let Canned { status, media_type, body, endless } = answer;
        let length = if endless {
            "connection: close".to_owned()
        } else {
            format!("content-length: {}", body.len())
        };
        let head = format!("HTTP/1.1 {status} S\r\ncontent-type: {media_type}\r\n{length}\r\n\r\n");
        if reader.get_mut().write_all((head + &body).as_bytes()).is_err() {
            return;
        }
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Seen> {
    let mut next_line = || {
        let mut line = String::new();
        (reader.read_line(&mut line).ok()? > 0).then(|| line.trim_end().to_owned())
    };
    let line = next_line()?.rsplit_once(' ')?.0.to_owned();
    let (mut authorization, mut media_type, mut length) = (None, None, 0);
    loop {
        let header = next_line()?;
        let Some((name, value)) = header.split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => authorization = Some(value.to_owned()),
            "content-type" => media_type = Some(value.to_owned()),
            "transfer-encoding" => panic!("a body of unknown length"),
            "content-length" => length = value.parse().unwrap(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Seen { line, authorization, media_type, body: String::from_utf8(body).unwrap() })
}
