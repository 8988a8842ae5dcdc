//! What is measured.

use x0x_presence::PresenceState;
use x0x_rendezvous::{FinderInput, Subject};

use super::{Life, Manner, SETTLED, Search, Viewers, World};

impl World {
    pub(super) fn begin_search(&mut self) {
        let from = self.running[self.rng.below(self.running.len())];
        let target = self.running[self.rng.below(self.running.len())];
        let is_settled = |n: usize| {
            let life = self.nodes[n].life.as_ref();
            life.is_some_and(|life| self.now.since(life.since) >= SETTLED)
        };
        let honest = |n: usize| self.nodes[n].manner == Manner::Honest;
        if from == target || ![from, target].iter().all(|n| honest(*n) && is_settled(*n)) {
            return;
        }
        self.tickets += 1;
        let (ticket, begun) = (self.tickets, self.now);
        let lives = (self.nodes[from].lives, self.nodes[target].lives);
        self.searches.insert(ticket, Search { from, target, lives, begun });
        let subject = Subject::Agent(self.nodes[target].agent);
        let deadline = begun + self.config.patience;
        self.finder(from, FinderInput::Find { ticket, subject, after: None, deadline });
    }

    /// A search found nothing; that says something if both ends were there all the while.
    pub(super) fn missed(&mut self, search: &Search) {
        let there = |n: usize, lives: u32| {
            let node = &self.nodes[n];
            node.lives == lives && node.life.is_some()
        };
        if there(search.from, search.lives.0) && there(search.target, search.lives.1) {
            self.report.missed += 1;
        }
    }

    /// Who sees a node online, and whether by a session.
    pub(super) fn viewers(&self, subject: usize) -> Viewers {
        let sees = |viewer: &usize| {
            let node = &self.nodes[*viewer];
            let life = node.life.as_ref()?;
            let (state, _) = life.seen.get(&subject)?;
            let linked = life.neighbors.contains(&subject);
            let matters = linked || node.watched.contains(&self.nodes[subject].agent);
            let counts = matters && *state == PresenceState::Online;
            counts.then_some((*viewer, (node.lives, linked)))
        };
        self.running.iter().filter_map(sees).collect()
    }

    /// A viewer's picture of another node changes.
    pub(super) fn looks(&mut self, viewer: usize, subject: usize, state: PresenceState) {
        let now = self.now;
        let there = self.nodes[subject].life.as_ref().map(|life| life.since);
        let Some(life) = &self.nodes[viewer].life else { return };
        let linked = life.links.contains(&subject);
        // Of strangers whose session was closed for want of use nothing is promised.
        let noted = self.nodes[subject].killed.as_ref();
        let noted = noted.is_some_and(|(_, viewers)| viewers.contains_key(&viewer));
        let matters = noted
            || life.neighbors.contains(&subject)
            || self.nodes[viewer].watched.contains(&self.nodes[subject].agent);
        let Some(life) = &mut self.nodes[viewer].life else { return };
        let before = life.seen.insert(subject, (state, now));
        if !self.measuring || !matters {
            return;
        }
        let sight = if linked { &mut self.report.linked } else { &mut self.report.told };
        if let Some((PresenceState::Online, since)) = before {
            sight.online += now.since(since);
            let all_the_while = there.is_some_and(|start| start <= since);
            match state {
                PresenceState::Away if all_the_while => sight.false_away += 1,
                _ => {}
            }
        }
        if state == PresenceState::Offline {
            let seen = before.map_or(now, |(_, since)| since);
            if there.is_some_and(|start| start <= seen && now.since(start) >= SETTLED) {
                sight.false_offline += 1;
            }
            let killed = self.nodes[subject].killed.as_mut();
            let noted = killed.and_then(|(at, viewers)| Some((*at, viewers.remove(&viewer)?)));
            if let Some((at, (_, linked))) = noted {
                let sight = if linked { &mut self.report.linked } else { &mut self.report.told };
                sight.detected.push(now.since(at));
            }
        }
    }

    /// A viewer ends: what it saw until now counts.
    pub(super) fn forget_seen(&mut self, n: usize, life: &Life) {
        if !self.measuring {
            return;
        }
        for (subject, (state, since)) in &life.seen {
            let linked = life.neighbors.contains(subject);
            let watched = self.nodes[n].watched.contains(&self.nodes[*subject].agent);
            if *state == PresenceState::Online && (linked || watched) {
                let sight = if linked { &mut self.report.linked } else { &mut self.report.told };
                sight.online += self.now.since(*since);
            }
        }
    }
}
