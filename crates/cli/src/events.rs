//! Reads a stream of server-sent events (WHATWG HTML, section 9.2.6) as far as the daemon uses it.

use std::io::{self, BufRead, BufReader, ErrorKind, Read};

use x0x_api::limits::MAX_WS_MESSAGE;

/// Longest line that is read: the largest event as one line of JSON, with room to spare.
const MAX_LINE: u64 = MAX_WS_MESSAGE as u64 + 64 * 1024;

/// One event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ServerEvent {
    /// `message` when the stream names none.
    pub(crate) name: String,
    pub(crate) data: String,
}

/// Splits a stream into events.
pub(crate) struct EventReader {
    source: Box<dyn BufRead + Send>,
    line: Vec<u8>,
}

impl EventReader {
    pub(crate) fn new(source: impl Read + Send + 'static) -> Self {
        Self { source: Box::new(BufReader::new(source)), line: Vec::new() }
    }

    /// The next event, or none when the stream has ended.
    pub(crate) fn next(&mut self) -> io::Result<Option<ServerEvent>> {
        let mut event = ServerEvent { name: "message".to_owned(), data: String::new() };
        let mut has_data = false;
        while self.read_line()? {
            let line = String::from_utf8_lossy(&self.line);
            if line.is_empty() {
                if has_data {
                    return Ok(Some(event));
                }
                event.name = "message".to_owned();
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => event.name = value.to_owned(),
                "data" => {
                    if has_data {
                        event.data.push('\n');
                    }
                    event.data.push_str(value);
                    has_data = true;
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// Reads a line into `self.line` without its end; false when the stream has ended.
    fn read_line(&mut self) -> io::Result<bool> {
        self.line.clear();
        let read = (&mut self.source).take(MAX_LINE).read_until(b'\n', &mut self.line);
        let read = read.map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => {
                io::Error::new(error.kind(), "the daemon ended, and the stream with it")
            }
            _ => error,
        })?;
        if self.line.last() != Some(&b'\n') {
            if read as u64 == MAX_LINE {
                return Err(io::Error::new(ErrorKind::InvalidData, "an event is too large"));
            }
            return Ok(false);
        }
        self.line.pop();
        if self.line.last() == Some(&b'\r') {
            self.line.pop();
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(text: &'static str) -> Vec<(String, String)> {
        let mut reader = EventReader::new(text.as_bytes());
        std::iter::from_fn(|| reader.next().unwrap())
            .map(|event| (event.name, event.data))
            .collect()
    }

    #[test]
    fn fields_comments_and_line_ends_are_understood() {
        let found = events(
            "retry: 2000\n\n: keep-alive\n\nid: 4\r\nevent: message\r\ndata: {}\r\n\r\n\
             event: lagged\ndata: a\ndata:b\n\ndata: unfinished",
        );
        let expected = [("message", "{}"), ("lagged", "a\nb")];
        let expected = expected.map(|(name, data)| (name.to_owned(), data.to_owned()));
        assert_eq!(found, expected);
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut reader = EventReader::new(io::repeat(b'a'));
        assert_eq!(reader.next().unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
