//! A virtual network: each host is a network namespace, and a bridge in one more namespace connects them. It is invisible from outside, so several
//! runs can use the same addresses.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::sync::oneshot;

use crate::FaultsError;
use crate::cleanup;

/// The directory in which `ip` keeps named namespaces.
pub(crate) const NAMESPACES: &str = "/run/netns";

/// A host of a network, counted from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Host(pub u8);

impl Host {
    /// The address of its only interface.
    pub const fn addr(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, self.0 + 1)
    }

    fn hardware_addr(self) -> String {
        format!("02:00:00:00:00:{:02x}", self.0 + 1)
    }
}

/// A network. Dropping it removes its namespaces.
#[derive(Debug)]
pub struct Network {
    name: String,
    hosts: u8,
}

impl Network {
    /// Makes a network of `hosts` hosts, at most 200, under a name that no other run uses.
    ///
    /// # Errors
    /// If the system does not allow it.
    pub fn new(hosts: u8) -> Result<Self, FaultsError> {
        let network = Self { name: cleanup::new_name(), hosts: hosts.min(200) };
        network.set_up()?;
        Ok(network)
    }

    /// Why no network can be created on this machine; `None` if one can.
    pub fn unavailable() -> Option<String> {
        Self::new(1).err().map(|error| error.to_string())
    }

    fn set_up(&self) -> Result<(), FaultsError> {
        let switch = self.switch();
        let mut all = format!("netns add {switch}\n");
        for host in self.hosts() {
            let (namespace, number) = (self.namespace(host), host.0);
            all += &format!(
                "netns add {namespace}\n\
                 link add name port{number} netns {switch} type veth peer name eth0 netns {namespace}\n"
            );
        }
        ip(&[], &all)?;
        let mut ports = "link add name bridge type bridge\nlink set bridge up\n".to_owned();
        for host in self.hosts() {
            ports += &format!("link set port{} master bridge up\n", host.0);
        }
        ip(&["-n", &switch], &ports)?;
        for host in self.hosts() {
            let (addr, hardware_addr) = (host.addr(), host.hardware_addr());
            let own = format!(
                "link set lo up\nlink set eth0 address {hardware_addr}\naddr add {addr}/24 dev eth0\nlink set eth0 up\n"
            );
            let others: String = self
                .hosts()
                .filter(|&other| other != host)
                .map(|other| neighbour(other, &other.hardware_addr()))
                .collect();
            ip(&["-n", &self.namespace(host)], &(own + &others))?;
        }
        Ok(())
    }

    /// All hosts of the network.
    pub fn hosts(&self) -> impl Iterator<Item = Host> + use<> {
        (0..self.hosts).map(Host)
    }

    /// The name of a host's network namespace.
    pub fn namespace(&self, host: Host) -> String {
        format!("{}-host{}", self.name, host.0)
    }

    fn switch(&self) -> String {
        format!("{}-switch", self.name)
    }

    /// Drops all packets from the hosts in `from` to those in `to`. The sender gets no error, and the other direction works.
    ///
    /// # Errors
    /// If the system does not allow it.
    pub fn cut(&self, from: &[Host], to: &[Host]) -> Result<(), FaultsError> {
        // No port has this hardware address. The bridge floods the frames, and each host discards them as another host's.
        self.set_neighbours(from, to, |_| "02:00:00:00:ff:ff".to_owned())
    }

    /// Delivers packets from the hosts in `from` to those in `to` again.
    ///
    /// # Errors
    /// If the system does not allow it.
    pub fn reconnect(&self, from: &[Host], to: &[Host]) -> Result<(), FaultsError> {
        self.set_neighbours(from, to, Host::hardware_addr)
    }

    fn set_neighbours(
        &self,
        from: &[Host],
        to: &[Host],
        hardware_addr: impl Fn(Host) -> String,
    ) -> Result<(), FaultsError> {
        for &host in from {
            let others = to.iter().filter(|&&other| other != host);
            let lines: String = others.map(|&other| neighbour(other, &hardware_addr(other))).collect();
            ip(&["-n", &self.namespace(host)], &lines)?;
        }
        Ok(())
    }

