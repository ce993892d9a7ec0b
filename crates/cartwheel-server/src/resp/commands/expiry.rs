//! Commands on when values expire.

use cartwheel_core::value::hlc::WallMs;

use super::Call;
use super::strings::expiry_ms;
use crate::os::clock;
use crate::resp::error::{CommandError, NOT_AN_INTEGER};
use crate::resp::keys::{Held, Rewrite};
use crate::resp::parser::integer;
use crate::resp::reply::Reply;

/// A time as a command gives it.
#[derive(Clone, Copy)]
pub(super) struct GivenTime {
    amount: i64,
    ms_each: i64,
    is_absolute: bool,
}

fn invalid(command: &str) -> CommandError {
    CommandError::other(format!("invalid expire time in '{command}' command"))
}

impl GivenTime {
    /// The time of an option of SET and GETEX; none if it is no such option.
    pub(super) fn parse(option: &[u8], amount: &[u8], command: &str) -> Result<Option<Self>, CommandError> {
        let (ms_each, is_absolute) = match option {
            b"EX" => (1_000, false),
            b"PX" => (1, false),
            b"EXAT" => (1_000, true),
            b"PXAT" => (1, true),
            _ => return Ok(None),
        };
        let amount = integer(amount).ok_or(NOT_AN_INTEGER)?;
        if amount <= 0 {
            return Err(invalid(command));
        }
        Ok(Some(Self { amount, ms_each, is_absolute }))
    }

    /// When that is; a time before 1970 counts as 1970.
    pub(super) fn at(self, now: WallMs, command: &str) -> Result<WallMs, CommandError> {
        let base = if self.is_absolute { 0 } else { i64::try_from(now.0).unwrap_or(i64::MAX) };
        let at = self.amount.checked_mul(self.ms_each).and_then(|ms| ms.checked_add(base));
        let at = at.ok_or_else(|| invalid(command))?;
        Ok(WallMs(u64::try_from(at).unwrap_or(0)))
    }
}

/// Makes a value expire at a time, or never. If the time has passed, the value is deleted.
pub(super) fn rewrite(expires: Option<WallMs>, now: WallMs) -> Rewrite {
    match expires {
        Some(at) if at <= now => Rewrite::Delete,
        expires => Rewrite::Expires(expires),
    }
}

/// The conditions of EXPIRE and the like.
#[derive(Clone, Copy, Default)]
struct Conditions {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

impl Conditions {
    fn parse<'a>(options: impl Iterator<Item = &'a [u8]>) -> Result<Self, CommandError> {
        let mut given = Self::default();
        for option in options {
            match &option.to_ascii_uppercase()[..] {
                b"NX" => given.nx = true,
                b"XX" => given.xx = true,
                b"GT" => given.gt = true,
                b"LT" => given.lt = true,
                _ => {
                    let option = String::from_utf8_lossy(option);
                    return Err(CommandError::other(format!("Unsupported option {option}")));
                }
            }
        }
        if given.nx && (given.xx || given.gt || given.lt) {
            return Err(CommandError::other("NX and XX, GT or LT options at the same time are not compatible"));
        }
        if given.gt && given.lt {
            return Err(CommandError::other("GT and LT options at the same time are not compatible"));
        }
        Ok(given)
    }

    /// Whether a value that expires at `present` may expire at `new` instead. One that never expires counts as later than any time.
    fn allow(self, present: Option<WallMs>, new: WallMs) -> bool {
        let Self { nx, xx, gt, lt } = self;
        !(nx && present.is_some()
            || xx && present.is_none()
            || gt && present.is_none_or(|present| new <= present)
            || lt && present.is_some_and(|present| new >= present))
    }
}

async fn expire(call: Call, ms_each: i64, is_absolute: bool, name: &'static str) -> Result<Reply, CommandError> {
    let conditions = Conditions::parse(call.command.from(3))?;
    let amount = integer(call.command.get(2)).ok_or(NOT_AN_INTEGER)?;
    let at = GivenTime { amount, ms_each, is_absolute }.at(clock::wall(), name)?;
    let change = |held: &Held| conditions.allow(held.expires, at).then(|| rewrite(Some(at), clock::wall()));
    let (_, is_changed) = call.db.rewrite(&call.key(1)?, change).await?;
    Ok(Reply::yes_or_no(is_changed))
}

