//! What SWIM knows of the other members, by node, and what of it has changed since the last look.

use std::collections::BTreeMap;

use foca::{Member, State};

use super::swim::Identity;
use crate::value::dot::NodeId;

/// A member as SWIM knows it.
pub(super) type Listed = (Identity, State);

/// SWIM's list of the members, as it was at the last look.
///
/// SWIM finds nobody but by going through its list, and says of a suspicion that it has come up only to whoever compares. Both are
/// asked for at every packet, so with many members they must cost little: the list is compared place by place with the one before,
/// and only where they differ is anything looked up.
#[derive(Debug, Default)]
pub(super) struct SwimMembers {
    /// In SWIM's own order, which changes only now and then.
    listed: Vec<Listed>,
    known: BTreeMap<NodeId, Listed>,
}

impl SwimMembers {
    /// A node as SWIM knows it.
    pub(super) fn get(&self, node: NodeId) -> Option<Identity> {
        self.known.get(&node).map(|&(id, _)| id)
    }

    /// Whether SWIM knows a node just so, and hearing it once more changes nothing.
    pub(super) fn is_known(&self, listed: Listed) -> bool {
        self.known.get(&listed.0.node) == Some(&listed)
    }

    /// All that SWIM knows, by node. It may know this node itself, by a former name.
    pub(super) fn iter(&self) -> impl Iterator<Item = Identity> + '_ {
        self.known.values().map(|&(id, _)| id)
    }

    /// Looks at the list anew; says what each was that has changed, and what it is now.
    pub(super) fn look<'a>(
        &mut self,
        members: impl ExactSizeIterator<Item = &'a Member<Identity>>,
    ) -> Vec<(Listed, Listed)> {
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
            let listed: BTreeMap<NodeId, Listed> = self.listed.iter().map(|&listed| (listed.0.node, listed)).collect();
            self.known.retain(|node, _| listed.contains_key(node));
        }
        let changed = |now: Listed| {
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
    fn what_has_changed_is_told_once_whatever_the_order() {
        let mut swim_members = SwimMembers::default();
        let mut members: Vec<Member<Identity>> = (0..4).map(|node| Member::alive(id(node))).collect();
        assert_eq!(swim_members.look(members.iter()), [], "who is new was nothing before");
        members.reverse();
        members[1] = Member::new(id(2), 0, State::Suspect);
        assert_eq!(swim_members.look(members.iter()), [((id(2), State::Alive), (id(2), State::Suspect))]);
        assert_eq!(swim_members.look(members.iter()), []);
        members.swap_remove(0);
        assert_eq!(swim_members.look(members.iter()), []);
        assert_eq!((swim_members.get(NodeId::new(3)), swim_members.get(NodeId::new(2))), (None, Some(id(2))));
        assert_eq!(swim_members.iter().count(), 3);
    }
}
