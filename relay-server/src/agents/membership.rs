//! Who serves one endpoint: the rules of attaching, as a function of what happened.
//!
//! Knows sessions by number and agents by name; it holds no handle, sends nothing and reads no clock. Each
//! method says whose role changed, and the registry tells them.
//!
//! Rules: shared agents all serve. Where the endpoint or an agent asks for exclusivity, one serves and the
//! others stand by, oldest first. An agent that left the choice to the relay gets copies while an agent of
//! another name is there or left less than [`RECENTLY`] ago, so that a restart in production does not hand its
//! traffic to a laptop.

use std::{sync::Arc, time::Duration};

use relay_proto::Attach;
use tokio::time::Instant;

/// An agent that left less than this ago is expected back.
pub(crate) const RECENTLY: Duration = Duration::from_secs(60);

/// A session, by its epoch: no two sessions of a relay have the same.
pub(crate) type Epoch = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It gets exchanges.
    Active,
    /// It gets none while another one is active.
    Standby,
    /// It gets copies of what others get.
    Copy,
}

/// How an agent wishes to attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub attach: Attach,
    /// Become active at once, where only one may be.
    pub takeover: bool,
}

pub(crate) type RoleChanges = Vec<(Epoch, Role)>;

#[derive(Debug)]
struct Member {
    epoch: Epoch,
    agent: Arc<str>,
    wish: Wish,
    role: Role,
    /// It did not answer when another one wanted its place.
    silent: bool,
}

impl Member {
    fn can_share(&self) -> bool {
        self.wish.attach != Attach::Exclusive && !self.silent
    }
}

#[derive(Debug, Default)]
pub(crate) struct Membership {
    exclusive: bool,
    /// Oldest first.
    members: Vec<Member>,
    left: Option<(Instant, Arc<str>)>,
}

impl Membership {
    /// Whether the endpoint takes one active agent at a time. Of several that serve it the oldest goes on; when it is
    /// shared again, who stands by for that reason alone serves, too.
    pub(crate) fn set_exclusive(&mut self, exclusive: bool) -> RoleChanges {
        let was = std::mem::replace(&mut self.exclusive, exclusive);
        let oldest = self.members.iter().find(|member| member.role == Role::Active).filter(|_| was != exclusive);
        let Some(&Member { epoch, wish, .. }) = oldest else { return RoleChanges::new() };
        if exclusive {
            self.set(|member| member.role == Role::Active && member.epoch != epoch, Role::Standby)
        } else if self.one_at_a_time(wish) {
            RoleChanges::new()
        } else {
            self.set(|member| member.role == Role::Standby && member.can_share(), Role::Active)
        }
    }

