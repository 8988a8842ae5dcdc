//! A thousand finders in virtual time, with links of 50 ms.

mod hostile;
mod overlay;
mod success;
