//! Data written since the start. It is held in memory, in a bounded number, until it expires.

use std::cell::RefCell;
use std::collections::VecDeque;

use super::{Activity, DirectMessage, Time};

/// Activities, replies and messages. One thread answers requests, so there is no lock.
#[derive(Default)]
pub struct Store {
    activities: RefCell<VecDeque<Activity>>,
    replies: RefCell<VecDeque<Activity>>,
    messages: RefCell<VecDeque<(String, DirectMessage, Time)>>,
}

/// Maximum number of each kind; the oldest is removed first.
const MAX_KEPT: usize = 200;

impl Store {
    /// Stores an activity.
    pub(super) fn add_activity(&self, activity: Activity, now: Time) {
        keep(&mut self.activities.borrow_mut(), activity, |kept| kept.expires_at > now);
    }

    /// Stores a reply.
    pub(super) fn add_reply(&self, reply: Activity, now: Time) {
        keep(&mut self.replies.borrow_mut(), reply, |kept| kept.expires_at > now);
    }

    /// Stores a message to `receiver`.
    pub(super) fn add_message(&self, receiver: String, message: DirectMessage, expires_at: Time, now: Time) {
        keep(&mut self.messages.borrow_mut(), (receiver, message, expires_at), |(_, _, expires)| *expires > now);
    }

    /// Activities for which `wanted` is true, newest first, with their replies.
    pub(super) fn activities(&self, now: Time, wanted: impl Fn(&Activity) -> bool) -> Vec<Activity> {
        let activities = self.activities.borrow();
        let found = activities.iter().rev().filter(|activity| activity.expires_at > now && wanted(activity));
        self.with_replies(found.cloned().collect(), now)
    }

    /// A reply by its uuid.
    pub(super) fn reply(&self, uuid: &str, now: Time) -> Option<Activity> {
        let replies = self.replies.borrow();
        replies.iter().find(|reply| reply.uuid == uuid && reply.expires_at > now).cloned()
    }

    /// Adds to each activity the replies to it.
    pub(super) fn with_replies(&self, mut activities: Vec<Activity>, now: Time) -> Vec<Activity> {
        for reply in self.replies.borrow().iter().filter(|reply| reply.expires_at > now) {
            for activity in &mut activities {
                if reply.reply_to_activity_uuid.as_ref() == Some(&activity.uuid) {
                    activity.replies.push(reply.clone());
                    activity.replies_count += 1;
                }
            }
        }
        activities
    }

    /// Messages to `receiver`, oldest first.
    pub(super) fn messages_to(&self, receiver: &str, now: Time) -> Vec<DirectMessage> {
        let messages = self.messages.borrow();
        let to_receiver = messages.iter().filter(|(to, _, expires)| to == receiver && *expires > now);
        to_receiver.map(|(_, message, _)| message.clone()).collect()
    }

    /// The receivers of messages, each with the last message to them.
    pub(super) fn receivers(&self, now: Time) -> Vec<(String, DirectMessage)> {
        let mut receivers: Vec<(String, DirectMessage)> = Vec::new();
        for (to, message, _) in self.messages.borrow().iter().filter(|(_, _, expires)| *expires > now) {
            match receivers.iter_mut().find(|(receiver, _)| receiver == to) {
                Some((_, last)) => *last = message.clone(),
                None => receivers.push((to.clone(), message.clone())),
            }
        }
        receivers
    }
}

fn keep<T>(kept: &mut VecDeque<T>, new: T, still_good: impl Fn(&T) -> bool) {
    kept.retain(still_good);
    if kept.len() == MAX_KEPT {
        kept.pop_front();
    }
    kept.push_back(new);
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::activities::mock;

    #[test]
    fn what_has_expired_is_gone_and_the_oldest_makes_room() {
        let store = Store::default();
        let now = Time::now();
        let written = |n: usize, lives: TimeDelta| Activity {
            message: n.to_string().into(),
            expires_at: now + lives,
            ..mock::user("worf", now).remove(0)
        };
        store.add_activity(written(0, TimeDelta::seconds(1)), now);
        assert_eq!(store.activities(now, |_| true).len(), 1);
        let later = now + TimeDelta::seconds(1);
        assert_eq!(store.activities(later, |_| true).len(), 0);
        for n in 1..=MAX_KEPT + 1 {
            store.add_activity(written(n, TimeDelta::days(1)), later);
        }
        let kept = store.activities(later, |_| true);
        assert_eq!(kept.len(), MAX_KEPT);
        assert_eq!((&*kept[0].message, &*kept[MAX_KEPT - 1].message), ("201", "2"));
    }
}
