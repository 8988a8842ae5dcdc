//! Room on the disk, shared by all files that arrive at once.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use crate::{error::WorkError, store::FileStore};

/// Bytes that are written before the disk is looked at again.
const STRIDE: u64 = 16 * 1024 * 1024;

/// Bytes that may still be written without another look at the disk, by whichever file.
#[derive(Debug)]
pub(crate) struct Room {
    keep_free: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    folder: Option<PathBuf>,
    left: u64,
}

impl Room {
    pub(crate) fn new(keep_free: u64) -> Self {
        Self { keep_free, state: Mutex::default() }
    }

    /// Takes room for some bytes in a folder.
    ///
    /// # Errors
    /// [`WorkError::NoSpace`] when less than is to be kept free would be left.
    pub(crate) fn take(
        &self,
        store: &dyn FileStore,
        folder: Option<&Path>,
        bytes: u64,
    ) -> Result<(), WorkError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Folders may share a disk or not: what was seen in one says nothing about another.
        if state.left < bytes || state.folder.as_deref() != folder {
            let usable = store.free(folder)?.saturating_sub(self.keep_free);
            *state = State { folder: folder.map(Path::to_owned), left: usable.min(STRIDE) };
        }
        state.left = state.left.checked_sub(bytes).ok_or(WorkError::NoSpace)?;
        Ok(())
    }

    /// What was seen does not hold any more.
    pub(crate) fn look_again(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).left = 0;
    }
}

#[cfg(all(test, feature = "test-util"))]
mod tests {
    use super::*;
    use crate::testing::MemoryStore;

    #[test]
    fn files_at_once_leave_free_what_is_to_be() {
        let (room, disk) = (Room::new(1000), MemoryStore::new());
        disk.set_capacity(Some(11_000));
        for file in 0..10 {
            assert_eq!(room.take(&disk, None, 1000), Ok(()));
            disk.put(format!("/f{file}"), vec![0; 1000]);
        }
        assert_eq!(room.take(&disk, None, 1000), Err(WorkError::NoSpace));
        let other = Some(Path::new("/other"));
        assert_eq!(room.take(&disk, other, 1), Err(WorkError::NoSpace));
        disk.set_capacity(Some(13_000));
        assert_eq!(room.take(&disk, other, 1000), Ok(()));
        room.look_again();
        assert_eq!(room.take(&disk, None, 1000), Ok(()));
    }
}