pub(super) async fn expire_seconds(call: Call) -> Result<Reply, CommandError> {
    expire(call, 1_000, false, "expire").await
}

pub(super) async fn pexpire(call: Call) -> Result<Reply, CommandError> {
    expire(call, 1, false, "pexpire").await
}

pub(super) async fn expireat(call: Call) -> Result<Reply, CommandError> {
    expire(call, 1_000, true, "expireat").await
}

pub(super) async fn pexpireat(call: Call) -> Result<Reply, CommandError> {
    expire(call, 1, true, "pexpireat").await
}

pub(super) async fn persist(call: Call) -> Result<Reply, CommandError> {
    let change = |held: &Held| held.expires.map(|_| Rewrite::Expires(None));
    let (_, is_changed) = call.db.rewrite(&call.key(1)?, change).await?;
    Ok(Reply::yes_or_no(is_changed))
}

/// -2 without a key, -1 if it never expires, else what `shown` makes of the time in milliseconds.
async fn shown(call: Call, shown: impl FnOnce(i64) -> i64) -> Result<Reply, CommandError> {
    let held = call.db.read(&call.key(1)?).await?;
    Ok(Reply::Integer(match held.map(|held| expiry_ms(held.expires)) {
        None => -2,
        Some(-1) => -1,
        Some(ms) => shown(ms),
    }))
}

const fn rounded_seconds(ms: i64) -> i64 {
    ms.saturating_add(500) / 1_000
}

fn left(ms: i64) -> i64 {
    ms.saturating_sub(i64::try_from(clock::wall().0).unwrap_or(i64::MAX)).max(0)
}

pub(super) async fn ttl(call: Call) -> Result<Reply, CommandError> {
    shown(call, |ms| rounded_seconds(left(ms))).await
}

pub(super) async fn pttl(call: Call) -> Result<Reply, CommandError> {
    shown(call, left).await
}

pub(super) async fn expiretime(call: Call) -> Result<Reply, CommandError> {
    shown(call, rounded_seconds).await
}

pub(super) async fn pexpiretime(call: Call) -> Result<Reply, CommandError> {
    shown(call, |ms| ms).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_compare_with_the_present_time() {
        let allow = |given: &str, present: Option<u64>| {
            let conditions = Conditions::parse(given.split_whitespace().map(str::as_bytes)).ok()?;
            Some(conditions.allow(present.map(WallMs), WallMs(10)))
        };
        for (given, never, earlier, same, later) in [
            ("", true, true, true, true),
            ("nx", true, false, false, false),
            ("XX", false, true, true, true),
            ("GT", false, true, false, false),
            ("LT", true, false, false, true),
            ("XX LT", false, false, false, true),
        ] {
            let answers = [None, Some(9), Some(10), Some(11)].map(|present| allow(given, present));
            assert_eq!(answers, [never, earlier, same, later].map(Some), "{given}");
        }
        for refused in ["NX XX", "nx gt", "GT LT", "ZZ"] {
            assert_eq!(allow(refused, None), None);
        }
    }

    #[test]
    fn times_that_do_not_fit_are_refused() {
        let now = WallMs(1_000_000);
        let at = |option: &str, amount: &str| {
            GivenTime::parse(option.as_bytes(), amount.as_bytes(), "set").ok()??.at(now, "set").ok().map(|at| at.0)
        };
        assert_eq!(at("EX", "5"), Some(1_005_000));
        assert_eq!(at("PX", "5"), Some(1_000_005));
        assert_eq!(at("EXAT", "5"), Some(5_000));
        assert_eq!(at("PXAT", "9223372036854775807"), Some(i64::MAX as u64));
        for (option, amount) in [
            ("EX", "0"),
            ("PX", "-1"),
            ("EX", "9223372036854775807"),
            ("PX", "9223372036854775807"),
            ("EX", "x"),
            ("NX", "1"),
        ] {
            assert_eq!(at(option, amount), None, "{option} {amount}");
        }
    }
}
