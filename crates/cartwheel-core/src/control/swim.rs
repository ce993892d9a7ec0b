//! SWIM packets: identities of nodes, and their encoding.
//!
//! The format is fixed: numbers in network byte order, an identity in 28 bytes.

use std::fmt;

use bytes::{Buf, BufMut, TryGetError};
use foca::{Codec, Header, Member, Message, State};

use crate::value::dot::{Incarnation, NodeId};

/// The longest packet, in bytes: a header, and updates about some fifty nodes.
pub(super) const PACKET_BYTES_MAX: usize = 1_400;

const IDENTITY_BYTES: usize = 28;
const MEMBER_BYTES: usize = IDENTITY_BYTES + 3;
/// Two identities, an incarnation, the kind of message, and the longest message.
const HEADER_BYTES_MAX: usize = 3 * IDENTITY_BYTES + 4;

/// A node as SWIM knows it.
///
/// Reports on one boot say nothing about the next. Within a boot, a node that was declared down returns as a renewal,
/// because in SWIM "down" is final.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Identity {
    pub(super) node: NodeId,
    /// How many incarnations of the node are known to have ended, which orders its incarnations. Each node uses the
    /// number that it knows itself, not that of a packet.
    pub(super) generation: u32,
    pub(super) incarnation: Incarnation,
    /// 0 is before every boot: the current one is not known yet.
    pub(super) boot: u32,
    pub(super) renewal: u32,
}

impl Identity {
    /// A member of which no message was received.
    pub(super) const fn unheard(node: NodeId, generation: u32, incarnation: Incarnation) -> Self {
        Self { node, generation, incarnation, boot: 0, renewal: 0 }
    }
}

impl foca::Identity for Identity {
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        Some(Self { renewal: self.renewal.checked_add(1)?, ..*self })
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        let rank = |id: &Self| (id.generation, id.incarnation, id.boot, id.renewal);
        rank(self) >= rank(adversary)
    }
}

/// Why a packet is invalid.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum BadPacket {
    /// It ends too early.
    Short,
    /// It has an invalid number.
    Number(u8),
    /// It is too long.
    Full,
}

impl fmt::Display for BadPacket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("the packet ends too early"),
            Self::Number(number) => write!(f, "{number} is not a valid number here"),
            Self::Full => f.write_str("the packet is too long"),
        }
    }
}

impl std::error::Error for BadPacket {}

impl From<TryGetError> for BadPacket {
    fn from(_: TryGetError) -> Self {
        Self::Short
    }
}

/// Encodes and decodes packets.
#[derive(Clone, Copy, Debug)]
pub(super) struct PacketCodec;

impl Codec<Identity> for PacketCodec {
    type Error = BadPacket;

    fn encode_header(&mut self, header: &Header<Identity>, mut buf: impl BufMut) -> Result<(), BadPacket> {
        if buf.remaining_mut() < HEADER_BYTES_MAX {
            return Err(BadPacket::Full);
        }
        put_identity(&mut buf, &header.src);
        buf.put_u16(header.src_incarnation);
        put_identity(&mut buf, &header.dst);
        put_message(&mut buf, &header.message);
        Ok(())
    }

    fn decode_header(&mut self, mut buf: impl Buf) -> Result<Header<Identity>, BadPacket> {
        Ok(Header {
            src: get_identity(&mut buf)?,
            src_incarnation: buf.try_get_u16()?,
            dst: get_identity(&mut buf)?,
            message: get_message(&mut buf)?,
        })
    }

    fn encode_member(&mut self, member: &Member<Identity>, mut buf: impl BufMut) -> Result<(), BadPacket> {
        if buf.remaining_mut() < MEMBER_BYTES {
            return Err(BadPacket::Full);
        }
        put_identity(&mut buf, member.id());
        buf.put_u16(member.incarnation());
        buf.put_u8(match member.state() {
            State::Alive => 0,
            State::Suspect => 1,
            State::Down => 2,
        });
        Ok(())
    }

