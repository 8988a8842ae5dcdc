//! Rows of sealed letters.

use super::row::{get, json};
use crate::{endpoint::Endpoint, operation::Operation, types::LettersResponse};

const CATEGORY: &str = "Letters";

pub(super) const TABLE: &[Endpoint] =
    &[get(Operation::Letters, "/letters", CATEGORY, json::<LettersResponse>())
        .cli("letters")
        .says("Sealed letters: what is kept for others, what others keep for recipients that are away, and what is missing.")];
