//! `notify`, and what a run says to people, monitors and webhooks.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;

use serde_json::Value;

use crate::plan::{planned, write_plan};
use crate::support::Run;

/// Takes calls, and hands on each one's first line and body.
fn listener() -> (String, mpsc::Receiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.expect("a call"));
            let (mut head, mut length) = (String::new(), 0);
            while !head.ends_with("\r\n\r\n") {
                let before = head.len();
                reader.read_line(&mut head).expect("a line");
                let line = head[before..].to_ascii_lowercase();
                length = line
                    .strip_prefix("content-length:")
                    .map_or(length, |value| value.trim().parse().expect("a number"));
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).expect("a body");
            reader
                .get_mut()
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                .expect("sent");
            let first = head.lines().next().expect("a line").to_owned();
            if sender.send((first, String::from_utf8(body).expect("text"))).is_err() {
                break;
            }
        }
    });
    (address, receiver)
}

const NOTIFIED: &str = "
[[domain]]
name = 'db'
to = ['first']
[[domain.stream]]
name = 'dump'
command = ['sh', '-c', 'env > DIR/learnt-dump; cat DIR/dump || { echo hunter2 >&2; exit 1; }']
min_bytes = '1'
[[notify]]
on = ['failure', 'recovered']
webhook_env = 'TEST_HOOK'
[[notify]]
on = ['start', 'success', 'failure']
heartbeat_env = 'TEST_BEAT'
[[notify]]
on = ['success']
command = ['sh', '-c', 'env > DIR/learnt-notify; cat > DIR/told-$STRONGROOM_EVENT']
";

#[test]
fn people_and_monitors_are_told_how_a_run_went() {
    let bench = planned(NOTIFIED);
    let (address, calls) = listener();
    let run = |args: &[&str]| {
        let mut command = bench.command();
        command
            .args(args)
            .env("TEST_HOOK", format!("{address}/hook"))
            .env("TEST_BEAT", format!("{address}/beat"));
        let run = Run::of(&mut command);
        let calls: Vec<_> = calls.try_iter().collect();
        (run, calls)
    };
    let firsts =
        |calls: &[(String, String)]| calls.iter().map(|(first, _)| first.clone()).collect::<Vec<_>>();
    let (failed, calls) = run(&["run"]);
    assert!(failed.expect(1).stderr.contains("hunter2"), "whoever looks is told");
    assert_eq!(
        firsts(&calls),
        ["GET /beat/start HTTP/1.1", "POST /hook HTTP/1.1", "GET /beat/fail HTTP/1.1"]
    );
    let body: Value = serde_json::from_str(&calls[1].1).expect("JSON");
    assert_eq!(
        (&body["schema"], &body["event"], &body["host"]),
        (&1.into(), &"failure".into(), &"box".into())
    );
    let message = body["items"][0]["message"].as_str().expect("text");
    assert!(message.contains("sh failed: exit code 1") && !calls[1].1.contains("hunter2"), "{body}");
    let (_, calls) = run(&["run"]);
    assert_eq!(
        firsts(&calls),
        ["GET /beat/start HTTP/1.1", "GET /beat/fail HTTP/1.1"],
        "not again and again"
    );
    bench.write("dump", "x");
    let (well, calls) = run(&["run"]);
    well.expect(0);
    assert_eq!(firsts(&calls), ["GET /beat/start HTTP/1.1", "POST /hook HTTP/1.1", "GET /beat HTTP/1.1"]);
    assert!(calls[1].1.contains("\"event\":\"recovered\""), "{calls:?}");
    let told: Value =
        serde_json::from_slice(&fs::read(bench.path("told-success")).expect("told")).expect("JSON");
    assert_eq!(told["items"][0]["subject"], "db");
    for learnt in ["dump", "notify"] {
        let learnt = fs::read_to_string(bench.path(&format!("learnt-{learnt}"))).expect("text");
        assert!(!learnt.contains("TEST_HOOK") && !learnt.contains("TEST_BEAT"), "{learnt}");
    }
    let (tested, calls) = run(&["notify", "--test", "--json"]);
    assert_eq!((tested.expect(0).lines().len(), calls.len()), (3, 2));
    run(&["notify"]).0.expect(0);

    // Nobody can be told: the exit codes are the same.
    let alone = bench.run(["run"]).expect(0);
    assert!(
        alone.stderr.contains("warning: notify: TEST_BEAT was not told of start: the variable is not set"),
        "{alone:?}"
    );
    fs::remove_file(bench.path("dump")).expect("removed");
    bench.run(["run"]).expect(1);
    let tested = bench.run(["notify", "--test"]).expect(1);
    assert!(tested.stdout.contains("TEST_HOOK: NOT DELIVERED: the variable is not set"), "{tested:?}");
    assert!(tested.message().contains("2 of 3 could not be told"));
    write_plan(&bench, "[[domain]]\nname = 'a'\npaths = ['/a']\n");
    assert!(bench.run(["notify"]).expect(2).message().contains("names nobody who is to be told"));
}

/// Takes calls and refuses each.
fn refusing() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.expect("a call"));
            let (mut line, mut length) = (String::new(), 0);
            while line != "\r\n" {
                line.clear();
                reader.read_line(&mut line).expect("a line");
                let value = line.to_ascii_lowercase();
                let value = value
                    .strip_prefix("content-length:")
                    .map(|value| value.trim().parse().expect("a number"));
                length = value.unwrap_or(length);
            }
            reader.read_exact(&mut vec![0; length]).expect("a body");
            let answer =
                b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            reader.get_mut().write_all(answer).expect("sent");
        }
    });
    address
}

#[test]
fn a_webhook_that_refuses_is_told_of_changes_no_exit_code_and_is_tried_again() {
    let bench = planned(NOTIFIED);
    let (taking, calls) = listener();
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let run = |hook: &str, args: &[&str]| {
        let mut command = bench.command();
        Run::of(
            command
                .args(args)
                .env("TEST_HOOK", format!("{hook}/secret"))
                .env("TEST_BEAT", format!("{hook}/secret")),
        )
    };
    for (hook, reason) in
        [(refusing(), "it answered with status 500"), (format!("http://{nobody}"), "it cannot be reached: ")]
    {
        let failed = run(&hook, &["run"]).expect(1);
        let told = format!("warning: notify: TEST_HOOK was not told of failure: {reason}");
        assert!(failed.stderr.contains(&told), "{failed:?}");
        assert!(!failed.stderr.contains("/secret"), "an address is a secret: {failed:?}");
        let tested = run(&hook, &["notify", "--test"]).expect(1);
        assert!(tested.stdout.contains(&format!("TEST_HOOK: NOT DELIVERED: {reason}")), "{tested:?}");
        let error = run(&hook, &["notify", "--test", "--json"]).expect(1).last("error");
        assert_eq!(error["code"], "notify");
    }
    run(&taking, &["run"]).expect(1);
    let told: Vec<_> = calls.try_iter().map(|(first, _)| first).collect();
    assert!(told.contains(&"POST /secret HTTP/1.1".to_owned()), "nobody was told before: {told:?}");
    bench.write("dump", "x");
    run(&format!("http://{nobody}"), &["run"]).expect(0);
}
