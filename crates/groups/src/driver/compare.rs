//! When a member compares its operations with those of others, and with whom: what no log keeps or nobody said
//! again comes by that. Soon after something happened, then ever more seldom; each begins with its successor.

use std::time::Duration;

use tokio::time::Instant;
use x0x_core::AgentId;

/// How long it waits when something happened.
const SOON: Duration = Duration::from_secs(5);
/// How long at most while something waits here for what has not come.
const WAITING: Duration = Duration::from_secs(60);
/// How long at most when nothing does.
const SELDOM: Duration = Duration::from_secs(600);
/// How long somebody who says that it is further is not asked again.
const HEARD: Duration = Duration::from_secs(60);
/// Members that are asked one after the other, until one answers.
const ASKED: usize = 4;

/// What is known of comparisons in one group.
#[derive(Debug)]
pub(super) struct Comparison {
    next: Instant,
    pause: Duration,
    /// How often others were asked: each time another of them is the first.
    round: usize,
    /// Who answered last, and when.
    answered: Option<(AgentId, Instant)>,
}

impl Comparison {
    /// Due at once.
    pub(super) const fn new(now: Instant) -> Self {
        Self { next: now, pause: SOON, round: 0, answered: None }
    }

    /// Something happened, of which this member may not have heard all.
    pub(super) fn soon(&mut self, now: Instant) {
        self.pause = SOON;
        self.next = self.next.min(now + SOON);
    }

    /// Whom to ask now, one after the other until one answers; nobody when it is not time. `members` are in order,
    /// `ahead` has what is not here.
    pub(super) fn due(
        &self,
        now: Instant,
        me: AgentId,
        members: &[AgentId],
        ahead: Option<AgentId>,
    ) -> Vec<AgentId> {
        let heard = |agent| {
            self.answered.is_some_and(|(last, at)| last == agent && now.duration_since(at) < HEARD)
        };
        let ahead = ahead.filter(|agent| members.contains(agent) && !heard(*agent));
        if now < self.next && ahead.is_none() {
            return Vec::new();
        }
        let after = members.partition_point(|agent| *agent <= me);
        let others =
            members.iter().copied().cycle().skip((after + self.round) % members.len().max(1));
        let others =
            others.take(members.len()).filter(|agent| *agent != me && Some(*agent) != ahead);
        ahead.into_iter().chain(others).take(ASKED).collect()
    }

    /// They were asked: who answered, and whether that brought anything.
    pub(super) fn done(
        &mut self,
        now: Instant,
        answered: Option<AgentId>,
        brought: bool,
        waits: bool,
    ) {
        let most = if waits { WAITING } else { SELDOM };
        self.pause = if brought { SOON } else { (self.pause * 2).min(most) };
        self.next = now + self.pause;
        self.round = self.round.wrapping_add(1);
        if let Some(agent) = answered {
            self.answered = Some((agent, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(n: u8) -> AgentId {
        AgentId::new([n; 32])
    }

    #[test]
    fn everybody_is_asked_in_turn_and_ever_more_seldom() {
        let (begun, members) = (Instant::now(), [1, 2, 3, 4, 5, 6].map(agent));
        let mut comparison = Comparison::new(begun);
        let (mut now, mut firsts) = (begun, Vec::new());
        for _ in 0..6 {
            let asked = comparison.due(now, agent(3), &members, None);
            assert!(asked.len() == ASKED && !asked.contains(&agent(3)));
            firsts.push(asked[0]);
            comparison.done(now, Some(asked[0]), false, false);
            assert!(comparison.due(now + SOON, agent(3), &members, None).is_empty());
            now = comparison.next;
        }
        assert_eq!(firsts, [4, 5, 6, 1, 2, 4].map(agent));
        assert!(comparison.pause > WAITING);
        comparison.done(now, None, false, true);
        assert_eq!(comparison.pause, WAITING);
        comparison.soon(now);
        assert!(!comparison.due(now + SOON, agent(3), &members, None).is_empty());
        comparison.done(now, None, true, false);
        assert_eq!(comparison.pause, SOON);
        for _ in 0..20 {
            comparison.done(now, None, false, false);
        }
        assert_eq!(comparison.pause, SELDOM);
    }

    #[test]
    fn who_is_further_is_asked_at_once_but_not_over_and_over() {
        let (now, members) = (Instant::now(), [1, 2, 3].map(agent));
        let mut comparison = Comparison::new(now);
        comparison.done(now, Some(agent(2)), false, false);
        assert_eq!(comparison.due(now, agent(1), &members, Some(agent(3))), [3, 2].map(agent));
        assert!(comparison.due(now, agent(1), &members, Some(agent(2))).is_empty());
        assert!(comparison.due(now, agent(1), &members, Some(agent(9))).is_empty(), "no member");
        let later = comparison.due(now + HEARD, agent(1), &members, Some(agent(2)));
        assert_eq!(later, [2, 3].map(agent));
    }

    #[test]
    fn who_is_alone_asks_nobody() {
        let now = Instant::now();
        assert!(Comparison::new(now).due(now, agent(1), &[agent(1)], None).is_empty());
        assert!(Comparison::new(now).due(now, agent(1), &[], None).is_empty());
    }
}
