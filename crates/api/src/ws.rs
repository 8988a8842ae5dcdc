//! WebSocket frames: JSON text, told apart by `type`.
//!
//! A publisher is always told which of its publishes were not taken: each gets an `error` frame with
//! code `busy` (or why else) that names it by the publish's own `id`, or without one by `index`, the
//! ordinal of the publish in the session, from 1; those that the store refuses later, too. A publish that asks with `"ack": true` is confirmed
//! by a `published` frame; these are cumulative, so one frame may confirm many.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use x0x_core::AgentId;

use crate::{
    cursor::CursorToken,
    encoding::{Base64, Hex16, Hex32, Hex64},
    error::ErrorCode,
    event::{DirectMessageEvent, StoreEvent, TaskEvent, hex_epoch, is_zero},
    types::{DirectClass, Retention, Transfer},
};

/// Largest message that a client may send over a WebSocket, in bytes. A session that sends a larger
/// one is closed. A daemon holds one unfinished message of each session, which this keeps small.
pub const MAX_COMMAND: usize = 1024 * 1024;

/// A name that a client gives one of its frames, echoed as it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
#[non_exhaustive]
pub enum FrameId {
    /// A number.
    Number(u64),
    /// A text.
    Text(String),
}

/// What a client sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ClientFrame {
    /// Adds topics to the session. A topic that it has is not subscribed twice.
    Subscribe {
        /// Topic names.
        topics: Vec<String>,
        /// By topic, where to begin: after the message with this `cursor`, or `now`. A topic that is
        /// not named here begins with the oldest message that the daemon keeps.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        since: BTreeMap<String, String>,
    },
    /// Removes topics from the session.
    Unsubscribe {
        /// Topic names.
        topics: Vec<String>,
    },
    /// Publishes a message.
    Publish {
        /// Topic name.
        topic: String,
        /// The message.
        #[schema(value_type = Base64)]
        payload: String,
        /// How long the message is kept.
        #[serde(default, skip_serializing_if = "Retention::is_standard")]
        retention: Retention,
        /// Echoed by `published` and `error` frames about this publish.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<FrameId>,
        /// Ask for a `published` frame.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        ack: bool,
    },
    /// Sends a direct message. Frames are at most 1 MiB; `POST /direct/send` takes larger messages.
    SendDirect {
        /// The recipient.
        #[schema(value_type = Hex64)]
        agent_id: String,
        /// The message.
        #[schema(value_type = Base64)]
        payload: String,
        /// Echoed by `sent` and `error` frames about this message.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<FrameId>,
        /// Ask for a `sent` frame.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        ack: bool,
        /// Whether it outlives a restart of the recipient's daemon.
        #[serde(default, skip_serializing_if = "DirectClass::is_durable")]
        class: DirectClass,
        /// The message that it answers, a `request_id`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<Hex32>)]
        reply_to: Option<String>,
        /// Names the message, so that sending it again delivers it once; a fresh one unless given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<Hex32>)]
        request_id: Option<String>,
    },
    /// Adds what happens to transfers of files to the session: each that has not ended, then each change
    /// as a `transfer` frame.
    WatchTransfers,
    /// Adds what happens to a task list or a store to the session, as `object` frames.
    Watch {
        /// What it is.
        kind: WatchedKind,
        /// Its id or topic.
        object: String,
        /// The `number` of the frame after which to go on; from now on unless given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<u64>,
    },
    /// Ends that.
    Unwatch {
        /// What it is.
        kind: WatchedKind,
        /// As it was given to `watch`.
        object: String,
    },
    /// Asks for a `pong`.
    Ping,
}

/// What can be watched.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WatchedKind {
    /// A list of tasks.
    TaskList,
    /// A key-value store.
    Store,
}

/// What happened to a watched object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
#[non_exhaustive]
pub enum WatchedEvent {
    /// In a list of tasks.
    Task(TaskEvent),
    /// In a store.
    Store(StoreEvent),
}

