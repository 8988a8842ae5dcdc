//! The table of endpoints: routes, the OpenAPI document, `docs/api.md` and `x0x routes` derive from
//! it. Each category has its file.

mod cards;
mod contacts;
mod direct;
mod discovery;
mod files;
mod groups;
mod identity;
mod inbox;
mod letters;
mod network;
mod objects;
mod presence;
mod pubsub;
mod row;
mod status;
mod websocket;

use crate::{endpoint::Endpoint, operation::Operation};

pub use self::status::OPENMETRICS;

/// The categories, in the order in which documents show them.
const TABLES: &[&[Endpoint]] = &[
    status::TABLE,
    identity::TABLE,
    contacts::TABLE,
    network::TABLE,
    discovery::TABLE,
    presence::TABLE,
    pubsub::TABLE,
    direct::TABLE,
    inbox::TABLE,
    letters::TABLE,
    files::TABLE,
    objects::TASKS,
    objects::STORES,
    groups::TABLE,
    cards::CARDS,
    cards::MLS,
    websocket::TABLE,
];

static JOINED: [Endpoint; rows(TABLES)] = join(TABLES);

/// Every endpoint, in the order in which documents show them.
pub const ENDPOINTS: &[Endpoint] = &JOINED;

const fn rows(tables: &[&[Endpoint]]) -> usize {
    let (mut rows, mut table) = (0, 0);
    while table < tables.len() {
        rows += tables[table].len();
        table += 1;
    }
    rows
}

const fn join<const ROWS: usize>(tables: &[&[Endpoint]]) -> [Endpoint; ROWS] {
    let mut joined = [tables[0][0]; ROWS];
    let (mut rows, mut table) = (0, 0);
    while table < tables.len() {
        let mut row = 0;
        while row < tables[table].len() {
            joined[rows] = tables[table][row];
            rows += 1;
            row += 1;
        }
        table += 1;
    }
    joined
}

/// The table row of an operation.
///
/// # Panics
/// Never: a test holds that every operation has a row.
#[must_use]
pub fn endpoint(operation: Operation) -> &'static Endpoint {
    ENDPOINTS
        .iter()
        .find(|endpoint| endpoint.operation == operation)
        .expect("every operation has a row")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::endpoint::{Auth, Body, Kind, Method};

    #[test]
    fn each_operation_has_one_row_and_each_row_a_route_of_its_own() {
        let operations: BTreeSet<_> = ENDPOINTS.iter().map(|row| row.operation).collect();
        assert_eq!(operations.len(), ENDPOINTS.len());
        assert_eq!(operations, Operation::ALL.iter().copied().collect());
        let routes: BTreeSet<_> =
            ENDPOINTS.iter().map(|row| (row.method.as_str(), row.path)).collect();
        assert_eq!(routes.len(), ENDPOINTS.len());
        for row in ENDPOINTS {
            assert!(row.summary.ends_with('.'), "{} has no summary", row.path);
            assert_eq!(row.request.is_some(), row.body != Body::None, "{}", row.path);
            assert_eq!(endpoint(row.operation).path, row.path);
        }
    }

    /// A body costs memory: only those who presented the token may send one, and only where it is used.
    #[test]
    fn bodies_are_taken_with_a_token_and_where_they_are_used() {
        for row in ENDPOINTS {
            let takes_none = row.auth == Auth::None || row.method == Method::Get;
            assert_eq!(row.max_body == 0, takes_none, "{} {}", row.method, row.path);
            assert!(!takes_none || row.body == Body::None, "{}", row.path);
        }
    }

    #[test]
    fn streams_take_the_token_in_the_query() {
        for row in ENDPOINTS {
            let streams = row.kind != Kind::Rest;
            assert_eq!(row.auth == Auth::BearerOrQuery, streams, "{}", row.path);
        }
    }
}
