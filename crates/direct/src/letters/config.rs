//! Settings and bounds of letters.

use std::time::Duration;

/// Agents whose grants are kept here; the one that was heard of longest ago goes.
pub const MAX_GRANTS: usize = 1024;
/// Agents on machines that were given a mailbox; the one that was met longest ago goes, strangers first.
pub const MAX_CORRESPONDENTS: usize = 1024;
/// Machines of one agent among them; the one on which it was met longest ago goes.
pub const MAX_MACHINES: usize = 4;

/// Settings of letters.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LettersConfig {
    /// Whether letters of others are kept here. Default true.
    pub holds: bool,
    /// Whether messages for those who are not there are left with others. Default true.
    pub deposits: bool,
    /// Bytes kept for others in all. 64 MiB: five thousand small letters.
    pub hold_bytes: u64,
    /// How much of them strangers may fill together. A quarter.
    pub stranger_bytes: u64,
    /// Bytes under one tag, that is from one correspondent to one recipient. 8 MiB.
    pub tag_bytes: u64,
    /// Letters under one tag. 512.
    pub tag_letters: usize,
    /// Bytes that the machine of a contact may leave in a day. 32 MiB.
    pub contact_daily: u64,
    /// Bytes that any other machine may leave in a day. 4 MiB: about three hundred small letters.
    pub stranger_daily: u64,
    /// The longest time that a letter is kept. 7 days.
    pub lifetime: Duration,
    /// How long a recipient has been out of reach before letters for it are left with others. 5 s.
    pub deposit_after: Duration,
    /// Holders of each letter. 3: two of them may go away or cheat.
    pub copies: usize,
    /// How long a letter waits for the one before it, which its other holders may bring. 60 s.
    pub hole_patience: Duration,
    /// How often the same machine is asked for letters, unless a new session begins after it. 10 min.
    pub ask_interval: Duration,
}

impl Default for LettersConfig {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        Self {
            holds: true,
            deposits: true,
            hold_bytes: 64 * MIB,
            stranger_bytes: 16 * MIB,
            tag_bytes: 8 * MIB,
            tag_letters: 512,
            contact_daily: 32 * MIB,
            stranger_daily: 4 * MIB,
            lifetime: Duration::from_secs(7 * 24 * 3600),
            deposit_after: Duration::from_secs(5),
            copies: 3,
            hole_patience: Duration::from_secs(60),
            ask_interval: Duration::from_secs(600),
        }
    }
}
