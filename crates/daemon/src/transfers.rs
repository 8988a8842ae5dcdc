//! Offered and received files on the bus of `GET /events`.

use x0x_agent::{FileEvent, FileEvents, TransferDirection};
use x0x_api::event::{Event, FILE_COMPLETE, FILE_OFFER, FileComplete, FileOffer};

use crate::{convert, events::EventBus, http::sse};

/// Carries events to the bus until the agent ends.
pub(crate) async fn forward(mut events: FileEvents, bus: EventBus) {
    while let Some(event) = events.next().await {
        let encoded = match event {
            Ok(FileEvent::Offered(info)) => {
                let transfer = convert::transfer(info);
                let offer = FileOffer {
                    transfer_id: transfer.transfer_id,
                    filename: transfer.filename,
                    size: transfer.total_size,
                    sender: transfer.remote_agent_id,
                };
                sse::encode(FILE_OFFER, &Event::FileOffer(offer))
            }
            Ok(FileEvent::Complete(info))
                if info.record.direction == TransferDirection::Receiving =>
            {
                let path = info.record.output.as_deref();
                let filename = path.and_then(|path| path.file_name());
                let complete = FileComplete {
                    filename: filename
                        .map(|name| name.to_string_lossy().into_owned())
                        .unwrap_or_default(),
                    path: path.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default(),
                    transfer_id: info.record.id.to_string(),
                    sha256: convert::transfer(info).sha256,
                };
                sse::encode(FILE_COMPLETE, &Event::FileComplete(complete))
            }
            Ok(_) => continue,
            Err(missed) => {
                tracing::warn!(missed, "events of transfers were missed");
                continue;
            }
        };
        bus.push(vec![encoded]).await;
    }
}
