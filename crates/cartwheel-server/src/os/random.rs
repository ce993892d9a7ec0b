//! Random bytes from the operating system, for what must not repeat: identities, secrets, seeds.

/// The operating system returned no random bytes.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("cannot get random bytes from the operating system: {0}; a node cannot draw its identity without them")]
pub struct NoRandomness(#[from] getrandom::Error);

/// `N` random bytes.
///
/// # Errors
/// If the operating system returns none.
pub fn bytes<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// A random number.
///
/// # Errors
/// If the operating system returns none.
pub fn number() -> Result<u64, NoRandomness> {
    bytes().map(u64::from_be_bytes)
}
