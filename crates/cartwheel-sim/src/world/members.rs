//! The members: machines that may join, those that have joined, and those that have left.

use std::collections::BTreeSet;

use cartwheel_core::cluster::configuration::{ConfigPhase, Home};
use cartwheel_core::cluster::membership::{ChangeKind, History, Member, ViewMember};
use cartwheel_core::cluster::next_configuration::next_configuration;
use cartwheel_core::control::{ControlInput, MembersChange};
use cartwheel_core::message::client::ClientId;
use cartwheel_core::ring::PartitionId;

use super::World;
use crate::machine::MachineStatus;
use crate::trace::TraceKind;

/// The timeout of an administrator's changes.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

impl World {
    /// The machines that are members, up or not.
    pub fn members(&self) -> Vec<usize> {
        (0..self.machines.len()).filter(|&index| self.machines[index].status == MachineStatus::Member).collect()
    }

    /// The machines that may become members.
    pub fn spares(&self) -> Vec<usize> {
        (0..self.machines.len()).filter(|&index| self.machines[index].status == MachineStatus::Spare).collect()
    }

    /// A machine as a home: its node and incarnation.
    pub fn home(&self, index: usize) -> Home {
        Home { node: self.cluster.id(index), incarnation: self.machines[index].incarnation }
    }

    /// A machine as a member of the cluster.
    pub fn member_of(&self, index: usize) -> Member {
        self.cluster.member(index, self.machines[index].incarnation)
    }

    /// Lets an administrator change the members through a node.
    pub fn change_members(&mut self, through: usize, changes: Vec<ChangeKind>) {
        self.note(TraceKind::Ask, &[through as u8], |cluster| {
            format!("{} is to change members: {changes:?}", cluster.name(through))
        });
        let change = MembersChange { changes, planned_on: None, timeout: PATIENCE };
        self.control_input(through, ControlInput::ChangeMembers(ClientId(0), change));
    }

    /// The lost incarnations that are homes of some partition, as far as a machine knows.
    pub fn lost_to(&self, index: usize) -> Vec<Home> {
        let phases = self.machine_controls[index].control.iter().flat_map(|control| control.phases());
        let homes: BTreeSet<Home> = phases.flat_map(ConfigPhase::both).flat_map(|of| &of.homes).copied().collect();
        let is_lost = |home: &Home| {
            self.cluster.index(home.node).is_some_and(|index| self.machines[index].incarnation != home.incarnation)
        };
        homes.into_iter().filter(is_lost).collect()
    }

    /// Lets an administrator mark lost incarnations as lost, through a node.
    pub fn mark_lost(&mut self, through: usize, homes: Vec<Home>) {
        let phases = self.machine_controls[through].control.iter().flat_map(|control| control.phases());
        let versions = (0..).map(PartitionId).zip(phases.map(ConfigPhase::version)).collect();
        self.change_members(through, vec![ChangeKind::MarkLost { homes, versions }]);
    }

    /// Starts the spare machines that are members by a history that has been saved.
    pub(super) fn start_new_members(&mut self, history: &History) {
        if self.spares().is_empty() {
            return;
        }
        let Some(view) = history.view() else { return };
        for index in self.spares() {
            let Home { node, incarnation } = self.home(index);
            if view.member(node).is_some_and(|known| known.member.incarnation == incarnation) {
                let floor = self.epoch_floor_for(index);
                let machine = &mut self.machines[index];
                (machine.status, machine.epoch_floor) = (MachineStatus::Member, floor);
                self.machine_controls[index].save(history);
                self.start(index);
            }
        }
    }

    /// Whether a running node knows that a machine's incarnation has left: then the machine learns of it before it starts.
    pub(super) fn is_gone(&self, index: usize) -> bool {
        let Home { node, incarnation } = self.home(index);
        let views = self.machine_controls.iter().filter_map(|at| Some(at.control.as_ref()?.view()));
        views.into_iter().any(|view| view.is_gone(node, incarnation))
    }

    /// Whether a running node knows that a machine's node is to leave.
    pub fn is_leaving(&self, index: usize) -> bool {
        let home = self.home(index);
        let views = self.machine_controls.iter().filter_map(|at| Some(at.control.as_ref()?.view()));
        views.into_iter().any(|view| view.is_removed(home))
    }

    /// Ends the machines that have left; their peers report it to them at the next contact.
    pub(super) fn retire(&mut self) {
        for index in self.members() {
            if self.is_gone(index) {
                self.excuse_settings(index);
                if self.machines[index].is_up() {
                    let all = self.machines[index].disk.unsynced().count();
                    self.crash(index, all);
                }
                self.machines[index].status = MachineStatus::Gone;
            }
        }
    }

    /// The members that a running machine knows, and those of them that hold data, as text.
    pub fn describe_members(&self, index: usize) -> String {
        let Some(node) = self.machines[index].node() else { return "it is down".to_owned() };
        let view = node.held().view();
        let placed: Vec<&str> = view.ring.nodes().iter().map(|node| self.cluster.name_of(node.id)).collect();
        let name =
            |known: &ViewMember| format!("{}{}", known.member.name, if known.leaving { " (leaving)" } else { "" });
        format!("placed {placed:?}, members {:?}", view.members().map(name).collect::<Vec<String>>())
    }

    /// A partition with fewer homes than nodes could hold it, as a message. The target must have that many homes whatever the weights are.
    pub fn under_replicated(&self) -> Option<String> {
        let index = self.members().into_iter().find(|&index| self.machines[index].is_up())?;
        let view = self.machines[index].node()?.held().view();
        let wanted = view.homes_wanted();
        view.ring.partitions().iter().find_map(|partition| {
            let (phase, target) = (self.phase(partition), view.target(partition));
            let is_short = view.homes_left(&phase) < wanted || target.len() < wanted;
            is_short.then(|| format!("{partition:?} should have {wanted} homes: {phase:?}, target {target:?}"))
        })
    }

    /// What is still missing until all partitions have their target configurations; `None` if nothing is.
    pub fn unsettled(&self) -> Option<String> {
        let running = self.members().into_iter().filter(|&index| self.machines[index].is_up());
        for index in running {
            let node = self.machines[index].node()?;
            let (held, name) = (node.held(), self.cluster.name(index));
            // A removed node stays if too few nodes would remain.
            let is_placed = held.view().ring.nodes().iter().any(|node| node.id == self.cluster.id(index));
            if held.view().is_removed(self.home(index)) && !is_placed {
                return Some(format!("{name} was removed and has not left"));
            }
            for (partition, partition_state) in held.partition_states() {
                let latest = self.phase(partition);
                let is_behind =
                    partition_state.phase.version() < latest.version() && partition_state.phase.has(self.home(index));
                let has_duties = partition_state.has_duties() || is_behind;
                if has_duties {
                    return Some(format!(
                        "{name} has work left for {partition:?}: {partition_state:?}, latest {latest:?}"
                    ));
                }
                let ConfigPhase::Stable(only) = &latest else {
                    return Some(format!("{partition:?} is being reconfigured: {latest:?}"));
                };
                let target = held.view().target(partition);
                let counts = held.view().target_counts();
                if let Some(next) = next_configuration(only, &target, counts, |_| true, |_| false) {
                    let members = self.describe_members(index);
                    return Some(format!(
                        "{name} sees that {partition:?} must change from {only:?} to {next:?}; {members}"
                    ));
                }
                if only.homes_of_any().contains(&self.home(index)) && !partition_state.is_synced() {
                    return Some(format!("{name} is syncing {partition:?}"));
                }
            }
        }
        None
    }
}
