//! Rows of files.

use super::row::{get, json, post, stream};
use crate::{
    endpoint::{Answer, Endpoint, SchemaOf},
    operation::Operation,
    types::{
        AcceptFileRequest, ChangeTransferResponse, RejectFileRequest, SendFileRequest,
        SendFileResponse, Transfer, TransferResponse, TransfersResponse,
    },
};

const CATEGORY: &str = "Files";

pub(super) const TABLE: &[Endpoint] = &[
    post(Operation::SendFile, "/files/send", CATEGORY, json::<SendFileResponse>())
        .cli("send-file")
        .says("Offers a file on the daemon's machine to an agent; it is sent once that accepts.")
        .takes::<SendFileRequest>(),
    get(Operation::Transfers, "/files/transfers", CATEGORY, json::<TransfersResponse>())
        .cli("transfers")
        .says("Files on their way, and those that arrived or failed last."),
    get(Operation::Transfer, "/files/transfers/{id}", CATEGORY, json::<TransferResponse>())
        .cli("transfer-status")
        .says("One transfer."),
    post(Operation::AcceptFile, "/files/accept/{id}", CATEGORY, json::<ChangeTransferResponse>())
        .cli("accept-file")
        .says("Accepts an offered file.")
        .may_take::<AcceptFileRequest>(),
    post(Operation::RejectFile, "/files/reject/{id}", CATEGORY, json::<ChangeTransferResponse>())
        .cli("reject-file")
        .says("Refuses an offered file, or withdraws an offer that nobody answered.")
        .may_take::<RejectFileRequest>(),
    post(Operation::CancelFile, "/files/cancel/{id}", CATEGORY, json::<ChangeTransferResponse>())
        .cli("cancel-file")
        .says("Gives a transfer up, and drops what arrived of it."),
    post(Operation::PauseFile, "/files/pause/{id}", CATEGORY, json::<ChangeTransferResponse>())
        .cli("pause-file")
        .says("Stops a transfer for now; what arrived is kept."),
    post(Operation::ResumeFile, "/files/resume/{id}", CATEGORY, json::<ChangeTransferResponse>())
        .cli("resume-file")
        .says("Takes a paused transfer up again."),
    stream(
        Operation::FileEvents,
        "/files/events",
        CATEGORY,
        Answer::Events(SchemaOf::new::<Transfer>()),
    )
    .says("Transfers as they move, as server-sent events; those that have not ended come first."),
];
