//! What each command is called, how many arguments it has, and which of them are keys.

use super::Run::{Later, Now, Read, Refused};
use super::{Reason, Run};
use super::{client, cluster, connection, expiry, introspection, keyspace, listing, native, server, strings};

/// A command's place in the table.
pub(in crate::resp) struct Spec {
    /// Its name, in small letters.
    pub(in crate::resp) name: &'static str,
    /// The number of its arguments, its name included; as a negative number the least number.
    pub(in crate::resp) arity: i64,
    /// What `COMMAND INFO` calls its flags.
    pub(in crate::resp) flags: &'static [&'static str],
    /// The positions of its first and last key, and the distance between keys; 0 without keys. A negative last position counts from the end.
    pub(in crate::resp) keys: (i64, i64, i64),
    /// What `COMMAND DOCS` calls its group.
    pub(in crate::resp) group: &'static str,
    /// What it does.
    pub(in crate::resp) summary: &'static str,
    pub(in crate::resp) run: Run,
}

impl Spec {
    /// Whether a request has as many arguments as the command takes.
    pub(in crate::resp) const fn takes(&self, arguments: usize) -> bool {
        let arguments = arguments as i64;
        if self.arity >= 0 { arguments == self.arity } else { arguments >= -self.arity }
    }

    /// The positions of the keys among so many arguments.
    pub(in crate::resp) fn key_positions(&self, arguments: usize) -> impl Iterator<Item = usize> + use<> {
        let (first, last, step) = self.keys;
        let last = if last < 0 { arguments as i64 + last } else { last };
        let none = first == 0 || step == 0;
        (first..=if none { first - 1 } else { last }).step_by(step.max(1) as usize).map(|at| at as usize)
    }

    /// Whether it names the bucket of its key.
    pub(in crate::resp) fn is_native(&self) -> bool {
        self.group == "cartwheel"
    }

    /// Whether it is about all keys of a database.
    pub(in crate::resp) fn is_on_all_keys(&self) -> bool {
        ["cluster", "dbsize", "flushall", "flushdb", "keys", "randomkey", "scan"].contains(&self.name)
    }

    /// Whether it reads keys.
    pub(in crate::resp) fn is_read(&self) -> bool {
        self.flags.contains(&"readonly")
    }

    /// Whether it changes keys.
    pub(in crate::resp) fn is_write(&self) -> bool {
        self.flags.contains(&"write")
    }
}

const NONE: (i64, i64, i64) = (0, 0, 0);
const ONE: (i64, i64, i64) = (1, 1, 1);
const ALL: (i64, i64, i64) = (1, -1, 1);
const PAIRS: (i64, i64, i64) = (1, -1, 2);
const SECOND: (i64, i64, i64) = (2, 2, 1);

const READ: &[&str] = &["readonly", "fast"];
const WRITE: &[&str] = &["write", "denyoom"];
const DELETE: &[&str] = &["write"];
const STATE: &[&str] = &["noscript", "loading", "stale", "fast", "no_auth", "allow_busy"];
const ADMIN: &[&str] = &["admin", "noscript", "loading", "stale"];
const ANSWERED: &[&str] = &["loading", "stale", "fast"];

macro_rules! begins {
    ($command:path) => {
        |call| Box::pin(async move { $command(call).await.into() })
    };
}

macro_rules! later {
    ($command:path) => {
        Later(begins!($command))
    };
}

macro_rules! commands {
    ($($name:literal $arity:literal $flags:ident $keys:ident $group:literal $run:expr, $summary:literal;)*) => {
        /// All commands, by name.
        pub(in crate::resp) static TABLE: &[Spec] = &[$(Spec {
            name: $name, arity: $arity, flags: $flags, keys: $keys, group: $group, summary: $summary, run: $run,
        }),*];
    };
}

const AGREE: Run = Refused(Reason::NeedsAgreement);
const TRANSACTION: Run = Refused(Reason::Transactions);
const CHANNEL: Run = Refused(Reason::Channels);

