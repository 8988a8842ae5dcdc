//! What a group is: its axes, the presets of them, the roles, and what each role may do.

/// Whether others may learn that the group exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Discoverability {
    /// Nobody outside learns of it; its cards are not made.
    Hidden,
    /// Its members hand its card to their contacts.
    ListedToContacts,
    /// Its card is published.
    PublicDirectory,
}

/// How one comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Admission {
    /// By an invite, or added by somebody who may.
    InviteOnly,
    /// Besides, by a request that somebody approves.
    RequestAccess,
    /// By oneself.
    OpenJoin,
}

/// How contents travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Confidentiality {
    /// Encrypted to the members.
    MlsEncrypted,
    /// Signed, for anybody to read.
    SignedPublic,
}

/// Who reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ReadAccess {
    /// Members.
    MembersOnly,
    /// Anybody.
    Public,
}

/// Who writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum WriteAccess {
    /// Members.
    MembersOnly,
    /// Anybody who is not banned; moderators hide what does not belong.
    ModeratedPublic,
    /// The owner and admins.
    AdminOnly,
}

/// What one may do in a group, the most first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Role {
    /// Who founded it.
    Owner,
    /// Runs it for the owner.
    Admin,
    /// Keeps order.
    Moderator,
    /// Reads and writes.
    Member,
    /// Reads.
    Guest,
}

macro_rules! words {
    ($type:ident { $($variant:ident = $code:literal $word:literal),+ $(,)? }) => {
        impl $type {
            /// All of them.
            pub const ALL: [Self; [$($code),+].len()] = [$(Self::$variant),+];

            /// The number on the wire.
            #[must_use]
            pub const fn code(self) -> u32 {
                match self { $(Self::$variant => $code),+ }
            }

            /// What a number on the wire means.
            #[must_use]
            pub const fn from_code(code: u32) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)+ _ => None }
            }

            /// The word in the API.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// What a word in the API means.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

words!(Discoverability { Hidden = 1 "hidden", ListedToContacts = 2 "listed_to_contacts", PublicDirectory = 3 "public_directory" });
words!(Admission { InviteOnly = 1 "invite_only", RequestAccess = 2 "request_access", OpenJoin = 3 "open_join" });
words!(Confidentiality { MlsEncrypted = 1 "mls_encrypted", SignedPublic = 2 "signed_public" });
words!(ReadAccess { MembersOnly = 1 "members_only", Public = 2 "public" });
words!(WriteAccess { MembersOnly = 1 "members_only", ModeratedPublic = 2 "moderated_public", AdminOnly = 3 "admin_only" });
words!(Role { Owner = 1 "owner", Admin = 2 "admin", Moderator = 3 "moderator", Member = 4 "member", Guest = 5 "guest" });

/// The axes of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupPolicy {
    /// Whether others may learn that it exists.
    pub discoverability: Discoverability,
    /// How one comes in.
    pub admission: Admission,
    /// How contents travel.
    pub confidentiality: Confidentiality,
    /// Who reads.
    pub read_access: ReadAccess,
    /// Who writes.
    pub write_access: WriteAccess,
    /// The last role that may invite.
    pub invite_role: Role,
    /// Whether members hand over to new ones what was written before.
    pub shares_history: bool,
}

/// The presets by name, the default first.
pub const PRESETS: [(&str, GroupPolicy); 4] = [
    ("private_secure", GroupPolicy::PRIVATE_SECURE),
    ("public_request_secure", GroupPolicy::PUBLIC_REQUEST_SECURE),
    ("public_open", GroupPolicy::PUBLIC_OPEN),
    ("public_announce", GroupPolicy::PUBLIC_ANNOUNCE),
];

impl GroupPolicy {
    /// Hidden, by invite, encrypted.
    pub const PRIVATE_SECURE: Self = Self {
        discoverability: Discoverability::Hidden,
        admission: Admission::InviteOnly,
        confidentiality: Confidentiality::MlsEncrypted,
        read_access: ReadAccess::MembersOnly,
        write_access: WriteAccess::MembersOnly,
        invite_role: Role::Admin,
        shares_history: false,
    };
    /// Listed for anybody, by request, encrypted.
    pub const PUBLIC_REQUEST_SECURE: Self = Self {
        discoverability: Discoverability::PublicDirectory,
        admission: Admission::RequestAccess,
        ..Self::PRIVATE_SECURE
    };
    /// Open to anybody; members write.
    pub const PUBLIC_OPEN: Self = Self {
        discoverability: Discoverability::PublicDirectory,
        admission: Admission::OpenJoin,
        confidentiality: Confidentiality::SignedPublic,
        read_access: ReadAccess::Public,
        write_access: WriteAccess::MembersOnly,
        invite_role: Role::Member,
        shares_history: true,
    };
    /// Open to anybody; admins write.
    pub const PUBLIC_ANNOUNCE: Self =
        Self { write_access: WriteAccess::AdminOnly, ..Self::PUBLIC_OPEN };

    /// The preset of a name; case does not matter, nor whether `-` or `_` parts the words.
    #[must_use]
    pub fn preset(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase().replace('-', "_");
        PRESETS.iter().find(|(preset, _)| *preset == name).map(|(_, policy)| *policy)
    }

    /// Whether the axes agree: an encrypted group has no readers or writers outside.
    #[must_use]
    pub fn is_consistent(&self) -> bool {
        self.confidentiality == Confidentiality::SignedPublic
            || (self.read_access == ReadAccess::MembersOnly
                && self.write_access != WriteAccess::ModeratedPublic)
    }

    /// Whether contents and state are encrypted to the members.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.confidentiality == Confidentiality::MlsEncrypted
    }

    /// Whether a role may invite; guests never.
    #[must_use]
    pub fn may_invite(&self, role: Role) -> bool {
        role <= self.invite_role && role != Role::Guest
    }

    /// Whether an agent may write: its role, if it has one. Who is banned is no matter of this.
    #[must_use]
    pub fn may_write(&self, role: Option<Role>) -> bool {
        match self.write_access {
            WriteAccess::AdminOnly => role.is_some_and(|role| role <= Role::Admin),
            WriteAccess::MembersOnly => role.is_some_and(|role| role <= Role::Member),
            WriteAccess::ModeratedPublic => true,
        }
    }
}

impl Role {
    /// Whether it may give `role` to an agent that has `now`: only what is below itself, and only to
    /// who is.
    #[must_use]
    pub fn may_set(self, now: Option<Self>, role: Self) -> bool {
        self <= Self::Admin && role > self && now.is_none_or(|now| now > self)
    }

    /// Whether it may remove an agent of another role.
    #[must_use]
    pub fn may_remove(self, other: Self) -> bool {
        self <= Self::Moderator && other > self
    }
}
