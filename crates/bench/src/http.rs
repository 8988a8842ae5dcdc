//! A client of the local API on one kept-alive connection.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use x0x_api::{Operation, endpoint};

/// Longest answer that is read.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// One connection.
pub(crate) struct Http {
    stream: BufReader<TcpStream>,
    host: SocketAddr,
    token: String,
    line: String,
}

/// A status and a body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The body of a success, as a type.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T> {
        if ![200, 201].contains(&self.status) {
            bail!("HTTP {}: {}", self.status, String::from_utf8_lossy(&self.body));
        }
        Ok(serde_json::from_slice(&self.body)?)
    }
}

impl Http {
    /// Speaks to `host` over a stream that leads there.
    pub(crate) fn over(stream: TcpStream, host: SocketAddr, token: &str) -> Self {
        let stream = BufReader::new(stream);
        Self { stream, host, token: token.to_owned(), line: String::new() }
    }

    /// Calls an operation that has no parameters.
    pub(crate) async fn get<T: DeserializeOwned>(&mut self, operation: Operation) -> Result<T> {
        self.send("GET", endpoint(operation).path, b"").await?.read()
    }

    /// Calls an operation with a JSON body.
    pub(crate) async fn post(
        &mut self,
        operation: Operation,
        body: &impl Serialize,
    ) -> Result<Answer> {
        self.send("POST", endpoint(operation).path, &serde_json::to_vec(body)?).await
    }

    /// Sends a request and reads its answer.
    pub(crate) async fn send(&mut self, method: &str, path: &str, body: &[u8]) -> Result<Answer> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            self.host,
            self.token,
            body.len()
        );
        let mut request = head.into_bytes();
        request.extend_from_slice(body);
        self.stream.write_all(&request).await?;
        self.read_answer().await
    }

    async fn read_answer(&mut self) -> Result<Answer> {
        let status = self.read_line().await?;
        let status = status.split(' ').nth(1).context("no status line")?.parse()?;
        let mut length = 0;
        loop {
            let line = self.read_line().await?;
            let Some((name, value)) = line.split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse()?;
            }
        }
        if length > MAX_ANSWER {
            bail!("an answer of {length} bytes");
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        Ok(Answer { status, body })
    }

    async fn read_line(&mut self) -> Result<&str> {
        self.line.clear();
        if self.stream.read_line(&mut self.line).await? == 0 {
            bail!("the daemon closed the connection");
        }
        Ok(self.line.trim_end())
    }
}