// In the order of their names: they are found by binary search.
commands! {
    "acl" -2 ADMIN NONE "server" Now(connection::acl), "Says which user the connection has.";
    "append" 3 WRITE ONE "string" AGREE, "Appends to a value.";
    "asking" 1 STATE NONE "cluster" Now(connection::ok), "Does nothing: no slot is ever between two nodes.";
    "auth" -2 STATE NONE "connection" Now(connection::auth), "Authenticates the connection.";
    "client" -2 STATE NONE "connection" Now(client::client), "Shows and changes what the node knows of connections.";
    "cluster" -2 ADMIN NONE "cluster" later!(cluster::cluster), "Shows the cluster to clients that follow slots.";
    "command" -1 ANSWERED NONE "server" Now(introspection::command), "Describes the commands.";
    "config" -2 ADMIN NONE "server" Now(server::config), "Shows settings under the names that Redis has for them.";
    "cw.del" -3 DELETE SECOND "cartwheel" later!(native::del), "Deletes what a context has seen, or what a get sees.";
    "cw.get" -3 READ SECOND "cartwheel" later!(native::get), "Returns a context, and all siblings of a key.";
    "cw.put" -4 WRITE SECOND "cartwheel" later!(native::put), "Stores a value that replaces what a context has seen.";
    "cw.ring" 1 ANSWERED NONE "cartwheel" Now(native::ring), "Returns the ring as JSON.";
    "dbsize" 1 READ NONE "server" later!(listing::dbsize), "Counts the keys.";
    "decr" 2 WRITE ONE "string" AGREE, "Subtracts 1 from a number.";
    "decrby" 3 WRITE ONE "string" AGREE, "Subtracts from a number.";
    "del" -2 DELETE ALL "generic" later!(keyspace::del), "Deletes keys; returns how many there were.";
    "discard" 1 STATE NONE "transactions" TRANSACTION, "Ends a transaction.";
    "echo" 2 ANSWERED NONE "connection" Now(connection::echo), "Returns its argument.";
    "exec" 1 STATE NONE "transactions" TRANSACTION, "Carries out a transaction.";
    "exists" -2 READ ALL "generic" later!(keyspace::exists), "Counts how many of the keys exist.";
    "expire" -3 WRITE ONE "generic" later!(expiry::expire_seconds), "Lets a key expire in so many seconds.";
    "expireat" -3 WRITE ONE "generic" later!(expiry::expireat), "Lets a key expire at a time in seconds since 1970.";
    "expiretime" 2 READ ONE "generic" later!(expiry::expiretime), "Returns when a key expires, in seconds since 1970.";
    "flushall" -1 DELETE NONE "server" later!(listing::flushall), "Deletes all keys of all databases.";
    "flushdb" -1 DELETE NONE "server" later!(listing::flushdb), "Deletes all keys of the database.";
    "function" -2 ADMIN NONE "scripting" Now(server::function), "Does nothing: there are no functions.";
    "get" 2 READ ONE "string" Read(strings::get_at_once, begins!(strings::get)), "Returns the value of a key.";
    "getdel" 2 DELETE ONE "string" later!(strings::getdel), "Returns the value of a key and deletes it.";
    "getex" -2 WRITE ONE "string" later!(strings::getex), "Returns the value of a key and changes when it expires.";
    "getrange" 4 READ ONE "string" later!(strings::getrange), "Returns a part of a value.";
    "getset" 3 WRITE ONE "string" later!(strings::getset), "Stores a value and returns the one before.";
    "hello" -1 STATE NONE "connection" Now(connection::hello), "Chooses the version of the protocol.";
    "incr" 2 WRITE ONE "string" AGREE, "Adds 1 to a number.";
    "incrby" 3 WRITE ONE "string" AGREE, "Adds to a number.";
    "incrbyfloat" 3 WRITE ONE "string" AGREE, "Adds to a number with a fraction.";
    "info" -1 ANSWERED NONE "server" Now(server::info), "Describes the node.";
    "keys" 2 READ NONE "generic" later!(listing::keys), "Returns the keys that match a pattern.";
    "lastsave" 1 ANSWERED NONE "server" Now(server::lastsave), "Returns the present time: data is always saved.";
    "memory" -2 READ SECOND "server" later!(keyspace::memory), "Returns how much space a key needs.";
    "mget" -2 READ ALL "string" later!(strings::mget), "Returns the values of keys.";
    "mset" -3 WRITE PAIRS "string" later!(strings::mset), "Stores values, each by itself.";
    "msetnx" -3 WRITE PAIRS "string" AGREE, "Stores values if none of the keys exists.";
    "multi" 1 STATE NONE "transactions" TRANSACTION, "Begins a transaction.";
    "object" -2 READ SECOND "generic" later!(keyspace::object), "Returns what Redis knows of a value's memory.";
    "persist" 2 WRITE ONE "generic" later!(expiry::persist), "Lets a key no longer expire.";
    "pexpire" -3 WRITE ONE "generic" later!(expiry::pexpire), "Lets a key expire in so many milliseconds.";
    "pexpireat" -3 WRITE ONE "generic" later!(expiry::pexpireat), "Lets a key expire at a time in milliseconds since 1970.";
    "pexpiretime" 2 READ ONE "generic" later!(expiry::pexpiretime), "Returns when a key expires, in milliseconds since 1970.";
    "ping" -1 ANSWERED NONE "connection" Now(connection::ping), "Returns PONG, or its argument.";
    "psetex" 4 WRITE ONE "string" later!(strings::psetex), "Stores a value that expires in so many milliseconds.";
    "psubscribe" -2 STATE NONE "pubsub" CHANNEL, "Listens to channels by pattern.";
    "pttl" 2 READ ONE "generic" later!(expiry::pttl), "Returns in how many milliseconds a key expires.";
    "publish" 3 STATE NONE "pubsub" CHANNEL, "Sends to a channel.";
    "pubsub" -2 STATE NONE "pubsub" CHANNEL, "Describes the channels.";
    "punsubscribe" -1 STATE NONE "pubsub" CHANNEL, "Listens to channels no longer.";
    "quit" -1 STATE NONE "connection" Now(connection::quit), "Closes the connection.";
    "randomkey" 1 READ NONE "generic" later!(listing::randomkey), "Returns any key.";
    "readonly" 1 ANSWERED NONE "cluster" Now(connection::ok), "Does nothing: every replica answers reads.";
    "readwrite" 1 ANSWERED NONE "cluster" Now(connection::ok), "Does nothing: every replica takes writes.";
    "reset" 1 STATE NONE "connection" Now(connection::reset), "Makes the connection as good as new.";
    "scan" -2 READ NONE "generic" later!(listing::scan), "Returns the keys page by page.";
    "select" 2 ANSWERED NONE "connection" Now(connection::select), "Chooses the database.";
    "set" -3 WRITE ONE "string" later!(strings::set), "Stores a value.";
    "setex" 4 WRITE ONE "string" later!(strings::setex), "Stores a value that expires in so many seconds.";
    "setnx" 3 WRITE ONE "string" AGREE, "Stores a value if the key does not exist.";
    "setrange" 4 WRITE ONE "string" AGREE, "Changes a part of a value.";
    "ssubscribe" -2 STATE NONE "pubsub" CHANNEL, "Listens to channels of a slot.";
    "strlen" 2 READ ONE "string" later!(strings::strlen), "Returns the length of a value.";
    "subscribe" -2 STATE NONE "pubsub" CHANNEL, "Listens to channels.";
    "substr" 4 READ ONE "string" later!(strings::getrange), "Returns a part of a value.";
    "sunsubscribe" -1 STATE NONE "pubsub" CHANNEL, "Listens to channels no longer.";
    "time" 1 ANSWERED NONE "server" Now(server::time), "Returns the node's time in seconds and microseconds.";
    "touch" -2 READ ALL "generic" later!(keyspace::exists), "Counts how many of the keys exist.";
    "ttl" 2 READ ONE "generic" later!(expiry::ttl), "Returns in how many seconds a key expires.";
    "type" 2 READ ONE "generic" later!(keyspace::kind), "Returns the type of a value: string.";
    "unlink" -2 DELETE ALL "generic" later!(keyspace::del), "Deletes keys; returns how many there were.";
    "unsubscribe" -1 STATE NONE "pubsub" CHANNEL, "Listens to channels no longer.";
    "unwatch" 1 STATE NONE "transactions" TRANSACTION, "Watches no keys.";
    "wait" 3 ANSWERED NONE "generic" Now(server::wait), "Returns how many replicas have stored the connection's last write.";
    "watch" -2 STATE NONE "transactions" TRANSACTION, "Watches keys for changes.";
}

