//! Keeps so many streams open at once over connections that are kept, and counts what comes.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::{Contestant, MODEL, Outcome, Shape};

/// Bytes read at once.
const READ_SIZE: usize = 16 << 10;
/// Between two tries while a server comes up.
const RETRY: Duration = Duration::from_millis(100);

/// One request, ready to be written again and again.
#[derive(Clone)]
pub(crate) struct Asked {
    addr: String,
    request: Vec<u8>,
    shape: Shape,
}

/// What one round measured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Round {
    pub(crate) requests: u64,
    pub(crate) events: u64,
    pub(crate) elapsed: Duration,
    /// Microseconds to each first event, or to the whole of a plain answer; sorted.
    pub(crate) first_us: Vec<u64>,
    pub(crate) front_cpu_us: u64,
    pub(crate) behind_cpu_us: u64,
    pub(crate) front_kib: u64,
    pub(crate) behind_kib: u64,
}

impl Round {
    pub(crate) fn requests_per_s(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }

    pub(crate) fn events_per_s(&self) -> f64 {
        self.events as f64 / self.elapsed.as_secs_f64()
    }

    pub(crate) fn first_ms(&self, percent: usize) -> f64 {
        let last = self.first_us.len().saturating_sub(1);
        let us = self
            .first_us
            .get(last * percent / 100)
            .copied()
            .unwrap_or(0);
        us as f64 / 1_000.0
    }

    /// The round whose throughput lies in the middle.
    pub(crate) fn middle(mut rounds: Vec<Self>) -> Option<Self> {
        rounds.sort_by(|a, b| a.requests_per_s().total_cmp(&b.requests_per_s()));
        let middle = rounds.len() / 2;
        rounds.into_iter().nth(middle)
    }
}

impl Asked {
    pub(crate) fn new(addr: String, key: &str, shape: Shape) -> Self {
        let (is_streamed, tokens_max) = match shape {
            Shape::Plain => (false, 8),
            Shape::Streamed { pieces } => (true, pieces * 2),
        };
        let body = format!(
            "{{\"model\":\"{MODEL}\",\"stream\":{is_streamed},\"max_tokens\":{tokens_max},\
             \"messages\":[{{\"role\":\"user\",\"content\":\"Say it again, please.\"}}]}}"
        );
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: {addr}\r\nAuthorization: Bearer {key}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        Self {
            addr,
            request: request.into_bytes(),
            shape,
        }
    }

    /// Waits until one whole answer came.
    pub(crate) fn until_served(&self, wait_max: Duration) -> Outcome<()> {
        let began = Instant::now();
        loop {
            let asked = self.clone();
            let once = run(async move { Connection::open(&asked.addr).await?.ask(&asked).await });
            match once {
                Ok(_) => return Ok(()),
                Err(why) if began.elapsed() > wait_max => {
                    return Err(format!("no answer in {} s: {why}", wait_max.as_secs()));
                }
                Err(_) => std::thread::sleep(RETRY),
            }
        }
    }
}

fn run<T>(work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("the system gives no event loop: {error}"))?
        .block_on(work)
}

/// One round against one contestant.
pub(crate) fn drive(
    contestant: &Contestant,
    shape: Shape,
    concurrent: u16,
    time: Duration,
) -> Outcome<Round> {
    let cpu = |processes: &[crate::Process]| processes.iter().map(crate::Process::cpu_us).sum();
    let behind_before: u64 = cpu(&contestant.behind);
    let front_before = contestant.front.cpu_us();
    let asked = contestant.asked(shape);
    let mut round = run(async move { streams(asked, concurrent, time).await })
        .map_err(|why| format!("{}: {why}", contestant.name))?;
    round.front_cpu_us = contestant.front.cpu_us() - front_before;
    round.behind_cpu_us = cpu(&contestant.behind) - behind_before;
    round.front_kib = contestant.front.resident_kib();
    round.behind_kib = contestant
        .behind
        .iter()
        .map(crate::Process::resident_kib)
        .sum();
    round.first_us.sort_unstable();
    Ok(round)
}

async fn streams(asked: Asked, concurrent: u16, time: Duration) -> Outcome<Round> {
    let began = Instant::now();
    let mut consumers = JoinSet::new();
    for _ in 0..concurrent {
        let asked = asked.clone();
        consumers.spawn(async move {
            let mut connection = Connection::open(&asked.addr).await?;
            let mut seen = Round::default();
            while began.elapsed() < time {
                let answer = connection.ask(&asked).await?;
                seen.requests += 1;
                seen.events += u64::from(answer.events);
                seen.first_us.push(answer.first_us);
            }
            Ok::<_, String>(seen)
        });
    }
    let mut round = Round::default();
    while let Some(seen) = consumers.join_next().await {
        let seen = seen.map_err(|error| error.to_string())??;
        round.requests += seen.requests;
        round.events += seen.events;
        round.first_us.extend(seen.first_us);
    }
    round.elapsed = began.elapsed();
    Ok(round)
}

