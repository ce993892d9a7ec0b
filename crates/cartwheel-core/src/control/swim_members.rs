//! SWIM's member list, by node, and its changes since the last update.

use std::collections::BTreeMap;

use foca::{Member, State};

use super::swim::Identity;
use crate::value::dot::NodeId;

/// A member in SWIM's list.
pub(super) type ListedMember = (Identity, State);

/// A copy of SWIM's member list.
///
/// SWIM looks a member up only by a scan of its list, and reports a new suspicion only by the change in it. Both are
/// needed for every packet, so they must be cheap with many members: the list is compared with the copy position by
/// position, and only differences are looked up.
#[derive(Debug, Default)]
pub(super) struct SwimMembers {
    /// The list in SWIM's own order, which changes seldom.
    listed: Vec<ListedMember>,
    known: BTreeMap<NodeId, ListedMember>,
}

impl SwimMembers {
    pub(super) fn get(&self, node: NodeId) -> Option<Identity> {
        self.known.get(&node).map(|&(id, _)| id)
    }

    /// Whether SWIM knows a node in exactly this state, so that hearing it again changes nothing.
    pub(super) fn is_known(&self, listed: ListedMember) -> bool {
        self.known.get(&listed.0.node) == Some(&listed)
    }

    /// All members that SWIM knows, by node. They may include an earlier identity of this node.
    pub(super) fn iter(&self) -> impl Iterator<Item = Identity> + '_ {
        self.known.values().map(|&(id, _)| id)
    }

    /// Updates the copy. Returns each member that has changed, before and after.
    pub(super) fn update<'a>(
        &mut self,
        members: impl ExactSizeIterator<Item = &'a Member<Identity>>,
    ) -> Vec<(ListedMember, ListedMember)> {
        let (count, mut differ) = (members.len(), Vec::new());
        for (place, member) in members.enumerate() {
            let now = (*member.id(), member.state());
            match self.listed.get_mut(place) {
                Some(listed) if *listed == now => continue,
                Some(listed) => *listed = now,
                None => self.listed.push(now),
            }
            differ.push(now);
        }
        if count < self.listed.len() {
            self.listed.truncate(count);
            let listed: BTreeMap<NodeId, ListedMember> =
                self.listed.iter().map(|&listed| (listed.0.node, listed)).collect();
            self.known.retain(|node, _| listed.contains_key(node));
        }
        let changed = |now: ListedMember| {
            let before = self.known.insert(now.0.node, now)?;
            (before != now).then_some((before, now))
        };
        differ.into_iter().filter_map(changed).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::dot::Incarnation;

    fn id(node: u64) -> Identity {
        Identity::unheard(NodeId::new(node), 0, Incarnation(node))
    }

    #[test]
    fn each_change_is_reported_once_in_any_order() {
        let mut swim_members = SwimMembers::default();
        let mut members: Vec<Member<Identity>> = (0..4).map(|node| Member::alive(id(node))).collect();
        assert_eq!(swim_members.update(members.iter()), [], "new members are not changes");
        members.reverse();
        members[1] = Member::new(id(2), 0, State::Suspect);
        assert_eq!(swim_members.update(members.iter()), [((id(2), State::Alive), (id(2), State::Suspect))]);
        assert_eq!(swim_members.update(members.iter()), []);
        members.swap_remove(0);
        assert_eq!(swim_members.update(members.iter()), []);
        assert_eq!((swim_members.get(NodeId::new(3)), swim_members.get(NodeId::new(2))), (None, Some(id(2))));
        assert_eq!(swim_members.iter().count(), 3);
    }
}
