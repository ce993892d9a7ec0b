//! One client's connection.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, StreamExt as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::Instant;
use tracing::{debug, warn};
use xxhash_rust::xxh3::xxh3_64;

use super::VALUE_BYTES_MAX;
use super::access::{self, AdministrativeCommand};
use super::commands::{self, Call, ReadAtOnce, Run, Spec};
use super::error::CommandError;
use super::parser::{Command, NoRequest, Parsed, Parser, RequestLimits};
use super::reply::{Output, Reply, Version};
use super::session::{Replies, Session};
use crate::memory::MemoryShare;
use crate::tcp::connections::{OpenConnection, Serves};
use crate::tcp::read;

/// How many bytes are read at once, unless a longer argument is on its way.
const READ_BYTES: usize = 16 << 10;
/// What is read at once of a long argument, at most.
const LONG_READ_BYTES: usize = 256 << 10;
/// What a connection may have of a request before it takes a share of the memory for requests.
const FREE_BYTES: usize = 64 << 10;
/// How many commands of one connection are carried out at once.
const AT_ONCE: usize = 64;
/// How many commands are parsed before replies are written.
const BATCH_MAX: usize = 1_024;
/// The longest request: many arguments, each of which may be long.
const REQUEST_BYTES_MAX: usize = 64 << 20;
/// How long the rest of a request may take to arrive.
const REQUEST_WITHIN: Duration = Duration::from_secs(60);
/// How long a client may read nothing of a reply that is ready.
const WRITE_WITHIN: Duration = Duration::from_secs(30);

const LIMITS: RequestLimits = RequestLimits { argument_bytes: VALUE_BYTES_MAX, request_bytes: REQUEST_BYTES_MAX };

/// A connection with its buffers.
pub(super) struct RespConnection<S> {
    stream: S,
    session: Session,
    parser: Parser,
    /// What was read and not taken yet.
    arrived: BytesMut,
    /// Its share of the memory for requests.
    share: Option<MemoryShare>,
    output: Output,
    /// The keys of the commands that are carried out.
    used: KeysInUse,
    /// A command that waits for those before it.
    waits: Option<Command>,
    /// What the last command was: the next one is often the same.
    last: Option<&'static Spec>,
    guard: OpenConnection,
}

/// A command under way, and how its reply is written.
struct UnderWay {
    reply: BoxFuture<'static, Reply>,
    version: Version,
    is_wanted: bool,
}

/// What became of a command.
enum Begun {
    /// Its reply is written.
    Written,
    /// It has its reply.
    Ended(Reply),
    /// It is carried out beside others.
    UnderWay(BoxFuture<'static, Reply>),
}

impl<S: AsyncRead + AsyncWrite + Unpin> RespConnection<S> {
    pub(super) fn new(stream: S, session: Session, guard: OpenConnection) -> Self {
        Self {
            stream,
            session,
            parser: Parser::new(LIMITS),
            arrived: BytesMut::new(),
            share: None,
            output: Output::default(),
            used: KeysInUse::default(),
            waits: None,
            last: None,
            guard,
        }
    }

    /// Serves commands until one of the sides has had enough.
    pub(super) async fn serve(mut self) -> io::Result<()> {
        if self.guard.serves() != Serves::All {
            self.output.push(Reply::error("ERR max number of clients reached"), Version::Two);
            self.flush().await?;
            return self.stream.shutdown().await;
        }
        while self.read().await? {
            self.guard.set_busy();
            self.session.client.seen();
            let goes_on = self.carry_out().await?;
            self.flush().await?;
            if !goes_on || self.session.quits {
                self.discard().await;
                break;
            }
            if self.guard.is_stopping() && !self.parser.is_within(&self.arrived) {
                break;
            }
            self.guard.set_idle();
        }
        self.stream.shutdown().await
    }

