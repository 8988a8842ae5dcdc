//! Grammar of groups' cards, and of groups by their keys.

use std::path::PathBuf;

use clap::Subcommand;

/// Finding groups. Flattened into `x0x groups`.
#[derive(Subcommand, Debug)]
pub(crate) enum CardsCommand {
    Discover {
        /// A part of a name or tag, or an id
        #[arg(long = "q", value_name = "TEXT")]
        text: Option<String>,
    },
    #[command(alias = "discover-nearby")]
    Nearby,
    #[command(alias = "discover-subscriptions")]
    Subscriptions,
    #[command(alias = "discover-subscribe")]
    Subscribe {
        /// `tag`, `name` or `id`
        kind: String,
        /// A tag, a word of a name, or an id
        #[arg(long)]
        key: Option<String>,
        /// The shard, in place of a key
        #[arg(long)]
        shard: Option<u32>,
    },
    #[command(alias = "discover-unsubscribe")]
    Unsubscribe {
        /// `tag`, `name` or `id`
        kind: String,
        /// The shard
        shard: u32,
    },
    Card {
        /// The group's id
        group: String,
    },
    #[command(alias = "card-import")]
    Import {
        /// A file with the card as another daemon showed it; `-` for standard input
        file: PathBuf,
    },
    #[command(alias = "secure-encrypt")]
    Encrypt {
        /// The group's id
        group: String,
        /// What to encrypt; `@FILE` for what is in a file
        text: String,
    },
    #[command(alias = "secure-decrypt")]
    Decrypt {
        /// The group's id
        group: String,
        /// The ciphertext, in base64
        ciphertext: String,
        /// Its nonce, in base64
        nonce: String,
        /// The epoch of the group's keys
        epoch: u64,
    },
}

#[derive(Subcommand, Debug)]
pub(crate) enum MlsCommand {
    List,
    Create,
    Show {
        /// The id of the keys
        group: String,
    },
    Add {
        /// The id of the keys
        group: String,
        /// Whom
        agent: String,
    },
    Remove {
        /// The id of the keys
        group: String,
        /// Whom
        agent: String,
    },
    Encrypt {
        /// The id of the keys
        group: String,
        /// What to encrypt
        text: String,
    },
    Decrypt {
        /// The id of the keys
        group: String,
        /// The ciphertext, in base64
        ciphertext: String,
        /// The epoch in which it was made
        #[arg(long)]
        epoch: u64,
    },
    Welcome {
        /// The id of the keys
        group: String,
        /// For whom
        agent: String,
    },
}
