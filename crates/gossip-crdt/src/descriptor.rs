//! Which object is meant: type, name and owner, and the id that they make.

use x0x_core::{AgentId, TopicId};

use crate::config::MAX_NAME;

/// Longest name of a type in bytes.
pub const MAX_KIND: usize = 64;

/// Names an object. Whoever has the same three has the same object: there is nothing else to agree on.
///
/// An object with an owner obeys the owner's policy. Whoever claims another owner is at another object, so that
/// nobody can take one over. One without an owner is everybody's who knows its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Descriptor {
    /// The type, as [`Object::KIND`](crate::Object::KIND) says it.
    pub kind: String,
    /// The name.
    pub name: String,
    /// Who decides about it.
    pub owner: Option<AgentId>,
}

impl Descriptor {
    /// An object that everybody may write who knows its name.
    #[must_use]
    pub fn open(kind: &str, name: &str) -> Self {
        Self { kind: kind.to_owned(), name: name.to_owned(), owner: None }
    }

    /// An object of an owner.
    #[must_use]
    pub fn owned(kind: &str, name: &str, owner: AgentId) -> Self {
        Self { owner: Some(owner), ..Self::open(kind, name) }
    }

    /// Whether its names are of allowed lengths.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let kind = 1..=MAX_KIND;
        kind.contains(&self.kind.len()) && (1..=MAX_NAME).contains(&self.name.len())
    }

    /// The object's id, and the topic of its log.
    #[must_use]
    pub fn id(&self) -> TopicId {
        let mut hasher = blake3::Hasher::new_derive_key("x0x 2026-11 object id v1");
        for part in [self.kind.as_bytes(), self.name.as_bytes()] {
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        if let Some(owner) = &self.owner {
            hasher.update(owner.as_bytes());
        }
        TopicId::new(*hasher.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_the_three_makes_another_object() {
        let owner = AgentId::new([1; 32]);
        let all = [
            Descriptor::open("tasks/1", "a"),
            Descriptor::open("tasks/1", "b"),
            Descriptor::open("kv/1", "a"),
            Descriptor::owned("tasks/1", "a", owner),
            Descriptor::owned("tasks/1", "a", AgentId::new([2; 32])),
            Descriptor::open("tasks/1a", ""),
        ];
        let ids: std::collections::BTreeSet<TopicId> = all.iter().map(Descriptor::id).collect();
        assert_eq!(ids.len(), all.len());
        assert!(all[0].is_valid() && !all[5].is_valid());
    }
}
