//! What happens to a shared object, as server-sent events.

use bytes::{Bytes, BytesMut};
use x0x_agent::objects::{Note, Object, Watch};
use x0x_api::event::{LAGGED, Lagged};

use super::sse::{self, Source};
use crate::events::Encoded;

/// Events of an object. After what a client missed, or what turned out not to hold, comes `lagged`: it is to read
/// the object again.
pub(crate) struct ObjectSource<T: Object, F> {
    watch: Watch<T::Event>,
    encode: F,
}

impl<T: Object, F> ObjectSource<T, F>
where
    F: Fn(&T::Event) -> Option<Encoded> + Send + 'static,
{
    pub(crate) const fn new(watch: Watch<T::Event>, encode: F) -> Self {
        Self { watch, encode }
    }
}

impl<T: Object, F> Source for ObjectSource<T, F>
where
    F: Fn(&T::Event) -> Option<Encoded> + Send + 'static,
{
    async fn next(&mut self) -> Option<Bytes> {
        let mut out = BytesMut::new();
        while out.is_empty() {
            let (number, note) = self.watch.next().await?;
            let missed = match note {
                Note::Changed(change) => {
                    for event in change.events.iter().filter_map(|event| (self.encode)(event)) {
                        sse::append(&mut out, number, &event);
                    }
                    continue;
                }
                Note::Rebuilt => 0,
                Note::Lagged(missed) => missed,
                // A change of the policy is no event of the type.
                _ => continue,
            };
            out.extend_from_slice(&sse::encode(LAGGED, &Lagged { missed, ..Lagged::default() }));
        }
        Some(out.freeze())
    }
}
