//! Checks whether a node would start, without starting it.

use super::listening::{self, ADMINISTRATORS, Exposable, HTTP, PEERS, RESP};
use super::{ServeError, address, first_admin};
use crate::config::Config;
use crate::data_dir;
use crate::lifecycle::join::{self, Plan};

/// Checks everything that could keep the node from starting: its directory, its settings, and its addresses. Returns what the node would do.
///
/// # Errors
/// The error with which the node would end.
pub async fn check(config: &Config) -> Result<String, ServeError> {
    if let Some(tls) = &config.tls {
        tls.check()?;
    }
    if let Some(password) = &config.access.admin_password {
        first_admin::read_password(password)?;
    }
    let plan = join::plan(config)?;
    let mut exposable = Exposable::of(config, false);
    let dir = config.dir.display();
    let would = match &plan {
        Plan::Serve => {
            let identity = data_dir::read_identity(&config.dir)?;
            let view = super::view_in(&config.dir, &identity)?;
            let member = super::own_member(&view, &identity, &config.dir)?;
            super::check_zone(config, member)?;
            exposable = Exposable::of(config, !view.users().is_empty());
            listening::check(HTTP, config.http_listen.as_ref(), &member.http_addr, exposable).await?;
            listening::check(PEERS, config.peer_listen.as_ref(), &member.peer_addr, exposable).await?;
            let served = address::served_at(member, config);
            format!(
                "{dir} holds {}, at {} for HTTP and at {} for peers",
                served.name, served.http_addr, served.peer_addr
            )
        }
        Plan::Nothing => return Err(data_dir::DataDirError::NoNode(config.dir.clone()).into()),
        Plan::Bootstrap(new) | Plan::Join(new) => {
            listening::check(HTTP, config.http_listen.as_ref(), &new.site.http_addr, exposable).await?;
            listening::check(PEERS, config.peer_listen.as_ref(), &new.site.peer_addr, exposable).await?;
            let name = &new.name;
            match plan {
                Plan::Bootstrap(_) => format!("{name} would bootstrap the cluster {}, in {dir}", new.cluster_name),
                _ => format!("{name} would ask {} to join, in {dir}", new.seeds()),
            }
        }
    };
    if let Some(addr) = &config.resp_listen {
        listening::check(RESP, Some(addr), addr.as_str(), exposable).await?;
    }
    if let Some(addr) = &config.admin_listen {
        listening::check(ADMINISTRATORS, Some(addr), addr.as_str(), exposable).await?;
    }
    Ok(would)
}
