//! `api-token`: the secret that a client of the API must present.

use std::{fmt, io, path::Path};

use data_encoding::HEXLOWER;
use subtle::ConstantTimeEq;
use x0x_agent::private_file::{Access, read, refuse_special, replace};
use x0x_api::instance::TOKEN_FILE;
use zeroize::Zeroizing;

use super::FileError;

/// Random bytes of a new token.
const TOKEN_BYTES: usize = 32;
/// Longest token that is accepted from the file.
const MAX_TOKEN: usize = 256;
/// Shortest one.
const MIN_TOKEN: usize = 32;

/// The API's bearer token. Its text is never printed.
pub struct ApiToken(Zeroizing<String>);

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiToken(..)")
    }
}

impl ApiToken {
    /// Takes the token of the data directory, or makes one. A file that others could read does not
    /// hold a secret any more: its token is replaced. The file is 0600 afterwards.
    pub(crate) fn load_or_create(directory: &Path) -> Result<Self, FileError> {
        let path = directory.join(TOKEN_FILE);
        refuse_special(&path)?;
        if let Some(token) = Self::load(&path)? {
            return Ok(token);
        }
        let mut bytes = Zeroizing::new([0; TOKEN_BYTES]);
        getrandom::fill(&mut *bytes).map_err(|error| {
            FileError::at("draw random bytes for", &path)(io::Error::other(error))
        })?;
        let token = Self(Zeroizing::new(HEXLOWER.encode(&*bytes)));
        replace(&path, token.as_str().as_bytes(), Access::Owner)?;
        Ok(token)
    }

    /// The token in a file, if there is a usable one.
    fn load(path: &Path) -> Result<Option<Self>, FileError> {
        let bytes = match read(path, 2 * MAX_TOKEN) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(None),
            Err(FileError::Exposed { path, .. }) => {
                tracing::warn!("other users could read {}: its token is replaced", path.display());
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let text = std::str::from_utf8(&bytes).unwrap_or_default().trim();
        let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
        let usable = printable && (MIN_TOKEN..=MAX_TOKEN).contains(&text.len());
        Ok(usable.then(|| Self(Zeroizing::new(text.to_owned()))))
    }

    /// The text, for a client in the same process.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a client presented this token; takes the same time wherever it differs.
    pub(crate) fn matches(&self, presented: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(presented).into()
    }
}