    fn decode_member(&mut self, mut buf: impl Buf) -> Result<Member<Identity>, BadPacket> {
        let (id, incarnation) = (get_identity(&mut buf)?, buf.try_get_u16()?);
        let state = match buf.try_get_u8()? {
            0 => State::Alive,
            1 => State::Suspect,
            2 => State::Down,
            number => return Err(BadPacket::Number(number)),
        };
        Ok(Member::new(id, incarnation, state))
    }
}

fn put_identity(buf: &mut impl BufMut, id: &Identity) {
    buf.put_u64(id.node.get());
    buf.put_u32(id.generation);
    buf.put_u64(id.incarnation.0);
    buf.put_u32(id.boot);
    buf.put_u32(id.renewal);
}

fn get_identity(buf: &mut impl Buf) -> Result<Identity, BadPacket> {
    Ok(Identity {
        node: NodeId::new(buf.try_get_u64()?),
        generation: buf.try_get_u32()?,
        incarnation: Incarnation(buf.try_get_u64()?),
        boot: buf.try_get_u32()?,
        renewal: buf.try_get_u32()?,
    })
}

fn put_message(buf: &mut impl BufMut, message: &Message<Identity>) {
    let (kind, number, about) = match message {
        Message::Ping(number) => (0, Some(number), None),
        Message::Ack(number) => (1, Some(number), None),
        Message::PingReq { target, probe_number } => (2, Some(probe_number), Some(target)),
        Message::IndirectPing { origin, probe_number } => (3, Some(probe_number), Some(origin)),
        Message::IndirectAck { target, probe_number } => (4, Some(probe_number), Some(target)),
        Message::ForwardedAck { origin, probe_number } => (5, Some(probe_number), Some(origin)),
        Message::Announce => (6, None, None),
        Message::Feed => (7, None, None),
        Message::Gossip => (8, None, None),
        Message::Broadcast => (9, None, None),
        Message::TurnUndead => (10, None, None),
    };
    buf.put_u8(kind);
    if let Some(&number) = number {
        buf.put_u8(number);
    }
    if let Some(id) = about {
        put_identity(buf, id);
    }
}

fn get_message(buf: &mut impl Buf) -> Result<Message<Identity>, BadPacket> {
    let kind = buf.try_get_u8()?;
    let probe_number = if kind <= 5 { buf.try_get_u8()? } else { 0 };
    Ok(match kind {
        0 => Message::Ping(probe_number),
        1 => Message::Ack(probe_number),
        2 => Message::PingReq { target: get_identity(buf)?, probe_number },
        3 => Message::IndirectPing { origin: get_identity(buf)?, probe_number },
        4 => Message::IndirectAck { target: get_identity(buf)?, probe_number },
        5 => Message::ForwardedAck { origin: get_identity(buf)?, probe_number },
        6 => Message::Announce,
        7 => Message::Feed,
        8 => Message::Gossip,
        10 => Message::TurnUndead,
        // SWIM's custom broadcasts are not used.
        number => return Err(BadPacket::Number(number)),
    })
}

/// A decoded packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Packet {
    pub(super) header: Header<Identity>,
    /// The states of nodes, as the sender knows them.
    pub(super) updates: Vec<Member<Identity>>,
}

impl Packet {
    /// Decodes a whole packet.
    pub(super) fn decode(mut bytes: &[u8]) -> Result<Self, BadPacket> {
        if bytes.len() > PACKET_BYTES_MAX {
            return Err(BadPacket::Full);
        }
        let header = PacketCodec.decode_header(&mut bytes)?;
        let count = if bytes.is_empty() { 0 } else { bytes.try_get_u16()? };
        let mut updates = Vec::new();
        for _ in 0..count {
            updates.push(PacketCodec.decode_member(&mut bytes)?);
        }
        match bytes.first() {
            None => Ok(Self { header, updates }),
            Some(&left) => Err(BadPacket::Number(left)),
        }
    }

