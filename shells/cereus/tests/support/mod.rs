//! `cereus local` as a process of its own, asked over its socket.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

pub(crate) const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../engine/models/tiny");
pub(crate) const CHAT: &str = "/v1/chat/completions";

/// A server process; killed if a test fails half-way.
pub(crate) struct Local {
    child: Child,
    out: BufReader<ChildStdout>,
    pub(crate) addr: String,
}

impl Drop for Local {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What came on one connection.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

impl Local {
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_telling(args, Stdio::inherit())
    }

    /// With its warnings, and nothing less, going there.
    pub(crate) fn start_telling(args: &[&str], warnings: impl Into<Stdio>) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_cereus"))
            .args(["local", "--listen", "127.0.0.1:0", "--json"])
            .args(args)
            .env_remove("CEREUS_LOCAL_KEY")
            .env("CEREUS_LOG", "warn")
            .stdout(Stdio::piped())
            .stderr(warnings)
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap();
        let address = said["listening"].as_str().unwrap();
        let addr = address.strip_prefix("http://").unwrap().to_owned();
        Self { child, out, addr }
    }

    /// Asks for a chat, and leaves its answer to be read.
    pub(crate) fn ask(&self, body: &Value) -> BufReader<TcpStream> {
        self.send("POST", CHAT, &[], &body.to_string())
    }

    /// HTTP/1.0: the end of an answer is the end of its connection.
    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[&str],
        body: &str,
    ) -> BufReader<TcpStream> {
        let mut stream = TcpStream::connect(&self.addr).unwrap();
        let headers: String = headers.iter().map(|it| format!("{it}\r\n")).collect();
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\n{headers}authorization: Bearer sesame\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        BufReader::new(stream)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Reply {
        whole(self.send("POST", path, &[], &body.to_string()))
    }

    pub(crate) fn interrupt(&self) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-INT", &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Its exit status, and that it said nothing after its one line.
    pub(crate) fn end(mut self) -> Option<i32> {
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "");
        self.child.wait().unwrap().code()
    }
}

/// All that comes until the connection ends.
pub(crate) fn whole(mut reader: BufReader<TcpStream>) -> Reply {
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Reply {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

pub(crate) fn question(stream: bool) -> Value {
    json!({"messages": [{"role": "user", "content": "What is Cereus?"}], "stream": stream,
        "temperature": 0, "max_tokens": 200})
}
