//! Whose data a folder holds. A key that was lost or damaged becomes another agent's, to which nothing of the
//! first one is to be handed.

use std::path::{Path, PathBuf};

use x0x_core::AgentId;
use x0x_identity::private_file::{self, Access, FileError};

/// Holds the agent's id in hex.
const FILE: &str = "agent-id";
/// Bytes of a file that are looked at.
const MAX_TEXT: usize = 256;

/// The data are not this agent's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OwnerError {
    /// The key is another one than it was.
    #[error(
        "{} says that the data there are agent {owner}'s, and the key is of {agent}: bring back the key, name another \
         data directory, or remove that file to hand the data over", .file.display()
    )]
    Other { file: PathBuf, owner: AgentId, agent: AgentId },
    /// There is no key any more.
    #[error(
        "{} says that the data there are agent {owner}'s, and its key is gone: bring back the key, name another data \
         directory, or remove that file to hand the data to a new agent", .file.display()
    )]
    Gone { file: PathBuf, owner: AgentId },
    /// The file is damaged.
    #[error("{} holds no agent id: remove it if the key is the right one", .0.display())]
    Damaged(PathBuf),
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// The agent whose data are in a folder; none of a new one.
pub(crate) fn read(data: &Path) -> Result<Option<AgentId>, OwnerError> {
    let file = data.join(FILE);
    let Some(text) = private_file::read(&file, MAX_TEXT)? else { return Ok(None) };
    let id = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
    id.map(Some).ok_or(OwnerError::Damaged(file))
}

/// That there is a key for the data that are there.
pub(crate) fn expect_key(data: &Path, present: bool) -> Result<(), OwnerError> {
    match read(data)? {
        Some(owner) if !present => Err(OwnerError::Gone { file: data.join(FILE), owner }),
        _ => Ok(()),
    }
}

/// That the data are an agent's; they become its if they are nobody's.
pub(crate) fn claim(data: &Path, agent: AgentId) -> Result<(), OwnerError> {
    match read(data)? {
        Some(owner) if owner != agent => {
            Err(OwnerError::Other { file: data.join(FILE), owner, agent })
        }
        Some(_) => Ok(()),
        None => hand_over(data, agent),
    }
}

/// Hands data over to an agent.
pub(crate) fn hand_over(data: &Path, agent: AgentId) -> Result<(), OwnerError> {
    private_file::make_folder(data)?;
    let text = format!("{agent}\n");
    Ok(private_file::replace(&data.join(FILE), text.as_bytes(), Access::Owner)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_stay_with_their_agent() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        let (first, second) = (AgentId::new([1; 32]), AgentId::new([2; 32]));
        expect_key(&data, false).expect("nobody's");
        claim(&data, first).expect("new");
        claim(&data, first).expect("its own");
        assert!(
            matches!(claim(&data, second), Err(OwnerError::Other { owner, .. }) if owner == first)
        );
        assert!(matches!(expect_key(&data, false), Err(OwnerError::Gone { .. })));
        hand_over(&data, second).expect("written");
        claim(&data, second).expect("handed over");
        std::fs::write(data.join(FILE), "x").expect("damaged");
        assert!(matches!(claim(&data, second), Err(OwnerError::Damaged(_))));
    }
}