    /// Reads some bytes. Returns false if there will be none, or the node stops.
    async fn read(&mut self) -> io::Result<bool> {
        let is_within = self.parser.is_within(&self.arrived);
        if !is_within {
            self.share = None;
            if self.arrived.capacity() > READ_BYTES {
                self.arrived = BytesMut::new();
            }
        }
        let wanted = self.parser.wanted(&self.arrived);
        let Self { stream, arrived, guard, .. } = self;
        let read = async {
            if wanted > READ_BYTES {
                // Memory grows with what arrives, not with what is announced.
                arrived.reserve(wanted.min(LONG_READ_BYTES.max(arrived.len())));
                return stream.read_buf(arrived).await;
            }
            poll_fn(|cx| {
                if let Poll::Ready(read) = read::poll_some::<READ_BYTES, _>(Pin::new(&mut *stream), cx, arrived) {
                    return Poll::Ready(read);
                }
                if !is_within && guard.poll_stopping(cx).is_ready() { Poll::Ready(Ok(0)) } else { Poll::Pending }
            })
            .await
        };
        let bytes = match is_within {
            true => tokio::time::timeout(REQUEST_WITHIN, read).await.map_err(|_| io::ErrorKind::TimedOut)??,
            false => read.await?,
        };
        if self.arrived.len() > FREE_BYTES {
            let requests = self.session.api().requests();
            let share = self.share.get_or_insert_with(|| requests.nothing());
            let needed = self.arrived.capacity();
            if needed > share.bytes() && share.grow_to(requests, needed).is_err() {
                self.parser.refuse("too many large commands are arriving: try again in a moment");
            }
        }
        Ok(bytes > 0)
    }

    /// Carries out what has arrived. Returns whether the connection goes on.
    async fn carry_out(&mut self) -> io::Result<bool> {
        let mut replies = VecDeque::new();
        self.session.renew_access();
        loop {
            self.parser.set_unknown(self.session.is_unknown());
            self.used.clear();
            let mut batch = 0;
            let ended = loop {
                if batch >= BATCH_MAX || self.session.quits {
                    break None;
                }
                let command = match self.waits.take() {
                    Some(command) => command,
                    None => match self.parser.next(&mut self.arrived) {
                        Ok(Some(Parsed::Command(command))) => command,
                        Ok(Some(Parsed::TooLarge(why))) => {
                            self.add(&mut replies, Begun::Ended(CommandError::other(why).into()));
                            continue;
                        }
                        Ok(None) => break Some(Ok(())),
                        Err(error) => break Some(Err(error)),
                    },
                };
                let spec = self.find(&command);
                if let Some(spec) = spec
                    && !self.used.add(spec, &command)
                {
                    self.waits = Some(command);
                    break None;
                }
                batch += 1;
                if let Some(login) = spec.and_then(|spec| access::credentials(&self.session, spec, &command)) {
                    let (user, password) = (login.0.to_vec(), login.1.to_vec());
                    let logged_in = self.session.authenticate(&user, &password).await;
                    self.parser.set_unknown(self.session.is_unknown());
                    if let Err(error) = logged_in {
                        self.add(&mut replies, Begun::Ended(error.into()));
                        continue;
                    }
                }
                let begun = match self.begin(spec, command, replies.is_empty()) {
                    // Much can be answered at once, and needs no place among the others.
                    Begun::UnderWay(mut reply) => match poll_fn(|cx| Poll::Ready(reply.as_mut().poll(cx))).await {
                        Poll::Ready(reply) => Begun::Ended(reply),
                        Poll::Pending => Begun::UnderWay(reply),
                    },
                    ended => ended,
                };
                self.add(&mut replies, begun);
            };
            self.session.api().count_commands(batch);
            self.finish(&mut replies).await;
            match ended {
                Some(Ok(())) => return Ok(true),
                Some(Err(NoRequest(why))) => {
                    debug!(why, "a Redis client broke the protocol");
                    self.output.push(Reply::error(why), self.session.version);
                    return Ok(false);
                }
                None if self.session.quits => return Ok(true),
                None => self.flush().await?,
            }
        }
    }

