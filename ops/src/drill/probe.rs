//! Whether an application answers, and where there is room for it to listen.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::run::process::said;

/// How long a single answer is waited for.
const ANSWER: Duration = Duration::from_secs(5);
/// The longest status line that is read.
const STATUS_LEN_MAX: u64 = 1024;

/// Asks `http://HOST:PORT/PATH`; returns the status code of the answer.
///
/// # Errors
/// What is wrong with the address, or why there is no answer.
pub fn get(url: &str) -> Result<u16, String> {
    let rest = url.strip_prefix("http://").ok_or_else(|| format!("{url} does not begin with http://"))?;
    let authority = authority(url);
    let path = rest.get(authority.len()..).filter(|path| !path.is_empty()).unwrap_or("/");
    let with_port = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
    let failed = |error: io::Error| error.to_string();
    let address = with_port.to_socket_addrs().map_err(failed)?.next().ok_or("it has no address")?;
    let mut stream = TcpStream::connect_timeout(&address, ANSWER).map_err(failed)?;
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
pub fn ready(url: &str, get: &dyn Fn(&str) -> Result<u16, String>) -> Result<(), String> {
    match get(url)? {
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

    fn answered(answer: &'static str) -> Result<u16, String> {
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
            assert!(answered(wrong).is_err(), "{wrong:?}");
        }
        let port = free_port().expect("a port");
        assert!(get(&format!("http://127.0.0.1:{port}/")).is_err(), "nobody listens");
        assert!(get("https://127.0.0.1/").is_err());
    }
}
