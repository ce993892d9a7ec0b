//! Randomness from the operating system, for what must not repeat: identities, secrets, seeds.

/// The operating system has no randomness to give.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the operating system gave no random bytes ({0}): a node cannot draw its identity without them")]
pub struct NoRandomness(#[from] getrandom::Error);

/// `N` random bytes.
///
/// # Errors
/// If the operating system has none to give.
pub fn bytes<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// A random number.
///
/// # Errors
/// If the operating system has none to give.
pub fn number() -> Result<u64, NoRandomness> {
    bytes().map(u64::from_be_bytes)
}