    /// What a command is called in the table of commands.
    fn find(&mut self, command: &Command) -> Option<&'static Spec> {
        let name = command.get(0);
        let is_same = |spec: &&Spec| spec.name.as_bytes().eq_ignore_ascii_case(name);
        self.last = self.last.filter(is_same).or_else(|| commands::find(name));
        self.last
    }

    /// Begins a command. If it `is_next`, all replies before its own are written.
    fn begin(&mut self, spec: Option<&'static Spec>, command: Command, is_next: bool) -> Begun {
        let Some(spec) = spec else {
            // A web page has made a browser send HTTP. What follows may be commands.
            self.session.quits |= WEB.iter().any(|start| command.get(0).eq_ignore_ascii_case(start));
            return Begun::Ended(commands::unknown(&command).into());
        };
        if !spec.takes(command.len()) {
            return Begun::Ended(commands::wrong_number_of_arguments(spec.name).into());
        }
        let checked = access::check(&self.session, spec, &command);
        if let Err(error) = checked.and_then(|()| self.session.check_slots(spec, &command)) {
            return Begun::Ended(error.into());
        }
        let act = AdministrativeCommand::begin(&self.session, spec, &command);
        match spec.run {
            Run::Refused(reason) => Begun::Ended(reason.error(spec.name).into()),
            Run::Now(run) => {
                let reply = run(&mut self.session, &command).into();
                if let Some(act) = act {
                    act.end(&reply);
                }
                Begun::Ended(reply)
            }
            Run::Read(run, _) if is_next && self.answers_at_once(run, &command) => Begun::Written,
            Run::Later(run) | Run::Read(_, run) => {
                // An overloaded node does nothing else for it.
                if let Err(refusal) = self.session.api().backend().shards.admits_any() {
                    return Begun::Ended(CommandError::from(refusal).into());
                }
                let share = self.share_of(&command);
                let reply = run(Call { db: self.session.db.clone(), command });
                match (share, act) {
                    (None, None) => Begun::UnderWay(reply),
                    (share, act) => Begun::UnderWay(Box::pin(async move {
                        let reply = reply.await;
                        drop(share);
                        if let Some(act) = act {
                            act.end(&reply);
                        }
                        reply
                    })),
                }
            }
        }
    }

    /// Writes the reply to a read, if it can be said at once what it is.
    fn answers_at_once(&mut self, read: ReadAtOnce, command: &Command) -> bool {
        let Session { db, replies, version, .. } = &self.session;
        *replies == Replies::On && read(db, command, &mut self.output, *version)
    }

    /// The share of the memory that a large command keeps until it has ended.
    fn share_of(&mut self, command: &Command) -> Option<MemoryShare> {
        if command.size() > FREE_BYTES { self.share.take() } else { None }
    }