/// The command that is called `name`, in small or capital letters.
pub(in crate::resp) fn find(name: &[u8]) -> Option<&'static Spec> {
    const NAME_BYTES_MAX: usize = 16;
    let mut lower = [0; NAME_BYTES_MAX];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    let at = TABLE.binary_search_by(|spec| spec.name.as_bytes().cmp(lower)).ok()?;
    Some(&TABLE[at])
}

/// The subcommands of commands that have them.
const SUBCOMMANDS: [(&str, &[&str]); 8] = [
    ("ACL", &["WHOAMI", "HELP"]),
    (
        "CLIENT",
        &["GETNAME", "HELP", "ID", "INFO", "KILL", "LIST", "NO-EVICT", "NO-TOUCH", "REPLY", "SETINFO", "SETNAME"],
    ),
    ("CLUSTER", &["COUNTKEYSINSLOT", "GETKEYSINSLOT", "INFO", "KEYSLOT", "MYID", "NODES", "SHARDS", "SLOTS", "HELP"]),
    ("COMMAND", &["COUNT", "DOCS", "GETKEYS", "HELP", "INFO", "LIST"]),
    ("CONFIG", &["GET", "HELP", "RESETSTAT", "REWRITE", "SET"]),
    ("FUNCTION", &["FLUSH", "HELP", "LIST"]),
    ("MEMORY", &["DOCTOR", "HELP", "USAGE"]),
    ("OBJECT", &["ENCODING", "FREQ", "HELP", "IDLETIME", "REFCOUNT"]),
];

/// Whether `container` has a subcommand called `name`.
pub(super) fn has_subcommand(container: &str, name: &str) -> bool {
    let subcommands = SUBCOMMANDS.iter().find(|(known, _)| *known == container).map(|(_, subcommands)| *subcommands);
    subcommands.unwrap_or_default().iter().any(|known| known.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_found_by_its_name() {
        for spec in TABLE {
            assert_eq!(find(spec.name.to_ascii_uppercase().as_bytes()).map(|found| found.name), Some(spec.name));
        }
        for name in ["", "gett", "ge", "get ", "zz", "a-very-long-name-of-no-command"] {
            assert!(find(name.as_bytes()).is_none(), "{name}");
        }
    }

    #[test]
    fn keys_are_at_the_positions_that_the_table_says() {
        let positions =
            |name: &str, arguments| find(name.as_bytes()).unwrap().key_positions(arguments).collect::<Vec<_>>();
        assert_eq!(positions("get", 2), [1]);
        assert_eq!(positions("mget", 4), [1, 2, 3]);
        assert_eq!(positions("mset", 5), [1, 3]);
        assert_eq!(positions("cw.get", 5), [2]);
        assert_eq!(positions("ping", 2), [] as [usize; 0]);
    }
}
