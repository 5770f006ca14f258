//! Addresses called over HTTP. They often are secrets: no message here repeats one.

use std::time::Duration;

use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig};

/// Calls addresses.
pub trait Http {
    /// Sends JSON to an address, which has to answer that it took it.
    ///
    /// # Errors
    /// Why it did not, without the address.
    fn post(&self, address: &str, json: &str) -> Result<(), String>;

    /// Calls an address, which has to answer that this is well.
    ///
    /// # Errors
    /// Why it did not, without the address.
    fn get(&self, address: &str) -> Result<(), String>;
}

/// HTTP and HTTPS as this system does it: with its certificates and its proxy.
#[derive(Debug, Clone)]
pub struct SystemHttp {
    agent: Agent,
}

impl SystemHttp {
    /// Nobody is waited for longer than `timeout`.
    pub fn new(timeout: Duration) -> Self {
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let config = Agent::config_builder()
            .timeout_global(Some(timeout))
            .user_agent(concat!("strongroom/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls)
            .build();
        Self { agent: config.new_agent() }
    }
}

impl Http for SystemHttp {
    fn post(&self, address: &str, json: &str) -> Result<(), String> {
        let sent = self.agent.post(address).content_type("application/json").send(json);
        sent.map(|_| ()).map_err(|error| reason(&error))
    }

    fn get(&self, address: &str) -> Result<(), String> {
        self.agent.get(address).call().map(|_| ()).map_err(|error| reason(&error))
    }
}

fn reason(error: &ureq::Error) -> String {
    match error {
        ureq::Error::StatusCode(code) => format!("it answered with status {code}"),
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => "it is no address of http or https".into(),
        ureq::Error::Io(error) => format!("it cannot be reached: {error}"),
        ureq::Error::Timeout(_) => "it did not answer in time".into(),
        ureq::Error::HostNotFound => "its host is not known".into(),
        _ => "the call failed".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Answers one call; returns what it was sent.
    fn listener(answer: &'static str) -> (String, thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}/secret?x=1", listener.local_addr().expect("an address"));
        let handle = thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a call");
            let mut reader = BufReader::new(stream);
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let before = head.len();
                reader.read_line(&mut head).expect("a line");
                let line = head[before..].to_ascii_lowercase();
                if let Some(value) = line.strip_prefix("content-length:") {
                    length = value.trim().parse().expect("a number");
                }
                if line.trim().is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).expect("the body");
            reader.get_mut().write_all(answer.as_bytes()).expect("answered");
            head + &String::from_utf8(body).expect("text")
        });
        (address, handle)
    }

    #[test]
    fn calls_count_only_if_they_are_answered_well() {
        let http = SystemHttp::new(Duration::from_secs(10));
        let (address, heard) = listener("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
        assert_eq!(http.post(&address, "{\"a\":1}"), Ok(()));
        let heard = heard.join().expect("no panic");
        assert!(
            heard.starts_with("POST /secret?x=1 HTTP/1.1\r\n") && heard.ends_with("\r\n\r\n{\"a\":1}"),
            "{heard}"
        );
        assert!(heard.to_ascii_lowercase().contains("content-type: application/json"), "{heard}");
        let (address, heard) =
            listener("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
        assert_eq!(http.get(&address), Ok(()));
        assert!(heard.join().expect("no panic").starts_with("GET /secret?x=1 HTTP/1.1\r\n"));
        let (address, heard) =
            listener("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        assert_eq!(http.post(&address, "{}"), Err("it answered with status 500".into()));
        heard.join().expect("no panic");
        // Nobody is there any more.
        let gone = http.get(&address).expect_err("nobody");
        assert!(gone.starts_with("it cannot be reached: ") && !gone.contains("secret"), "{gone}");
        let wrong = http.get("not an address with secret").expect_err("no address");
        assert!(!wrong.contains("secret"), "{wrong}");
    }

    #[test]
    fn nobody_is_waited_for_for_ever() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}/", listener.local_addr().expect("an address"));
        let http = SystemHttp::new(Duration::from_millis(300));
        assert_eq!(http.post(&address, "{}"), Err("it did not answer in time".into()));
    }
}