    /// Runs `work` on a host, on a thread with a runtime of its own. It is stopped when this future is dropped.
    ///
    /// # Errors
    /// If the thread cannot enter the namespace, or panics.
    pub fn inside<T, F, W>(&self, host: Host, work: W) -> impl Future<Output = Result<T, FaultsError>> + use<T, F, W>
    where
        W: FnOnce() -> F + Send + 'static,
        F: Future<Output = T>,
        T: Send + 'static,
    {
        let namespace = self.namespace(host);
        let what = format!("work inside {namespace}");
        let (mut sender, result) = oneshot::channel();
        let started = thread::Builder::new().name(format!("host{}", host.0)).spawn(move || {
            let ended = match enter(&namespace) {
                Err(error) => Err(error),
                Ok(runtime) => {
                    let ended = runtime.block_on(async {
                        tokio::select! {
                            ended = work() => Some(ended),
                            () = sender.closed() => None,
                        }
                    });
                    let Some(ended) = ended else { return };
                    Ok(ended)
                }
            };
            let _ = sender.send(ended);
        });
        async move {
            started.map_err(FaultsError::system(&what))?;
            let panicked = |_| FaultsError::System { what, source: std::io::Error::other("its thread panicked") };
            result.await.map_err(panicked)?
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // If it could not be created completely, some of the namespaces are missing.
        for namespace in self.hosts().map(|host| self.namespace(host)).chain([self.switch()]) {
            if Path::new(NAMESPACES).join(&namespace).exists() {
                let _ = ip(&[], &format!("netns del {namespace}\n"));
            }
        }
    }
}

fn neighbour(host: Host, hardware_addr: &str) -> String {
    format!("neigh replace {} lladdr {hardware_addr} dev eth0 nud permanent\n", host.addr())
}

/// Moves this thread into a namespace, and makes a runtime there.
fn enter(namespace: &str) -> Result<tokio::runtime::Runtime, FaultsError> {
    let path = Path::new(NAMESPACES).join(namespace);
    let file = std::fs::File::open(&path).map_err(FaultsError::system(format!("open {}", path.display())))?;
    move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network))
        .map_err(FaultsError::system(format!("move into {namespace}")))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(FaultsError::system("create a runtime"))
}

/// Runs `ip` with these flags on a batch of lines.
pub(crate) fn ip(flags: &[&str], lines: &str) -> Result<(), FaultsError> {
    let command = format!("ip {} -batch -", flags.join(" "));
    let failed = || FaultsError::system(format!("run `{command}` (it is in the package iproute2)"));
    let mut child = Command::new("ip")
        .args(flags)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed())?;
    if let Some(mut stdin) = child.stdin.take() {
        // `ip` may exit early; its standard error says why.
        let _ = stdin.write_all(lines.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed())?;
    if output.status.success() {
        return Ok(());
    }
    Err(FaultsError::Command { command, stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::Duration;

    use tokio::net::UdpSocket;

    use super::*;

    /// The hosts that receive a packet from `from`.
    async fn heard(network: &Network, from: Host) -> Vec<u8> {
        let listen = |host: Host| {
            let (bound, is_bound) = oneshot::channel();
            let heard = network.inside(host, move || async move {
                let socket = UdpSocket::bind((host.addr(), 9)).await.unwrap();
                bound.send(()).unwrap();
                let mut bytes = [0; 1];
                let sent = tokio::time::timeout(Duration::from_secs(1), socket.recv(&mut bytes)).await;
                sent.is_ok().then_some(host.0)
            });
            (is_bound, heard)
        };
        let others: Vec<Host> = network.hosts().filter(|&host| host != from).collect();
        let mut heard = Vec::new();
        for &host in &others {
            let (is_bound, host_heard) = listen(host);
            heard.push(host_heard);
            is_bound.await.unwrap();
        }
        let send = move || async move {
            let socket = UdpSocket::bind((from.addr(), 0)).await.unwrap();
            for host in others {
                assert_eq!(socket.send_to(b"x", (host.addr(), 9)).await.unwrap(), 1, "the sender gets no error");
            }
        };
        network.inside(from, send).await.unwrap();
        let mut all = Vec::new();
        for heard in heard {
            all.extend(heard.await.unwrap());
        }
        all
    }

    #[tokio::test]
    async fn a_cut_drops_packets_in_one_direction_only() {
        if let Some(why) = Network::unavailable() {
            let note = format!("*** SKIPPED: cannot create network namespaces: {why} ***\n");
            std::io::stderr().write_all(note.as_bytes()).unwrap();
            return;
        }
        let network = Network::new(3).unwrap();
        let [a, b, c] = [0, 1, 2].map(Host);
        assert_eq!(heard(&network, a).await, [1, 2]);
        network.cut(&[a], &[b]).unwrap();
        assert_eq!(heard(&network, a).await, [2]);
        assert_eq!(heard(&network, b).await, [0, 2]);
        network.reconnect(&[a], &[b, c]).unwrap();
        assert_eq!(heard(&network, a).await, [1, 2]);

        // A second network with the same addresses is independent of the first. Dropping them removes their namespaces.
        let other = Network::new(2).unwrap();
        other.cut(&[a], &[b]).unwrap();
        assert_eq!(heard(&network, a).await, [1, 2]);
        let path = Path::new(NAMESPACES).join(network.namespace(a));
        assert!(path.exists());
        drop((network, other));
        assert!(!path.exists());
    }
}
