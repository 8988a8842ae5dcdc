//! The names of topics. Below this crate a topic is the hash of its name; people want the name.

use std::{
    collections::{HashMap, VecDeque},
    sync::{PoisonError, RwLock},
};

use x0x_core::TopicId;
use x0x_gossip_pubsub::topic_id;

/// Names remembered; the one that was noted first goes first.
pub const MAX_TOPIC_NAMES: usize = 1024;

/// The names that were used here, both ways.
#[derive(Debug, Default)]
pub(crate) struct TopicNames(RwLock<State>);

#[derive(Debug, Default)]
struct State {
    ids: HashMap<String, TopicId>,
    names: HashMap<TopicId, String>,
    /// The oldest first.
    order: VecDeque<String>,
}

impl TopicNames {
    /// The topic with this name.
    pub(crate) fn id(&self, name: &str) -> TopicId {
        let state = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = state.ids.get(name) {
            return *id;
        }
        drop(state);
        let id = topic_id(name);
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if state.ids.insert(name.to_owned(), id).is_none() {
            if state.order.len() >= MAX_TOPIC_NAMES
                && let Some(oldest) = state.order.pop_front()
                && let Some(id) = state.ids.remove(&oldest)
            {
                state.names.remove(&id);
            }
            state.names.insert(id, name.to_owned());
            state.order.push_back(name.to_owned());
        }
        id
    }

    /// The name of a topic, if it was used here lately.
    pub(crate) fn name(&self, id: &TopicId) -> Option<String> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).names.get(id).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_remembered_up_to_a_number() {
        let names = TopicNames::default();
        let first = names.id("first");
        assert_eq!((first, names.id("first")), (topic_id("first"), first));
        assert_eq!(names.name(&first).as_deref(), Some("first"));
        for n in 0..MAX_TOPIC_NAMES {
            names.id(&n.to_string());
        }
        assert_eq!(names.name(&first), None, "it made room");
        assert_eq!(names.name(&topic_id("7")).as_deref(), Some("7"));
        let state = names.0.read().expect("not poisoned");
        assert_eq!((state.ids.len(), state.names.len()), (MAX_TOPIC_NAMES, MAX_TOPIC_NAMES));
        assert_eq!(state.order.len(), MAX_TOPIC_NAMES);
    }
}
