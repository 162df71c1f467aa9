//! The application's data as JSON, with the fields in alphabetical order, as the original sends
//! them.

use super::{Activity, DirectMessage, MessageGroup, Time};
use crate::text::json::{Json, WriteJson};
use crate::text::time;

/// ```text
/// {"created_at":"2023-02-18T02:30:00.001000+00:00","display_name":"Andrew Brown","expires_at":"...",
///  "handle":"andrewbrown","likes_count":5,"message":"Cloud is fun!","replies":[...],
///  "replies_count":1,"reposts_count":0,"uuid":"68f126b0-1ceb-4a33-88be-d90fa7109eee"}
/// ```
impl WriteJson for Activity {
    fn write(&self, json: &mut Json) {
        json.raw(r#"{"created_at":"#);
        self.created_at.write(json);
        json.raw(r#","display_name":"#).string(&self.display_name).raw(r#","expires_at":"#);
        self.expires_at.write(json);
        json.raw(r#","handle":"#).string(&self.handle);
        json.raw(r#","likes_count":"#).unsigned(self.likes_count.into());
        json.raw(r#","message":"#).string(&self.message).raw(r#","replies":"#);
        self.replies.write(json);
        json.raw(r#","replies_count":"#).unsigned(self.replies_count as u64);
        if let Some(activity) = &self.reply_to_activity_uuid {
            json.raw(r#","reply_to_activity_uuid":"#).string(activity);
        }
        json.raw(r#","reposts_count":"#).unsigned(self.reposts_count.into());
        json.raw(r#","uuid":"#).string(&self.uuid).raw("}");
    }
}

impl WriteJson for DirectMessage {
    fn write(&self, json: &mut Json) {
        json.raw(r#"{"created_at":"#);
        self.created_at.write(json);
        json.raw(r#","display_name":"#).string(&self.display_name).raw(r#","handle":"#).string(&self.handle);
        json.raw(r#","message":"#).string(&self.message).raw(r#","uuid":"#).string(&self.uuid).raw("}");
    }
}

impl WriteJson for MessageGroup {
    fn write(&self, json: &mut Json) {
        json.raw(r#"{"created_at":"#);
        self.created_at.write(json);
        json.raw(r#","display_name":"#).string(&self.display_name).raw(r#","handle":"#).string(&self.handle);
        json.raw(r#","uuid":"#).string(&self.uuid).raw("}");
    }
}

impl WriteJson for Time {
    fn write(&self, json: &mut Json) {
        json.quoted(time::micros_with_offset(self.0));
    }
}