/// What the daemon sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ServerFrame {
    /// The first frame.
    Connected {
        /// Names the session.
        session_id: String,
        /// This daemon's agent.
        #[schema(value_type = Hex64)]
        agent_id: AgentId,
    },
    /// A message of a subscribed topic; own publishes come back too. A topic starts with the messages
    /// that the daemon still keeps, so that some may come again after another `subscribe`: `origin`,
    /// `topic`, `epoch` and `seq` together name a message.
    Message {
        /// Topic name.
        topic: String,
        /// The message.
        payload: Base64,
        /// Its author.
        #[schema(value_type = Option<Hex64>, required = true)]
        origin: Option<AgentId>,
        /// The run of the author's daemon that published it: `seq` starts anew in each.
        #[serde(with = "hex_epoch")]
        #[schema(value_type = Hex16)]
        epoch: u64,
        /// Its number among the author's messages of this topic and epoch.
        seq: u64,
        /// How many of these just before it are missing here, since nobody could supply them any more;
        /// a `lagged` frame before it counts them, too. Absent when none is.
        #[serde(default, skip_serializing_if = "is_zero")]
        gap: u64,
        /// The place after it, to resume from.
        cursor: CursorToken,
    },
    /// A direct message to this daemon's agent; on `/ws/direct` only.
    DirectMessage(DirectMessageEvent),
    /// The topics are subscribed; the messages that the daemon keeps and those from here on follow.
    Subscribed {
        /// Topic names as given.
        topics: Vec<String>,
    },
    /// The topics are not delivered any more.
    Unsubscribed {
        /// Topic names as given.
        topics: Vec<String>,
    },
    /// Answers `ping`, follows `connected`, and comes every 30 seconds.
    Pong,
    /// Publishes were taken.
    Published {
        /// The `id` of the last publish that is confirmed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<FrameId>,
        /// How many publishes of this session were taken so far.
        count: u64,
    },
    /// A direct message was taken by the recipient's daemon.
    Sent {
        /// The `id` of the command.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<FrameId>,
        /// Names the message.
        #[schema(value_type = Hex32)]
        request_id: String,
    },
    /// The object is watched: what happens to it from here on follows.
    Watching {
        /// What it is.
        kind: WatchedKind,
        /// As it was given.
        object: String,
    },
    /// The object is not watched any more: because of `unwatch`, or since it was left.
    Unwatched {
        /// What it is.
        kind: WatchedKind,
        /// As it was given.
        object: String,
    },
    /// Something happened to a watched object.
    Object {
        /// What it is.
        kind: WatchedKind,
        /// As it was given to `watch`.
        object: String,
        /// The place of this change, to go on from with `after`.
        number: u64,
        /// What happened.
        event: WatchedEvent,
    },
    /// Changes of a watched object are missing here, or what was told of it does not hold: it is to be read again.
    ObjectLagged {
        /// What it is.
        kind: WatchedKind,
        /// As it was given to `watch`.
        object: String,
        /// How many; 0 when the number is not known.
        missed: u64,
    },
    /// How a transfer of a file stands; to sessions that watch transfers.
    Transfer(Box<Transfer>),
    /// Changes of transfers were missed because the session reads too slowly: `GET /files/transfers` says
    /// how they stand.
    TransfersLagged {
        /// How many.
        missed: u64,
    },
    /// Messages are missing at this place: the session reads too slowly, resumed too late, or nobody
    /// has them any more.
    Lagged {
        /// How many; 0 when the number is not known.
        missed: u64,
        /// Of which topic. Absent for direct messages.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        topic: Option<String>,
    },
    /// A command that was not carried out.
    Error {
        /// What went wrong, for people.
        message: String,
        /// What went wrong, for programs.
        code: ErrorCode,
        /// The command's own `id`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<FrameId>,
        /// Ordinal of the publish in the session, from 1, when it carried no `id`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        index: Option<u64>,
        /// The topic that is not subscribed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        topic: Option<String>,
        /// The direct message that was not sent, or may not have been: sent again with this `request_id`, it is
        /// delivered once.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<Hex32>)]
        request_id: Option<String>,
    },
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A retention that there is not.
    const ODD: &str = r#"{"type":"publish","topic":"t","payload":"","retention":"ever"}"#;

    fn read(value: &serde_json::Value) -> ClientFrame {
        serde_json::from_str(&value.to_string()).expect("valid frame")
    }

    #[test]
    fn client_frames_read_as_documented() {
        let frame = read(&json!({"type": "publish", "topic": "t", "payload": "aGk="}));
        let plain = ClientFrame::Publish {
            topic: "t".into(),
            payload: "aGk=".into(),
            retention: Retention::Standard,
            id: None,
            ack: false,
        };
        assert_eq!(frame, plain);
        let kept = json!({"type": "publish", "topic": "t", "payload": "", "retention": "latest"});
        assert_eq!(serde_json::to_value(read(&kept)).expect("serialises"), kept);
        for id in [json!(7), json!("seven")] {
            let frame = read(
                &json!({"type": "publish", "topic": "t", "payload": "", "id": id, "ack": true}),
            );
            let ClientFrame::Publish { id: Some(read), ack: true, .. } = frame else {
                panic!("no id in {frame:?}");
            };
            assert_eq!(serde_json::to_value(read).expect("serialises"), id);
        }
        let since = json!({"type": "subscribe", "topics": ["a", "b"], "since": {"a": "1-2"}});
        let frame = read(&since);
        assert_eq!(serde_json::to_value(&frame).expect("serialises"), since);
        let ClientFrame::Subscribe { since, .. } =
            read(&json!({"type": "subscribe", "topics": []}))
        else {
            panic!("another frame");
        };
        assert!(since.is_empty());
        assert_eq!(read(&json!({"type": "ping"})), ClientFrame::Ping);
        for bad in [r#"{"type":"nope"}"#, r#"{"topics":[]}"#, "[]", r#"{"type":"publish"}"#, ODD] {
            assert!(serde_json::from_str::<ClientFrame>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn server_frames_are_flat() {
        let frame = ServerFrame::DirectMessage(DirectMessageEvent {
            sender: AgentId::new([1; 32]),
            machine_id: x0x_core::MachineId::new([2; 32]),
            payload: Base64(bytes::Bytes::from_static(b"hi")),
            received_at: 5,
            verified: true,
            trust_decision: None,
            trust_level: None,
            request_id: "0".repeat(32),
            reply_to: None,
            number: 7,
        });
        let json = serde_json::to_value(&frame).expect("serialises");
        assert_eq!(json["type"], "direct_message");
        assert_eq!(json["payload"], "aGk=");
        assert_eq!(serde_json::from_value::<ServerFrame>(json).expect("reads back"), frame);
        let pong = serde_json::to_string(&ServerFrame::Pong).expect("serialises");
        assert_eq!(pong, r#"{"type":"pong"}"#);
        let error = ServerFrame::Error {
            message: "no room".into(),
            code: ErrorCode::Busy,
            id: None,
            index: Some(3),
            topic: None,
            request_id: None,
        };
        let json = serde_json::to_value(&error).expect("serialises");
        let expected = json!({"type": "error", "message": "no room", "code": "busy", "index": 3});
        assert_eq!(json, expected);
    }
}
