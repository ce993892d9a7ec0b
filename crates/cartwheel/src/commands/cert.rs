//! `cartwheel cert`: a certificate authority, and what it signs.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::cli::{AUTHORITY_DAYS, CaArgs, CertCommand, CertDir, ClientCertArgs, DAYS, LOCAL_HOSTS, NodeCertArgs};
use crate::terminal::exit::{Exit, Failure};
use crate::terminal::output::print;

/// Clocks differ: a certificate is valid a little earlier than now.
const VALID_BEFORE: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Makes what the command says, and prints where it is.
///
/// # Errors
/// If a name is invalid, a file cannot be read or written, or there is no authority.
pub fn run(command: &CertCommand) -> Result<ExitCode, Failure> {
    let done = match command {
        CertCommand::Ca(args) => authority(args)?,
        CertCommand::Node(args) => node(args)?,
        CertCommand::Client(args) => client(args)?,
    };
    print(done.as_bytes())?;
    Ok(Exit::Done.into())
}

/// Makes an authority in a directory, unless there is one.
///
/// # Errors
/// If a file cannot be written.
pub(super) fn authority_in(dir: &Path) -> Result<(), Failure> {
    let at = CertDir { dir: dir.to_path_buf() };
    let (cert, key) = files(&at, "ca");
    if cert.exists() && key.exists() { Ok(()) } else { authority(&CaArgs { at, days: AUTHORITY_DAYS }).map(drop) }
}

/// Makes a certificate in a directory for a node on this machine, unless there is one.
///
/// # Errors
/// If there is no authority, or a file cannot be written.
pub(super) fn node_in(dir: &Path, name: &str) -> Result<(), Failure> {
    let at = CertDir { dir: dir.to_path_buf() };
    let (cert, key) = files(&at, name);
    if cert.exists() && key.exists() {
        return Ok(());
    }
    let hosts = LOCAL_HOSTS.map(str::to_owned).into();
    node(&NodeCertArgs { name: name.to_owned(), hosts, at, days: DAYS }).map(drop)
}

fn authority(CaArgs { at, days }: &CaArgs) -> Result<String, Failure> {
    let (cert, key) = files(at, "ca");
    if cert.exists() || key.exists() {
        let dir = at.dir.display();
        return Err(Failure::other(format_args!(
            "{dir} has an authority already, and nodes may use it; give another --dir, or remove ca.crt and ca.key"
        )));
    }
    let mut params = params("Cartwheel authority", &[], *days)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let pair = KeyPair::generate().map_err(Failure::other)?;
    let made = params.self_signed(&pair).map_err(Failure::other)?;
    store(at, "ca", &made.pem(), &pair)?;
    Ok(format!(
        "made the authority {} with the key {}: keep the key away from the nodes\n",
        cert.display(),
        key.display()
    ))
}

fn node(NodeCertArgs { name, hosts, at, days }: &NodeCertArgs) -> Result<String, Failure> {
    let names: Vec<String> = std::iter::once(name).chain(hosts.iter().filter(|host| *host != name)).cloned().collect();
    let usages = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    sign(at, name, &names, usages.to_vec(), *days)?;
    let dir = at.dir.display();
    Ok(format!(
        "made {dir}/{name}.crt and {dir}/{name}.key, for {}. Start the node with: --tls-cert {dir}/{name}.crt --tls-key {dir}/{name}.key \
         --tls-ca {dir}/ca.crt\n",
        names.join(", ")
    ))
}

fn client(ClientCertArgs { name, at, days }: &ClientCertArgs) -> Result<String, Failure> {
    sign(at, name, &[], vec![ExtendedKeyUsagePurpose::ClientAuth], *days)?;
    let dir = at.dir.display();
    Ok(format!("made {dir}/{name}.crt and {dir}/{name}.key\n"))
}

/// Makes a certificate that the authority signs.
fn sign(
    at: &CertDir,
    name: &str,
    hosts: &[String],
    usages: Vec<ExtendedKeyUsagePurpose>,
    days: u32,
) -> Result<(), Failure> {
    let is_fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if name == "ca" || name.is_empty() || name.len() > 63 || name.starts_with('.') || !name.chars().all(is_fit) {
        return Err(Failure::usage(format_args!(
            "{name:?} is not a valid name: use 1 to 63 letters, digits, dots, dashes and underscores, and not ca"
        )));
    }
    let (cert, key) = files(at, "ca");
    let read = |path: &Path| {
        let hint = "make an authority first: cartwheel cert ca";
        fs::read_to_string(path)
            .map_err(|error| Failure::other(format_args!("cannot read {}: {error}; {hint}", path.display())))
    };
    let pair = KeyPair::from_pem(&read(&key)?)
        .map_err(|error| Failure::other(format_args!("cannot use the key {}: {error}", key.display())))?;
    let issuer = Issuer::from_ca_cert_pem(&read(&cert)?, pair)
        .map_err(|error| Failure::other(format_args!("cannot use the authority {}: {error}", cert.display())))?;
    let mut params = params(name, hosts, days)?;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = usages;
    let pair = KeyPair::generate().map_err(Failure::other)?;
    let made = params.signed_by(&pair, &issuer).map_err(Failure::other)?;
    store(at, name, &made.pem(), &pair)
}

fn params(name: &str, hosts: &[String], days: u32) -> Result<CertificateParams, Failure> {
    let invalid = |error| Failure::usage(format_args!("a host is not valid in a certificate: {error}"));
    let mut params = CertificateParams::new(hosts.to_vec()).map_err(invalid)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let now = SystemTime::now();
    params.not_before = (now - VALID_BEFORE).into();
    params.not_after = (now + DAY * days).into();
    Ok(params)
}

fn files(at: &CertDir, name: &str) -> (std::path::PathBuf, std::path::PathBuf) {
    (at.dir.join(format!("{name}.crt")), at.dir.join(format!("{name}.key")))
}

/// Writes a certificate, and its key for the owner alone. Each file is replaced as a whole.
fn store(at: &CertDir, name: &str, cert: &str, pair: &KeyPair) -> Result<(), Failure> {
    let (cert_file, key_file) = files(at, name);
    let failed =
        |path: &Path, error: io::Error| Failure::other(format_args!("cannot write {}: {error}", path.display()));
    fs::create_dir_all(&at.dir).map_err(|error| failed(&at.dir, error))?;
    for (path, mode, text) in [(&key_file, 0o600, pair.serialize_pem()), (&cert_file, 0o644, cert.to_owned())] {
        let write = || {
            let new = path.with_extension("new");
            let _ = fs::remove_file(&new);
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, path)
        };
        write().map_err(|error| failed(path, error))?;
    }
    Ok(())
}