    /// Applies `change` to each identity in the packet.
    pub(super) fn each_identity(&mut self, mut change: impl FnMut(&mut Identity)) {
        change(&mut self.header.src);
        change(&mut self.header.dst);
        match &mut self.header.message {
            Message::PingReq { target: about, .. }
            | Message::IndirectPing { origin: about, .. }
            | Message::IndirectAck { target: about, .. }
            | Message::ForwardedAck { origin: about, .. } => change(about),
            _ => {}
        }
        for update in &mut self.updates {
            let mut id = *update.id();
            change(&mut id);
            *update = Member::new(id, update.incarnation(), update.state());
        }
    }

    /// The bytes that [`Self::decode`] reads.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES_MAX + 2 + MEMBER_BYTES * self.updates.len());
        // A vector always has room.
        let _ = PacketCodec.encode_header(&self.header, &mut bytes);
        if !self.updates.is_empty() {
            bytes.put_u16(self.updates.len() as u16);
            for update in &self.updates {
                let _ = PacketCodec.encode_member(update, &mut bytes);
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn identity() -> impl Strategy<Value = Identity> {
        let numbers = (any::<u64>(), any::<u32>(), any::<u64>(), any::<u32>(), any::<u32>());
        numbers.prop_map(|(node, generation, incarnation, boot, renewal)| Identity {
            node: NodeId::new(node),
            generation,
            incarnation: Incarnation(incarnation),
            boot,
            renewal,
        })
    }

    fn message() -> impl Strategy<Value = Message<Identity>> {
        let about = || (identity(), any::<u8>());
        prop_oneof![
            any::<u8>().prop_map(Message::Ping),
            any::<u8>().prop_map(Message::Ack),
            about().prop_map(|(target, probe_number)| Message::PingReq { target, probe_number }),
            about().prop_map(|(origin, probe_number)| Message::IndirectPing { origin, probe_number }),
            about().prop_map(|(target, probe_number)| Message::IndirectAck { target, probe_number }),
            about().prop_map(|(origin, probe_number)| Message::ForwardedAck { origin, probe_number }),
            prop::sample::select(vec![Message::Announce, Message::Feed, Message::Gossip, Message::TurnUndead]),
        ]
    }

    fn update() -> impl Strategy<Value = Member<Identity>> {
        let state = prop::sample::select(vec![State::Alive, State::Suspect, State::Down]);
        (identity(), any::<u16>(), state).prop_map(|(id, incarnation, state)| Member::new(id, incarnation, state))
    }

    proptest! {
        #[test]
        fn a_packet_decodes_to_itself(
            (src, dst, src_incarnation, message) in (identity(), identity(), any::<u16>(), message()),
            updates in prop::collection::vec(update(), 0..40),
        ) {
            let packet = Packet { header: Header { src, src_incarnation, dst, message }, updates };
            let bytes = packet.encode();
            prop_assert!(bytes.len() <= PACKET_BYTES_MAX);
            prop_assert_eq!(Packet::decode(&bytes), Ok(packet.clone()));
            let header_bytes = bytes.len() - if packet.updates.is_empty() { 0 } else { 2 + MEMBER_BYTES * packet.updates.len() };
            for cut in (0..bytes.len()).filter(|&cut| cut != header_bytes) {
                prop_assert!(Packet::decode(&bytes[..cut]).is_err(), "cut at {}", cut);
            }
        }

        #[test]
        fn junk_is_refused_or_decoded_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(packet) = Packet::decode(&bytes) {
                prop_assert_eq!(Packet::decode(&packet.encode()), Ok(packet));
            }
        }
    }

    #[test]
    fn a_later_boot_and_a_later_renewal_win() {
        use foca::Identity as _;
        let id = Identity::unheard(NodeId::new(1), 0, Incarnation(1));
        let booted = Identity { boot: 3, ..id };
        let renewed = booted.renew().unwrap();
        assert!(booted.win_addr_conflict(&id) && renewed.win_addr_conflict(&booted));
        assert!(!booted.win_addr_conflict(&renewed) && !id.win_addr_conflict(&booted));
        assert!(Identity { boot: 4, ..id }.win_addr_conflict(&renewed));
    }
}
