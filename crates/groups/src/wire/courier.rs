//! What machines ask each other about groups, outside of any log: in an authenticated session.

use bytes::Bytes;
use prost::{Message, Oneof};
use x0x_core::{AgentId, DecodeError, decode_bounded, fixed_bytes};
use x0x_mls::MAX_KEY_PACKAGE;

use super::{
    GroupId, Handover, OpId,
    past::{PastText, PastWire},
};
use crate::limits::{MAX_OPERATIONS, MAX_PARENTS};

/// Largest message between machines in bytes: what a stream of direct messages takes.
pub const MAX_COURIER: usize = 16 * 1024 * 1024;
/// Largest statement in one.
const MAX_STATEMENT: usize = 16 * 1024;
/// Cards in one answer.
pub const MAX_CARDS_HANDED: usize = 128;
/// Longest reason of a refusal.
const MAX_REASON: usize = 256;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CourierWire {
    /// Chosen by who asks; the answer has the same.
    #[prost(uint64, tag = "1")]
    number: u64,
    /// Which agent of the asking machine.
    #[prost(bytes = "bytes", tag = "2")]
    from: Bytes,
    /// Which agent of the other one.
    #[prost(bytes = "bytes", tag = "3")]
    to: Bytes,
    #[prost(oneof = "BodyWire", tags = "4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17")]
    body: Option<BodyWire>,
}

#[derive(Clone, PartialEq, Oneof)]
enum BodyWire {
    #[prost(message, tag = "4")]
    AskPackage(EmptyCourierWire),
    #[prost(message, tag = "5")]
    State(StateWire),
    #[prost(message, tag = "6")]
    HandOver(HandOverWire),
    #[prost(message, tag = "7")]
    AskInvitation(AskInvitationWire),
    #[prost(message, tag = "8")]
    AskSince(AskSinceWire),
    #[prost(bytes = "bytes", tag = "9")]
    Package(Bytes),
    #[prost(message, tag = "10")]
    HandedOver(HandOverWire),
    #[prost(message, tag = "11")]
    Operations(OperationsWire),
    #[prost(message, tag = "12")]
    Done(EmptyCourierWire),
    #[prost(string, tag = "13")]
    Refused(String),
    #[prost(message, tag = "14")]
    AskCards(EmptyCourierWire),
    #[prost(message, tag = "15")]
    Cards(CardsWire),
    #[prost(bytes = "bytes", tag = "16")]
    AskPast(Bytes),
    #[prost(message, tag = "17")]
    Past(PastWire),
}

