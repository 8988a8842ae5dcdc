//! What may go wrong, and who is at fault.

use x0x_trust::Reason;

use crate::record::Phase;

/// A file was not offered. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendFileError {
    /// The caller named a path that is not absolute.
    #[error("the path must be absolute")]
    NotAbsolute,
    /// The file cannot be read; the caller's path or its permissions are wrong.
    #[error("cannot read the file: {0}")]
    Unreadable(String),
    /// A folder, link, pipe or device: only regular files are sent.
    #[error("not a regular file")]
    NotAFile,
    /// The file holds keys or state of this machine, or is no content but a view into its system. The
    /// caller is at fault.
    #[error("this file is never sent: {0}")]
    Protected(&'static str),
    /// The recipient is blocked, revoked, or otherwise not to be sent to.
    #[error("agent is {0}")]
    Forbidden(Reason),
    /// The recipient is this agent itself.
    #[error("a file cannot be sent to this agent itself")]
    Own,
    /// Too many transfers have not ended.
    #[error("too many transfers (at most {0})")]
    Limit(usize),
    /// The disk did not take the transfer's record.
    #[error("cannot keep the transfer: {0}")]
    Storage(String),
    /// File transfers were shut down.
    #[error("file transfers are closed")]
    Closed,
}

/// A transfer was not changed as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeTransferError {
    /// There is no such transfer.
    #[error("transfer not found")]
    NotFound,
    /// The transfer is not in a state in which that can be done. The caller is at fault.
    #[error("transfer is {0}")]
    NotPossible(Phase),
    /// It is not an incoming one.
    #[error("transfer is not incoming")]
    NotIncoming,
    /// There is not enough room on the disk for it.
    #[error("not enough space: {needed} bytes are needed, {free} are free")]
    NoSpace {
        /// Bytes that the file still needs, with those that other transfers need.
        needed: u64,
        /// Bytes that may be used.
        free: u64,
    },
    /// The folder cannot be used: others may write to it, or it is none.
    #[error("cannot use the folder: {0}")]
    Folder(String),
    /// The disk did not take the change.
    #[error("cannot keep the change: {0}")]
    Storage(String),
    /// File transfers were shut down.
    #[error("file transfers are closed")]
    Closed,
}

/// Work on the disk or the network that did not succeed, as the machine is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WorkError {
    /// The disk, or its quota, is full. Goes on when there is room again.
    #[error("no space left on the disk")]
    NoSpace,
    /// The file that is sent is not the one that was offered any more.
    #[error("the file has changed since it was offered")]
    SourceChanged,
    /// The file is one that is never sent.
    #[error("the file is never sent: {0}")]
    SourceProtected(&'static str),
    /// The file that is sent cannot be read.
    #[error("the file cannot be read: {0}")]
    SourceGone(String),
    /// The peer sent what does not match the hash that it offered.
    #[error("the content does not match the offered hash")]
    BadContent,
    /// The SHA-256 of the whole file is another one than was stated.
    #[error("the SHA-256 does not match")]
    BadSha256,
    /// The session ended, or the work is not wanted any more.
    #[error("the session ended")]
    Disconnected,
    /// The peer takes no content.
    #[error("the peer takes nothing")]
    Stalled,
    /// The disk took bytes and did not make them durable.
    #[error("the disk does not keep what it was given")]
    Unsynced,
    /// The disk failed.
    #[error("{0}")]
    Disk(String),
}