    /// The sessions of this role, oldest first.
    pub(crate) fn epochs(&self, role: Role) -> impl Iterator<Item = Epoch> + '_ {
        self.members.iter().filter(move |member| member.role == role).map(|member| member.epoch)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = Epoch> + '_ {
        self.members.iter().map(|member| member.epoch)
    }

    fn member(&self, epoch: Epoch) -> Option<&Member> {
        self.members.iter().find(|member| member.epoch == epoch)
    }

    pub(crate) fn role(&self, epoch: Epoch) -> Option<Role> {
        self.member(epoch).map(|member| member.role)
    }

    pub(crate) fn wish(&self, epoch: Epoch) -> Option<Wish> {
        self.member(epoch).map(|member| member.wish)
    }

    /// Whether an agent that could be active left a moment ago.
    pub(crate) fn left_recently(&self, now: Instant) -> bool {
        self.left.as_ref().is_some_and(|(left, _)| now.duration_since(*left) < RECENTLY)
    }

    /// A session attaches. One that is there already stays as it is: the first of two equal offers counts.
    pub(crate) fn join(&mut self, epoch: Epoch, agent: impl Into<Arc<str>>, wish: Wish, now: Instant) -> RoleChanges {
        let (mut changes, agent) = (RoleChanges::new(), agent.into());
        if self.member(epoch).is_some() {
            return changes;
        }
        if !matches!(wish.attach, Attach::Auto | Attach::Copy) {
            // An agent that was there for want of a better one makes room.
            let yields = |member: &Member| member.wish.attach == Attach::Auto && member.agent != agent;
            changes.extend(self.set(|member| yields(member) && member.role != Role::Copy, Role::Copy));
        }
        let role = self.role_of_newcomer(&agent, wish, now);
        if role == Role::Active && self.one_at_a_time(wish) {
            changes.extend(self.set(|member| member.role == Role::Active, Role::Standby));
        }
        self.members.push(Member { epoch, agent, wish, role, silent: false });
        changes.push((epoch, role));
        changes
    }

    fn role_of_newcomer(&self, agent: &str, wish: Wish, now: Instant) -> Role {
        let occupied = self.members.iter().any(|member| member.role == Role::Active);
        match wish.attach {
            Attach::Copy => Role::Copy,
            Attach::Auto if self.another_is_there(agent, now) => Role::Copy,
            _ if !occupied || wish.takeover => Role::Active,
            _ if self.one_at_a_time(wish) => Role::Standby,
            _ => Role::Active,
        }
    }

    fn one_at_a_time(&self, wish: Wish) -> bool {
        let wants = |wish: Wish| wish.attach == Attach::Exclusive;
        let active = |member: &Member| member.role == Role::Active && wants(member.wish);
        self.exclusive || wants(wish) || self.members.iter().any(active)
    }

    /// Whether an agent of another name serves here, or did until a moment ago.
    fn another_is_there(&self, agent: &str, now: Instant) -> bool {
        let serves = |member: &Member| *member.agent != *agent && member.role != Role::Copy;
        self.members.iter().any(serves)
            || (self.left_recently(now) && self.left.as_ref().is_some_and(|(_, name)| **name != *agent))
    }

    /// A session takes the place of an older one of the same agent; `None` if that was not there, or in
    /// another way.
    pub(crate) fn succeed(&mut self, older: Epoch, newer: Epoch, wish: Wish) -> Option<Role> {
        let member = self.members.iter_mut().find(|member| member.epoch == older)?;
        if member.wish.attach != wish.attach || (wish.takeover && member.role != Role::Active) {
            return None;
        }
        *member = Member { epoch: newer, agent: std::mem::take(&mut member.agent), wish, silent: false, ..*member };
        Some(member.role)
    }

    pub(crate) fn leave(&mut self, epoch: Epoch, now: Instant) -> RoleChanges {
        let Some(place) = self.members.iter().position(|member| member.epoch == epoch) else { return Vec::new() };
        let member = self.members.remove(place);
        if member.role != Role::Copy {
            self.left = Some((now, member.agent));
        }
        self.fill()
    }

    /// The active sessions in `silent` did not answer while `challenger` stood by for their place.
    pub(crate) fn yield_to(&mut self, challenger: Epoch, silent: &[Epoch]) -> RoleChanges {
        if self.role(challenger) != Some(Role::Standby) {
            return RoleChanges::new();
        }
        let yields = |member: &Member| member.role == Role::Active && silent.contains(&member.epoch);
        self.members.iter_mut().filter(|member| yields(member)).for_each(|member| member.silent = true);
        let mut changes = self.set(yields, Role::Standby);
        changes.extend(self.fill());
        changes
    }

    /// A session that was silent has answered: it may be active again when its turn comes.
    pub(crate) fn answered(&mut self, epoch: Epoch) {
        self.members.iter_mut().filter(|member| member.epoch == epoch).for_each(|member| member.silent = false);
    }

    /// Nobody serves: an agent that only had copies for the sake of others takes over, once none of them
    /// was there for [`RECENTLY`].
    pub(crate) fn promote_copy(&mut self, now: Instant) -> RoleChanges {
        let idle = self.members.iter().all(|member| member.role == Role::Copy) && !self.left_recently(now);
        let first = self.members.iter().find(|member| member.wish.attach == Attach::Auto).filter(|_| idle);
        let Some(epoch) = first.map(|member| member.epoch) else { return RoleChanges::new() };
        self.set(|member| member.epoch == epoch, Role::Active)
    }

    /// Makes the next in line active where nobody is.
    fn fill(&mut self) -> RoleChanges {
        let waits = |member: &&Member| member.role == Role::Standby;
        let occupied = self.members.iter().any(|member| member.role == Role::Active);
        let answers = self.members.iter().filter(waits).find(|member| !member.silent);
        let next = answers.or_else(|| self.members.iter().find(waits)).filter(|_| !occupied);
        let Some(&Member { epoch, wish, .. }) = next else { return RoleChanges::new() };
        let alone = self.one_at_a_time(wish);
        let rises = |member: &Member| member.epoch == epoch || (!alone && member.can_share());
        self.set(|member| member.role == Role::Standby && rises(member), Role::Active)
    }

    fn set(&mut self, which: impl Fn(&Member) -> bool, role: Role) -> RoleChanges {
        let chosen = self.members.iter_mut().filter(|member| which(member));
        let set = |member: &mut Member| {
            member.role = role;
            (member.epoch, role)
        };
        chosen.map(set).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Role::*, *};

    const SHARED: Wish = Wish { attach: Attach::Shared, takeover: false };
    const EXCLUSIVE: Wish = Wish { attach: Attach::Exclusive, takeover: false };
    const TAKEOVER: Wish = Wish { attach: Attach::Exclusive, takeover: true };
    const COPY: Wish = Wish { attach: Attach::Copy, takeover: false };
    const AUTO: Wish = Wish { attach: Attach::Auto, takeover: false };

    fn members() -> (Membership, Instant) {
        (Membership::default(), Instant::now())
    }

    #[test]
    fn shared_agents_all_serve() {
        let (mut members, now) = members();
        assert_eq!(members.join(1, "a", SHARED, now), [(1, Active)]);
        assert_eq!(members.join(2, "b", SHARED, now), [(2, Active)]);
        assert_eq!(members.leave(1, now), []);
        assert_eq!(members.epochs(Active).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn of_exclusive_agents_one_serves_and_the_oldest_takes_its_place() {
        let (mut members, now) = members();
        assert_eq!(members.join(1, "a", EXCLUSIVE, now), [(1, Active)]);
        assert_eq!(members.join(2, "b", EXCLUSIVE, now), [(2, Standby)]);
        assert_eq!(members.join(3, "c", SHARED, now), [(3, Standby)], "an exclusive agent shares with nobody");
        assert_eq!(members.leave(1, now), [(2, Active)]);
        assert_eq!(members.leave(2, now), [(3, Active)]);
    }

    #[test]
    fn an_exclusive_endpoint_makes_every_agent_exclusive() {
        let (mut members, now) = members();
        members.set_exclusive(true);
        members.join(1, "a", SHARED, now);
        assert_eq!(members.join(2, "b", SHARED, now), [(2, Standby)]);
        assert_eq!(members.join(3, "c", SHARED, now), [(3, Standby)]);
        assert_eq!(members.leave(1, now), [(2, Active)], "one only");
    }

    #[test]
    fn an_endpoint_that_becomes_exclusive_keeps_its_oldest_agent_and_shares_again_later() {
        let (mut members, now) = members();
        members.join(1, "a", SHARED, now);
        members.join(2, "b", SHARED, now);
        members.join(3, "w", COPY, now);
        assert_eq!(members.set_exclusive(true), [(2, Standby)]);
        assert_eq!(members.set_exclusive(true), []);
        members.join(4, "c", EXCLUSIVE, now);
        assert_eq!(members.set_exclusive(false), [(2, Active)], "the other one asked to be alone");
    }

    #[test]
    fn a_session_stands_once_at_an_endpoint() {
        let (mut members, now) = members();
        members.join(1, "a", SHARED, now);
        assert_eq!(members.join(1, "a", EXCLUSIVE, now), []);
        assert_eq!((members.all().count(), members.role(1)), (1, Some(Active)));
    }

    #[test]
    fn a_takeover_makes_the_older_one_stand_by() {
        let (mut members, now) = members();
        members.join(1, "a", EXCLUSIVE, now);
        assert_eq!(members.join(2, "b", TAKEOVER, now), [(1, Standby), (2, Active)]);
        assert_eq!(members.leave(2, now), [(1, Active)]);
    }

    #[test]
    fn a_silent_active_agent_yields_and_comes_last_until_it_answers() {
        let (mut members, now) = members();
        members.join(1, "a", EXCLUSIVE, now);
        members.join(2, "b", EXCLUSIVE, now);
        assert_eq!(members.yield_to(2, &[]), [], "it answered");
        assert_eq!(members.yield_to(2, &[1]), [(1, Standby), (2, Active)]);
        members.join(3, "c", EXCLUSIVE, now);
        assert_eq!(members.leave(2, now), [(3, Active)], "the silent one is older, but silent");
        members.answered(1);
        assert_eq!(members.leave(3, now), [(1, Active)]);
    }

    #[test]
    fn a_newer_session_of_the_same_agent_keeps_its_place() {
        let (mut members, now) = members();
        members.join(1, "a", EXCLUSIVE, now);
        members.join(2, "b", EXCLUSIVE, now);
        assert_eq!(members.succeed(1, 3, EXCLUSIVE), Some(Active));
        assert_eq!((members.role(1), members.role(2)), (None, Some(Standby)));
        assert_eq!(members.succeed(2, 4, TAKEOVER), None, "this one wants more than its place");
        assert_eq!(members.succeed(9, 5, EXCLUSIVE), None);
    }

    #[test]
    fn copies_never_serve_and_nobody_stands_by_for_them() {
        let (mut members, now) = members();
        assert_eq!(members.join(1, "watcher", COPY, now), [(1, Copy)]);
        assert_eq!(members.join(2, "a", EXCLUSIVE, now), [(2, Active)]);
        assert_eq!(members.leave(2, now), []);
        assert_eq!(members.promote_copy(now + 2 * RECENTLY), [], "it asked for copies");
        assert!(members.left_recently(now));
    }

    #[test]
    fn an_agent_without_a_wish_makes_room_for_one_of_another_name() {
        let (mut members, now) = members();
        assert_eq!(members.join(1, "laptop", AUTO, now), [(1, Active)]);
        assert_eq!(members.join(2, "laptop", AUTO, now), [(2, Active)], "its own name is no other agent");
        assert_eq!(members.join(3, "production", SHARED, now), [(1, Copy), (2, Copy), (3, Active)]);
        assert_eq!(members.join(4, "tablet", AUTO, now), [(4, Copy)]);
        assert_eq!(members.leave(3, now), []);
        assert_eq!(members.promote_copy(now + RECENTLY / 2), [], "production is expected back");
        assert_eq!(members.join(5, "tv", AUTO, now + RECENTLY / 2), [(5, Copy)]);
        assert_eq!(members.promote_copy(now + 2 * RECENTLY), [(1, Active)]);
    }

    #[test]
    fn exclusive_agents_that_find_shared_ones_wait_for_all_of_them() {
        let (mut members, now) = members();
        members.join(1, "a", SHARED, now);
        members.join(2, "b", SHARED, now);
        assert_eq!(members.join(3, "c", EXCLUSIVE, now), [(3, Standby)]);
        assert_eq!(members.leave(1, now), []);
        assert_eq!(members.leave(2, now), [(3, Active)]);
    }
}