struct Answer {
    events: u32,
    first_us: u64,
}

/// What a reply's head says of its body.
#[derive(Default)]
struct Head {
    is_chunked: bool,
    length: Option<usize>,
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// One kept connection, with what was read and not yet used.
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    used: usize,
}

impl Connection {
    async fn open(addr: &str) -> Outcome<Self> {
        let stream = TcpStream::connect(addr)
            .await
            .map_err(|error| format!("cannot connect: {error}"))?;
        stream
            .set_nodelay(true)
            .map_err(|error| format!("the socket refuses TCP_NODELAY: {error}"))?;
        Ok(Self {
            stream,
            buffer: Vec::with_capacity(READ_SIZE),
            used: 0,
        })
    }

    async fn ask(&mut self, asked: &Asked) -> Outcome<Answer> {
        let began = Instant::now();
        self.stream
            .write_all(&asked.request)
            .await
            .map_err(|error| format!("cannot write: {error}"))?;
        match asked.shape {
            Shape::Plain => self.whole(began).await,
            Shape::Streamed { pieces } => self.events(began, pieces).await,
        }
    }

    /// A reply in one piece, which says how long it is.
    async fn whole(&mut self, began: Instant) -> Outcome<Answer> {
        let head = self.head().await?;
        let size = head
            .length
            .ok_or("a plain answer without its length".to_owned())?;
        self.fill(size).await?;
        let body = &self.buffer[self.used..self.used + size];
        if !body.windows(9).any(|nine| nine == b"\"choices\"") {
            return Err("a plain answer without choices".to_owned());
        }
        self.used += size;
        Ok(Answer {
            events: 1,
            first_us: micros(began),
        })
    }

    async fn events(&mut self, began: Instant, events_min: u32) -> Outcome<Answer> {
        if !self.head().await?.is_chunked {
            return Err("the answer is not streamed".to_owned());
        }
        let mut answer = Answer {
            events: 0,
            first_us: 0,
        };
        let mut tail = [0u8; 16];
        let mut was_newline = false;
        loop {
            let size = self.line().await?;
            let size = usize::from_str_radix(size.trim(), 16)
                .map_err(|_| "a chunk without its size".to_owned())?;
            if size == 0 {
                self.line().await?;
                break;
            }
            self.fill(size + 2).await?;
            let chunk = &self.buffer[self.used..self.used + size];
            for &byte in chunk {
                let is_newline = byte == b'\n';
                if is_newline && was_newline {
                    answer.events += 1;
                    if answer.events == 1 {
                        answer.first_us = micros(began);
                    }
                }
                was_newline = is_newline;
            }
            let kept = chunk.len().min(tail.len());
            tail.copy_within(kept.., 0);
            let from = tail.len() - kept;
            tail[from..].copy_from_slice(&chunk[chunk.len() - kept..]);
            self.used += size + 2;
        }
        if answer.events < events_min || !tail.ends_with(b"data: [DONE]\n\n") {
            return Err(format!("half an answer: {} events", answer.events));
        }
        Ok(answer)
    }

    async fn head(&mut self) -> Outcome<Head> {
        let status = self.line().await?;
        if !status.starts_with("HTTP/1.1 200") {
            return Err(format!("refused: {}", status.trim()));
        }
        let mut head = Head::default();
        loop {
            let line = self.line().await?.to_ascii_lowercase();
            if line.is_empty() {
                return Ok(head);
            }
            head.is_chunked |= line == "transfer-encoding: chunked";
            if let Some(length) = line.strip_prefix("content-length:") {
                head.length = length.trim().parse().ok();
            }
        }
    }

    async fn line(&mut self) -> Outcome<String> {
        loop {
            let rest = &self.buffer[self.used..];
            if let Some(length) = rest.windows(2).position(|it| it == b"\r\n") {
                let line = String::from_utf8_lossy(&rest[..length]).into_owned();
                self.used += length + 2;
                return Ok(line);
            }
            self.more().await?;
        }
    }

    async fn fill(&mut self, size: usize) -> Outcome<()> {
        while self.buffer.len() - self.used < size {
            self.more().await?;
        }
        Ok(())
    }

    async fn more(&mut self) -> Outcome<()> {
        self.buffer.drain(..self.used);
        self.used = 0;
        self.buffer.reserve(READ_SIZE);
        let count = self.stream.read_buf(&mut self.buffer).await;
        match count {
            Ok(0) => Err("the server closed the connection".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(format!("cannot read: {error}")),
        }
    }
}