    fn add(&mut self, replies: &mut VecDeque<UnderWay>, begun: Begun) {
        let (version, is_wanted) = (self.session.version, self.session.is_reply_wanted());
        let reply: BoxFuture<'static, Reply> = match begun {
            Begun::Ended(reply) if replies.is_empty() => {
                self.push(reply, version, is_wanted);
                return;
            }
            Begun::Ended(reply) => Box::pin(std::future::ready(reply)),
            Begun::Written => return,
            Begun::UnderWay(reply) => reply,
        };
        replies.push_back(UnderWay { reply, version, is_wanted });
    }

    /// Waits for the replies, in order.
    async fn finish(&mut self, replies: &mut VecDeque<UnderWay>) {
        if replies.len() <= 1 {
            if let Some(UnderWay { reply, version, is_wanted }) = replies.pop_front() {
                let reply = reply.await;
                self.push(reply, version, is_wanted);
            }
            return;
        }
        let mut working = FuturesOrdered::new();
        let mut forms = VecDeque::new();
        loop {
            while working.len() < AT_ONCE
                && let Some(UnderWay { reply, version, is_wanted }) = replies.pop_front()
            {
                working.push_back(reply);
                forms.push_back((version, is_wanted));
            }
            let (Some(reply), Some((version, is_wanted))) = (working.next().await, forms.pop_front()) else { return };
            self.push(reply, version, is_wanted);
        }
    }

    fn push(&mut self, reply: Reply, version: Version, is_wanted: bool) {
        if let Reply::Error(text) = &reply
            && FAILURES.iter().any(|code| text.starts_with(code))
        {
            debug!(why = %text, "a command failed");
            if let Some(count) = self.session.api().failures().count(1) {
                warn!(why = %text, failures = count, "commands of Redis clients failed");
            }
        }
        if is_wanted {
            self.output.push(reply, version);
        }
    }

    /// Writes what has gathered.
    async fn flush(&mut self) -> io::Result<()> {
        let Self { stream, output, .. } = self;
        let too_slow = |_| io::Error::new(io::ErrorKind::TimedOut, "the client does not read its replies");
        while let Some(front) = output.front() {
            // A timer is needed only if the client does not read.
            let at_once = poll_fn(|cx| Poll::Ready(Pin::new(&mut *stream).poll_write(cx, front))).await;
            let written = match at_once {
                Poll::Ready(written) => written?,
                Poll::Pending => tokio::time::timeout(WRITE_WITHIN, stream.write(front)).await.map_err(too_slow)??,
            };
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            output.advance(written);
        }
        // TLS may have kept a part.
        match poll_fn(|cx| Poll::Ready(Pin::new(&mut *stream).poll_flush(cx))).await {
            Poll::Ready(flushed) => flushed,
            Poll::Pending => tokio::time::timeout(WRITE_WITHIN, stream.flush()).await.map_err(too_slow)?,
        }
    }

    /// Closes the sending side, and discards what the client still sends: a client that is cut off while it sends may never read the reply.
    async fn discard(&mut self) {
        const BYTES_MAX: usize = 8 << 20;
        const WITHIN: Duration = Duration::from_secs(1);
        let _ = self.stream.shutdown().await;
        let until = Instant::now() + WITHIN;
        let mut discarded = 0;
        while discarded < BYTES_MAX {
            self.arrived.clear();
            self.arrived.reserve(READ_BYTES);
            match tokio::time::timeout_at(until, self.stream.read_buf(&mut self.arrived)).await {
                Ok(Ok(read @ 1..)) => discarded += read,
                _ => return,
            }
        }
    }
}

/// How lines of HTTP begin that a browser sends.
const WEB: [&[u8]; 2] = [b"POST", b"Host:"];

/// The codes of errors of the node or the cluster, which are logged.
const FAILURES: [&str; 4] = ["TRYAGAIN ", "NOREPLICAS ", "CLUSTERDOWN ", "DISKFULL "];

/// The keys of commands that are carried out at once. A write of a key waits for what came before it on the same key, and what comes after waits for it.
#[derive(Default)]
struct KeysInUse {
    /// Hashes of names, and whether the key is written. Two keys of one hash merely wait for each other.
    keys: Vec<(u64, bool)>,
    /// A command on all keys: everything after it waits.
    is_all: bool,
}

impl KeysInUse {
    /// The most keys that are compared: further commands wait.
    const MAX: usize = 4 * AT_ONCE;

    /// Keeps little memory, because the connection may be idle for long.
    fn clear(&mut self) {
        self.keys.clear();
        self.keys.shrink_to(AT_ONCE);
        self.is_all = false;
    }

    /// Adds a command's keys, unless the command has to wait.
    fn add(&mut self, spec: &Spec, command: &Command) -> bool {
        let writes = spec.is_write();
        let before = self.keys.len();
        // A command with many keys would be compared for long. `WAIT` is about the writes before it.
        let comes_alone = command.len() > Self::MAX || spec.name == "wait" || spec.is_on_all_keys();
        if self.is_all || before > 0 && (before > Self::MAX || comes_alone) {
            return false;
        }
        self.is_all = spec.is_on_all_keys();
        for at in spec.key_positions(command.len()) {
            let key = xxh3_64(command.get(at));
            if self.keys[..before].iter().any(|&(other, is_written)| other == key && (writes || is_written)) {
                self.keys.truncate(before);
                return false;
            }
            self.keys.push((key, writes));
        }
        true
    }
}
