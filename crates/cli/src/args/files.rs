//! Grammar of files.

use std::path::PathBuf;

use clap::Args;

#[derive(Args, Debug)]
pub(crate) struct SendFileArguments {
    /// The recipient's id
    pub(crate) agent: String,
    /// The file
    pub(crate) path: PathBuf,
    /// The name to offer it under, if not its own
    #[arg(long, value_name = "NAME")]
    pub(crate) filename: Option<String>,
    /// What kind of file it is, such as image/png
    #[arg(long, value_name = "TYPE")]
    pub(crate) media_type: Option<String>,
    /// Show the progress until the recipient has it
    #[arg(long)]
    pub(crate) wait: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ReceiveFileArguments {
    /// Accept the files that this agent offers, and show their progress
    #[arg(long, value_name = "AGENT")]
    pub(crate) accept_from: Option<String>,
    /// Wait for an offer when there is none yet
    #[arg(long, requires = "accept_from")]
    pub(crate) wait: bool,
    /// Where they go, if not into the daemon's folder of received files
    #[arg(long, value_name = "DIR", requires = "accept_from")]
    pub(crate) output_dir: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct AcceptFileArguments {
    /// The transfer's id
    pub(crate) id: String,
    /// Where the file goes, if not into the daemon's folder of received files
    #[arg(long, value_name = "DIR")]
    pub(crate) output_dir: Option<PathBuf>,
    /// Show the progress until the file is there
    #[arg(long)]
    pub(crate) wait: bool,
}
