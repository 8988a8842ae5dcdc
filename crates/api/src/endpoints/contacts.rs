//! Rows of whom this agent knows.

use super::row::{created, delete, get, json, patch, post};
use crate::{
    endpoint::{Answer, Endpoint},
    operation::Operation,
    types::{
        AddContactRequest, AddContactResponse, AddMachineRequest, ContactMachineResponse,
        ContactMachinesResponse, ContactsResponse, EvaluateRequest, EvaluateResponse, OkResponse,
        PinResponse, RevocationsResponse, RevokeContactRequest, SetTrustRequest, UnpinResponse,
        UpdateContactRequest,
    },
};

const CATEGORY: &str = "Contacts and trust";

pub(super) const TABLE: &[Endpoint] = &[
    get(Operation::Contacts, "/contacts", CATEGORY, json::<ContactsResponse>())
        .cli("contacts list")
        .says("The contacts."),
    post(Operation::AddContact, "/contacts", CATEGORY, created::<AddContactResponse>())
        .cli("contacts add")
        .says("Adds a contact, or changes the level and label of one as far as they are given; with status 201, or 409 for a blocked one without a level.")
        .takes::<AddContactRequest>(),
    post(Operation::SetTrust, "/contacts/trust", CATEGORY, json::<OkResponse>())
        .cli("trust set")
        .says("Sets the level of a contact, adding it when it is none.")
        .takes::<SetTrustRequest>(),
    patch(Operation::UpdateContact, "/contacts/{agent_id}", CATEGORY, json::<OkResponse>())
        .cli("contacts update")
        .says("Sets the level or the identity type of a contact, adding it when it is none.")
        .takes::<UpdateContactRequest>(),
    delete(Operation::RemoveContact, "/contacts/{agent_id}", CATEGORY, json::<OkResponse>())
        .cli("contacts remove")
        .says("Removes a contact; what was revoked stays so."),
    post(Operation::RevokeContact, "/contacts/{agent_id}/revoke", CATEGORY, json::<OkResponse>())
        .cli("contacts revoke")
        .says("Blocks an agent for ever, for this installation.")
        .takes::<RevokeContactRequest>(),
    get(
        Operation::ContactRevocations,
        "/contacts/{agent_id}/revocations",
        CATEGORY,
        json::<RevocationsResponse>(),
    )
    .cli("contacts revocations")
    .says("The revocations of an agent and of its user."),
    get(
        Operation::ContactMachines,
        "/contacts/{agent_id}/machines",
        CATEGORY,
        json::<ContactMachinesResponse>(),
    )
    .cli("machines list")
    .says("The machines of a contact."),
    post(
        Operation::AddMachine,
        "/contacts/{agent_id}/machines",
        CATEGORY,
        created::<ContactMachineResponse>(),
    )
    .cli("machines add")
    .says("Puts a machine of a contact on record, and pins the contact to it if asked.")
    .takes::<AddMachineRequest>(),
    delete(
        Operation::RemoveMachine,
        "/contacts/{agent_id}/machines/{machine_id}",
        CATEGORY,
        Answer::Nothing,
    )
    .cli("machines remove")
    .says("Forgets a machine of a contact, and its pin."),
    post(
        Operation::PinMachine,
        "/contacts/{agent_id}/machines/{machine_id}/pin",
        CATEGORY,
        json::<PinResponse>(),
    )
    .cli("machines pin")
    .says("Accepts a contact from this machine, and from no other that is not pinned too."),
    delete(
        Operation::UnpinMachine,
        "/contacts/{agent_id}/machines/{machine_id}/pin",
        CATEGORY,
        json::<UnpinResponse>(),
    )
    .cli("machines unpin")
    .says("Takes the pin off; after the last one the contact is accepted from any machine."),
    post(Operation::EvaluateTrust, "/trust/evaluate", CATEGORY, json::<EvaluateResponse>())
        .cli("trust evaluate")
        .says("What the trust rules say of an agent on a machine.")
        .takes::<EvaluateRequest>(),
];