#[derive(Clone, PartialEq, Message)]
struct CardsWire {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    cards: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
struct EmptyCourierWire {}

#[derive(Clone, PartialEq, Message)]
struct StateWire {
    #[prost(bytes = "bytes", tag = "1")]
    statement: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    package: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct HandOverWire {
    #[prost(bytes = "bytes", tag = "1")]
    group: Bytes,
    #[prost(message, optional, tag = "2")]
    handover: Option<Handover>,
}

#[derive(Clone, PartialEq, Message)]
struct AskInvitationWire {
    #[prost(bytes = "bytes", tag = "1")]
    group: Bytes,
    /// It is not a member yet, and the group is open.
    #[prost(bool, tag = "2")]
    open: bool,
}

#[derive(Clone, PartialEq, Message)]
struct AskSinceWire {
    #[prost(bytes = "bytes", tag = "1")]
    group: Bytes,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    heads: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
struct OperationsWire {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    operations: Vec<Bytes>,
}

/// What one agent asks another.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Question {
    /// A key package of it, to add it to a group.
    Package,
    /// To bring a statement before its group. With a key package of who states it, if the group may have
    /// to be handed over at once.
    State {
        /// The statement.
        statement: Bytes,
        /// The key package; may be empty.
        package: Bytes,
    },
    /// To come into a group.
    HandOver {
        /// Which.
        group: GroupId,
        /// What it needs.
        handover: Handover,
    },
    /// What is needed to come (back) in by an own commit.
    Invitation {
        /// Into which group.
        group: GroupId,
        /// As somebody who is not in it, which is open.
        open: bool,
    },
    /// The cards of groups that it knows and may hand on.
    Cards,
    /// What was written in an encrypted group before it came in, if the policy lets members hand that over.
    Past {
        /// In which group.
        group: GroupId,
    },
    /// The operations of a group that it lacks, which has these.
    Since {
        /// Of which group.
        group: GroupId,
        /// The newest it has.
        heads: Vec<OpId>,
    },
}

/// The answer to a [`Question`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Answer {
    /// A key package.
    Package(Bytes),
    /// What is needed to come in.
    HandOver(Handover),
    /// Operations.
    Operations(Vec<Bytes>),
    /// Cards.
    Cards(Vec<Bytes>),
    /// What was written before, the oldest first.
    Past(Vec<PastText>),
    /// It is done.
    Done,
    /// It is not, and why.
    Refused(String),
}

/// What travels between two machines.
#[derive(Debug, Clone, PartialEq)]
pub struct CourierFrame {
    /// Chosen by who asks; the answer has the same.
    pub number: u64,
    /// Who writes it.
    pub from: AgentId,
    /// To whom.
    pub to: AgentId,
    /// A question or an answer.
    pub body: Result<Question, Answer>,
}

fn copy(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

impl CourierFrame {
    /// The wire form; none of what is larger than a message may be.
    #[must_use]
    pub fn encode(&self) -> Option<Bytes> {
        let wire = CourierWire {
            number: self.number,
            from: copy(self.from.as_bytes()),
            to: copy(self.to.as_bytes()),
            body: Some(match self.body.clone() {
                Ok(question) => question.wire(),
                Err(answer) => answer.wire(),
            }),
        };
        (wire.encoded_len() <= MAX_COURIER).then(|| wire.encode_to_vec().into())
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// [`DecodeError`] when it is too large, malformed, or a field is out of range.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let wire: CourierWire = decode_bounded(bytes, MAX_COURIER)?;
        Ok(Self {
            number: wire.number,
            from: AgentId::new(fixed_bytes(&wire.from, "from")?),
            to: AgentId::new(fixed_bytes(&wire.to, "to")?),
            body: wire.body.ok_or(DecodeError::Field("body"))?.read()?,
        })
    }
}

impl Question {
    fn wire(self) -> BodyWire {
        match self {
            Self::Package => BodyWire::AskPackage(EmptyCourierWire {}),
            Self::Cards => BodyWire::AskCards(EmptyCourierWire {}),
            Self::State { statement, package } => BodyWire::State(StateWire { statement, package }),
            Self::HandOver { group, handover } => BodyWire::HandOver(HandOverWire {
                group: copy(group.as_bytes()),
                handover: Some(handover),
            }),
            Self::Invitation { group, open } => {
                BodyWire::AskInvitation(AskInvitationWire { group: copy(group.as_bytes()), open })
            }
            Self::Past { group } => BodyWire::AskPast(copy(group.as_bytes())),
            Self::Since { group, heads } => BodyWire::AskSince(AskSinceWire {
                group: copy(group.as_bytes()),
                heads: heads.iter().map(|head| copy(head.as_bytes())).collect(),
            }),
        }
    }
}

impl Answer {
    fn wire(self) -> BodyWire {
        match self {
            Self::Package(package) => BodyWire::Package(package),
            Self::HandOver(handover) => {
                BodyWire::HandedOver(HandOverWire { group: Bytes::new(), handover: Some(handover) })
            }
            Self::Operations(operations) => BodyWire::Operations(OperationsWire { operations }),
            Self::Cards(cards) => BodyWire::Cards(CardsWire { cards }),
            Self::Past(texts) => BodyWire::Past(PastWire::new(texts)),
            Self::Done => BodyWire::Done(EmptyCourierWire {}),
            Self::Refused(mut reason) => {
                let end = reason.floor_char_boundary(MAX_REASON);
                reason.truncate(end);
                BodyWire::Refused(reason)
            }
        }
    }
}

fn group(bytes: &Bytes) -> Result<GroupId, DecodeError> {
    Ok(GroupId::new(fixed_bytes(bytes, "group")?))
}

fn at_most(bytes: Bytes, max: usize, field: &'static str) -> Result<Bytes, DecodeError> {
    if bytes.len() > max { Err(DecodeError::Field(field)) } else { Ok(bytes) }
}

fn handed_over(handover: Option<Handover>) -> Result<Handover, DecodeError> {
    let handover = handover.unwrap_or_default();
    if handover.operations.len() > MAX_OPERATIONS {
        return Err(DecodeError::Field("operations"));
    }
    Ok(handover)
}

impl BodyWire {
    fn read(self) -> Result<Result<Question, Answer>, DecodeError> {
        Ok(match self {
            Self::AskPackage(_) => Ok(Question::Package),
            Self::State(StateWire { statement, package }) => Ok(Question::State {
                statement: at_most(statement, MAX_STATEMENT, "statement")?,
                package: at_most(package, MAX_KEY_PACKAGE, "package")?,
            }),
            Self::HandOver(wire) => Ok(Question::HandOver {
                group: group(&wire.group)?,
                handover: handed_over(wire.handover)?,
            }),
            Self::AskInvitation(wire) => {
                Ok(Question::Invitation { group: group(&wire.group)?, open: wire.open })
            }
            Self::AskSince(wire) => {
                if wire.heads.len() > MAX_PARENTS {
                    return Err(DecodeError::Field("heads"));
                }
                let head = |bytes: &Bytes| Ok(OpId::new(fixed_bytes(bytes, "heads")?));
                let heads: Result<Vec<OpId>, DecodeError> = wire.heads.iter().map(head).collect();
                Ok(Question::Since { group: group(&wire.group)?, heads: heads? })
            }
            Self::Package(package) => {
                Err(Answer::Package(at_most(package, MAX_KEY_PACKAGE, "package")?))
            }
            Self::HandedOver(wire) => Err(Answer::HandOver(handed_over(wire.handover)?)),
            Self::Operations(OperationsWire { operations }) => {
                if operations.len() > MAX_OPERATIONS {
                    return Err(DecodeError::Field("operations"));
                }
                Err(Answer::Operations(operations))
            }
            Self::AskCards(_) => Ok(Question::Cards),
            Self::Cards(CardsWire { cards }) => {
                let fit = cards.len() <= MAX_CARDS_HANDED
                    && cards.iter().all(|card| card.len() <= super::MAX_CARD);
                if fit {
                    Err(Answer::Cards(cards))
                } else {
                    return Err(DecodeError::Field("cards"));
                }
            }
            Self::AskPast(bytes) => Ok(Question::Past { group: group(&bytes)? }),
            Self::Past(wire) => Err(Answer::Past(wire.read()?)),
            Self::Done(_) => Err(Answer::Done),
            Self::Refused(reason) => {
                // It is shown to people.
                let plain = super::is_text(&reason, MAX_REASON);
                Err(Answer::Refused(if plain { reason } else { "refused".to_owned() }))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use x0x_core::WallTime;

    use super::*;

    fn frame(body: Result<Question, Answer>) -> CourierFrame {
        CourierFrame { number: 7, from: AgentId::new([1; 32]), to: AgentId::new([2; 32]), body }
    }

    #[test]
    fn what_is_asked_and_answered_comes_back_as_it_was() {
        let (group, handover) = (
            GroupId::new([3; 32]),
            Handover {
                operations: vec![Bytes::from_static(b"op")],
                welcome: Bytes::from_static(b"welcome"),
                ..Handover::default()
            },
        );
        let statement = Bytes::from_static(b"statement");
        let past = PastText {
            author: AgentId::new([5; 32]),
            room: "room".to_owned(),
            id: [6; 16],
            at: WallTime::from_millis(7),
            payload: Bytes::from_static(b"text"),
        };
        let bodies = [
            Ok(Question::Package),
            Ok(Question::State { statement, package: Bytes::new() }),
            Ok(Question::HandOver { group, handover: handover.clone() }),
            Ok(Question::Invitation { group, open: true }),
            Ok(Question::Since { group, heads: vec![OpId::new([4; 32])] }),
            Ok(Question::Cards),
            Ok(Question::Past { group }),
            Err(Answer::Past(vec![past])),
            Err(Answer::Cards(vec![Bytes::from_static(b"card")])),
            Err(Answer::Package(Bytes::from_static(b"package"))),
            Err(Answer::HandOver(handover)),
            Err(Answer::Operations(vec![Bytes::from_static(b"op")])),
            Err(Answer::Done),
            Err(Answer::Refused("no".to_owned())),
        ];
        for body in bodies {
            let frame = frame(body);
            let read = CourierFrame::decode(frame.encode().expect("bytes")).expect("read");
            assert_eq!(read, frame);
        }
    }

    #[test]
    fn a_refusal_shows_as_it_is_written_and_is_short() {
        let long = frame(Err(Answer::Refused("é".repeat(400))));
        let read = CourierFrame::decode(long.encode().expect("bytes")).expect("read");
        assert_eq!(read.body, Err(Answer::Refused("é".repeat(128))));
        let hidden = frame(Err(Answer::Refused("\u{202e}on".to_owned())));
        let read = CourierFrame::decode(hidden.encode().expect("bytes")).expect("read");
        assert_eq!(read.body, Err(Answer::Refused("refused".to_owned())));
    }

    #[test]
    fn what_is_too_much_is_refused() {
        let heads = vec![OpId::new([4; 32]); MAX_PARENTS + 1];
        let many = frame(Ok(Question::Since { group: GroupId::new([3; 32]), heads }));
        assert!(CourierFrame::decode(many.encode().expect("bytes")).is_err());
        let package = Bytes::from(vec![0; MAX_KEY_PACKAGE + 1]);
        let large = frame(Err(Answer::Package(package)));
        assert!(CourierFrame::decode(large.encode().expect("bytes")).is_err());
        for cards in [
            vec![Bytes::new(); MAX_CARDS_HANDED + 1],
            vec![vec![0; super::super::MAX_CARD + 1].into()],
        ] {
            let many = frame(Err(Answer::Cards(cards)));
            assert!(CourierFrame::decode(many.encode().expect("bytes")).is_err());
        }
        let huge = Bytes::from(vec![0; MAX_COURIER]);
        assert_eq!(frame(Err(Answer::Operations(vec![huge]))).encode(), None);
        assert!(CourierFrame::decode(Bytes::from_static(b"")).is_err());
    }
}
