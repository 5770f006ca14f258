//! Whether an application answers, and where there is room for it to listen.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::run::process::said;

/// How long a single answer is waited for.
const ANSWER: Duration = Duration::from_secs(5);
/// The longest status line that is read.
const STATUS_LEN_MAX: u64 = 1024;

/// Why there is no answer in HTTP.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// Nobody takes the call.
    #[error("{0}")]
    Nobody(String),
    /// Somebody takes it, and says nothing in time, or something else.
    #[error("{0}")]
    Other(String),
}

/// Asks `http://HOST:PORT/PATH`, at each address of the host until one answers; returns the status code of the answer.
///
/// # Errors
/// [`NoAnswer`], also for what is wrong with the address.
pub fn get(url: &str) -> Result<u16, NoAnswer> {
    let nobody = |error: &dyn std::fmt::Display| NoAnswer::Nobody(error.to_string());
    let rest = url
        .strip_prefix("http://")
        .ok_or_else(|| nobody(&format_args!("{url} does not begin with http://")))?;
    let authority = authority(url);
    let path = rest.get(authority.len()..).filter(|path| !path.is_empty()).unwrap_or("/");
    // Colons in brackets are an address's.
    let has_port = authority.rsplit(']').next().unwrap_or_default().contains(':');
    let with_port = if has_port { authority.to_owned() } else { format!("{authority}:80") };
    let mut why = nobody(&"it has no address");
    for address in with_port.to_socket_addrs().map_err(|error| nobody(&error))? {
        match TcpStream::connect_timeout(&address, ANSWER) {
            Ok(stream) => match asked(stream, authority, path) {
                Ok(code) => return Ok(code),
                Err(error) => why = NoAnswer::Other(error),
            },
            Err(error) if matches!(why, NoAnswer::Nobody(_)) => why = nobody(&error),
            Err(_) => {}
        }
    }
    Err(why)
}

fn asked(mut stream: TcpStream, authority: &str, path: &str) -> Result<u16, String> {
    let failed = |error: io::Error| error.to_string();
    stream.set_read_timeout(Some(ANSWER)).map_err(failed)?;
    stream.set_write_timeout(Some(ANSWER)).map_err(failed)?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = Vec::new();
    let mut limited = stream.take(STATUS_LEN_MAX);
    let mut byte = [0];
    while !answer.ends_with(b"\n") && limited.read(&mut byte).map_err(failed)? == 1 {
        answer.push(byte[0]);
    }
    let line = String::from_utf8_lossy(&answer).trim_end().to_owned();
    let code = line.strip_prefix("HTTP/").and_then(|line| line.split(' ').nth(1)?.parse().ok());
    code.ok_or_else(|| format!("it answered, and not in HTTP{}", said(&line)))
}

/// Host and port of `http://HOST:PORT/PATH`.
pub fn authority(url: &str) -> &str {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    rest.split_once('/').map_or(rest, |(authority, _)| authority)
}

/// Whether an address answers as an application that is ready does: with 200.
///
/// # Errors
/// What it does instead.
pub fn ready(url: &str, get: &dyn Fn(&str) -> Result<u16, NoAnswer>) -> Result<(), String> {
    match get(url).map_err(|why| why.to_string())? {
        200 => Ok(()),
        code => Err(format!("{url} answers with {code}")),
    }
}

/// A port on the loopback interface that nobody listens on.
///
/// # Errors
/// Where there is none.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(answer: &'static str) -> Result<u16, NoAnswer> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a caller");
            let mut asked = [0; 512];
            let len = stream.read(&mut asked).expect("a request");
            stream.write_all(answer.as_bytes()).expect("written");
            String::from_utf8_lossy(&asked[..len]).into_owned()
        });
        let result = get(&format!("http://127.0.0.1:{port}/health?x=1"));
        assert!(server.join().expect("no panic").starts_with("GET /health?x=1 HTTP/1.0\r\n"));
        result
    }

    #[test]
    fn the_status_code_is_what_counts() {
        assert_eq!(answered("HTTP/1.1 200 OK\r\n\r\nfine"), Ok(200));
        assert_eq!(answered("HTTP/1.0 503 Busy\r\n\r\n"), Ok(503));
        for wrong in ["", "hello\n", "HTTP/1.1\r\n", "HTTP/1.1 many\r\n"] {
            assert!(matches!(answered(wrong), Err(NoAnswer::Other(_))), "{wrong:?}");
        }
        let port = free_port().expect("a port");
        assert!(matches!(get(&format!("http://127.0.0.1:{port}/")), Err(NoAnswer::Nobody(_))));
        assert!(matches!(get("https://127.0.0.1/"), Err(NoAnswer::Nobody(_))));
        for host in ["[::1]", "127.0.0.1"] {
            // Whether somebody serves there is this machine's.
            if let Err(why) = get(&format!("http://{host}/")) {
                assert!(!why.to_string().contains("invalid"), "{host}: {why}");
            }
        }
    }
}
